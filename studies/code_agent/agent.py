"""The code agent: a language model edits the training script, one change after the other.

Each proposal is a trial of a study of its own (code trials have no parameters, and one such trial
would empty the search space that other samplers infer):

1. The first ``baselines`` trials run the unedited script, so that the noise of a run is known: the
   first with its own seed, as edits have it, the others with other seeds if it takes one.
2. The model is asked for a change of the best script so far (`proposer`), or for several, of which
   all but one wait (`ideas`). If neither its reply nor the next can be used, the proposal is a trial
   of status ``rejected``, which cost no training.
   A coding agent of the user's own may take the model's place (`edit_command`).
3. The new script is stored under its hash and the trial is enqueued (`trials`). Whoever claims it
   runs it in the sandbox, with the same objective as any method's. If a mistake in the code ends it
   before it trains, the model is asked once to mend it, and what it replies is run in its place.
4. Whether it is kept or reverted follows from the stored trials (`history`). One whose gain is too
   large to be believed at once is trained again with another seed first, in a trial of its own
   whose ``source`` is ``again``.

Between these proposals the constants of the best script are tuned (`tuning`), each time in a trial
whose ``source`` is ``tuner``.

Several processes may do this on one study: each proposes from what is the best when it asks.

User attributes of a proposal, besides those of every trial: ``parent`` (number of the trial that
was edited), ``parent_sha256``, ``source_sha256``, ``fingerprint``, ``description``,
``lines_added``, ``lines_removed``, ``isolation``, and each upper-case constant whose value differs
from the baseline's, under its own name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
import os
import time
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from objective import TrainScriptObjective
from objective import TrialFailed
from objective.run.outcome import one_line
from objective.run.sandbox import NONE
from objective.run.sandbox import require_sandbox
from objective.run.sandbox import SandboxError
from samplers._trials.internals import interrupted_trials
from samplers._trials.seeds import derive_seed
from studies.budget import counted
from studies.budget import is_evaluated
from studies.budget import is_interrupted
from studies.code_agent.drafts import Drafts
from studies.code_agent.edit_blocks import EditError
from studies.code_agent.edit_command import EditCommand
from studies.code_agent.files import script_and_others
from studies.code_agent.files import unedited
from studies.code_agent.history import AGAIN
from studies.code_agent.history import AGAIN_SEED
from studies.code_agent.history import BASELINE
from studies.code_agent.history import CodeHistory
from studies.code_agent.history import crashed_at_once
from studies.code_agent.history import is_again
from studies.code_agent.history import is_baseline
from studies.code_agent.history import MENDED
from studies.code_agent.history import PROPOSAL
from studies.code_agent.history import read_history
from studies.code_agent.history import Step
from studies.code_agent.history import TUNER
from studies.code_agent.ideas import DROPPED
from studies.code_agent.ideas import waiting
from studies.code_agent.outlook import Outlook
from studies.code_agent.prompt import log_tail
from studies.code_agent.proposer import check
from studies.code_agent.proposer import describe
from studies.code_agent.proposer import DESCRIPTION_CHARS
from studies.code_agent.proposer import Proposer
from studies.code_agent.sources import SourceLost
from studies.code_agent.sources import Sources
from studies.code_agent.trials import child_of
from studies.code_agent.trials import CodeTrials
from studies.code_agent.tuning import Tuner
from studies.code_agent.validator import ValidationError
from studies.errors import Failed
from studies.errors import Misuse
from studies.facts import REPEATS
from studies.llm import open_llm
from studies.llm import within_caps
from studies.loop import evaluate
from studies.loop import put_back_if_stopped
from studies.loop import Watch
from studies.notes import Notes
from studies.stopping import finishing
from studies.storage.open import open_storage
from studies.storage.open import read_artifact
from studies.storage.recovery import alone
from studies.storage.recovery import is_given_up
from studies.storage.recovery import MAX_RETRY
from studies.storage.recovery import recover
from studies.storage.recovery import take_any
from studies.study import open_study
from studies.study import train_objective


if TYPE_CHECKING:
    from objective import Testbed
    from objective.run.sandbox import Sandbox
    from samplers import Chat
    from studies.spec import Spec


POLL_SECONDS = 0.5


def isolation(testbed: Testbed) -> Sandbox:
    """Return what isolates the scripts of a testbed that a model wrote.

    Raises:
        Misuse: Nothing does here; or the metric is read from a file, which is gone with the sandbox.
    """
    if (file := testbed.metric.file) is not None:
        raise Misuse(
            "a script that a model wrote must print its metric, but --metric-file (metric_file in"
            f" search_space.toml) is {file}, which is gone when the sandbox ends: let the script"
            " print it, and leave that out, or take the risk with `agent --unsafe`"
        )
    try:
        return require_sandbox()
    except SandboxError as error:
        raise Misuse(str(error)) from None


def run_agent(
    spec: Spec, watch: Watch = lambda trials: None, *, chat: Chat | None = None
) -> optuna.Study:
    """Do a code study's trials in this process until its budget is used up.

    Args:
        spec: The study.
        watch: See `studies.loop.Watch`.
        chat: The language model; by default the one that the spec names.

    Raises:
        Misuse: As `isolation`, unless the spec does without.
        Failed: A baseline could not be measured, or the best script is lost.
        ChatError: The model can't be asked. Nothing is lost; the same spec goes on.
    """
    testbed = spec.where.load_script()
    sandbox = None if spec.editing.unsafe else isolation(testbed)
    author: Chat | EditCommand
    if spec.editing.command is not None:
        author = EditCommand(spec.editing.command, testbed.files, spec.editing.command_seconds)
    else:
        author = chat = chat or open_llm(spec.model)
    study = open_study(spec, testbed, open_storage(spec.where.storage, wait=spec.where.wait))
    objective = train_objective(spec, testbed, failure_value=None, sandbox=sandbox)
    CodeAgent(spec, study, objective, author).run(within_caps(chat, watch))
    return study


class CodeAgent:
    """One process's work on a code study. It keeps nothing that isn't in the storage."""

    def __init__(
        self,
        spec: Spec,
        study: optuna.Study,
        objective: TrainScriptObjective,
        author: Chat | EditCommand,
    ) -> None:
        self._seed = spec.seed
        self._budget = spec.budget
        self._editing = spec.editing
        self._study = study
        self._objective = objective
        self._results = spec.where.results
        self._testbed = objective.testbed
        self._artifacts = spec.where.open_artifacts()
        self._sources = Sources(self._artifacts, unedited(self._testbed, spec.editing.files))
        self._lock_file = spec.where.lock_file
        self._drafts = Drafts(spec.where.folder, spec.name)
        self._trials = CodeTrials(study, self._sources, self._artifacts, self._drafts)
        self._proposer = Proposer(
            self._testbed, self._sources, spec.editing, author, self._drafts, self._log_tail
        )
        self._tuner = Tuner(
            self._testbed,
            self._sources,
            seed=spec.seed,
            share=spec.editing.tune,
            edit_trials=spec.editing.tune_edits,
        )
        trials = spec.budget.trials
        self._n_baselines = min(spec.editing.baselines, trials or spec.editing.baselines)

    def run(self, watch: Watch = lambda trials: None) -> None:
        """Work until the study has its trials and no other process is at one."""
        study = self._study
        if not study.get_trials(deepcopy=False):
            self._objective.prepare()  # caches, which in a sandbox can't be written
        notes = Notes(study)
        with put_back_if_stopped(study):
            while not finishing():
                with alone(self._lock_file):
                    recover(study, self._results)
                    self._enqueue_baselines()
                    claimed = take_any(study)
                trials = study.get_trials(deepcopy=False)
                watch(trials)
                notes.write(trials)
                if claimed is not None:
                    is_suggested = not is_baseline(claimed)
                    evaluate(study, claimed, self._run, self._results, is_suggested=is_suggested)
                    continue
                measured = sum(is_baseline(t) and is_evaluated(t) for t in trials)
                # The noise must be known before a change is.
                if measured >= self._n_baselines and self._next(trials):
                    continue
                if any(t.state == TrialState.RUNNING for t in trials):
                    # Another process is at it; if that dies, it comes back.
                    time.sleep(POLL_SECONDS)
                else:
                    return

    def _room(self, trials: Sequence[FrozenTrial], repeated: FrozenTrial | None = None) -> bool:
        """Return whether the study may have one more trial; one that it repeats doesn't count."""
        others = [t for t in trials if repeated is None or t.number != repeated.number]
        return self._budget.allows(others, len(trials))

    def _enqueue_baselines(self) -> None:
        trials = self._study.get_trials(deepcopy=False)
        again = interrupted_trials(trials)
        missing = self._n_baselines - sum(map(is_baseline, counted(trials)))
        lost = [t for t in trials if is_interrupted(t) and t.number not in again]
        if missing > 0 and any(is_baseline(t) and is_given_up(t) for t in lost):
            raise Failed(
                "the unedited script could not be measured: the process that ran it was killed, or"
                f" its machine went down, {MAX_RETRY + 1} times; let the script need less (memory,"
                " say), and begin a new study"
            )
        for place in range(self._n_baselines - missing, self._n_baselines):
            seed = {"train_seed": AGAIN_SEED - place} if place and self._testbed.takes_seed else {}
            self._trials.enqueue(
                {"source": BASELINE, **seed, "source_sha256": self._sources.baseline}
            )

    def _history(self, trials: Sequence[FrozenTrial]) -> CodeHistory:
        history = read_history(trials, self._editing.min_gain, self._testbed.metric)
        if history.best is None:
            reasons = {t.user_attrs.get("reason", "?") for t in trials if is_baseline(t)}
            raise Failed(
                f"the unedited script could not be measured ({'; '.join(sorted(reasons))});"
                " see its log among the trial's artifacts, mend it, and begin a new study"
            )
        return history

    def _next(self, trials: Sequence[FrozenTrial]) -> bool:
        """Enqueue the next trial of whoever's turn it is; return whether there may be one."""
        crashed = crashed_at_once(trials)
        # It costs no trial, so that it may come after the last one.
        if crashed is not None and self._room(trials, crashed):
            self._propose(trials, crashed)
            return True
        has_room = self._room(trials)
        with alone(self._lock_file):  # others may be at the same
            now = self._study.get_trials(deepcopy=False)
            history = self._history(now)
            if self._train_again(now, history):
                return True
            if has_room and (
                not self._room(now) or self._tune(now, history) or self._take_waiting(now, history)
            ):
                return True
        if has_room:
            self._propose(trials)
        return has_room

    def _train_again(self, trials: Sequence[FrozenTrial], history: CodeHistory) -> bool:
        """Enqueue the second training of a trial whose gain is doubted, if there is one.

        It may come after the study's last trial, whose gain would be lost otherwise.
        """
        there = {t.user_attrs.get(REPEATS) for t in trials if is_again(t)}
        for doubted in history.doubted:
            sha = doubted.user_attrs.get("source_sha256")
            if sha is None or doubted.number in there or not self._room(trials, doubted):
                continue
            self._trials.enqueue(
                {
                    "source": AGAIN,
                    REPEATS: doubted.number,
                    "train_seed": AGAIN_SEED,
                    "source_sha256": sha,
                }
            )
            return True
        return False

    def _tune(self, trials: Sequence[FrozenTrial], history: CodeHistory) -> bool:
        """Enqueue other constants of the best script, if that is due and there are any."""
        if not self._tuner.is_turn(history):
            return False
        tuned = self._tuner.propose(history, len(counted(trials)))
        if tuned is None:
            return False
        attributes = child_of(tuned.parent, TUNER)
        attributes["description"] = one_line(tuned.description, DESCRIPTION_CHARS)
        try:
            attributes["fingerprint"] = check(tuned.source, self._sources, self._testbed, trials)
        except ValidationError:  # by a rule of this script's own, such as of its size
            return False
        attributes |= self._trials.of_source(tuned.source, attributes["parent_sha256"])
        self._trials.enqueue(attributes)
        return True

    def _take_waiting(self, trials: Sequence[FrozenTrial], history: CodeHistory) -> bool:
        """Enqueue the first idea that waits and can be used on the best script, if there is one."""
        assert history.best is not None
        attributes = child_of(history.best, PROPOSAL)
        for sha in waiting(trials):
            try:
                parent = self._sources.load(attributes["parent_sha256"])
                source, found = self._proposer.apply_idea(sha, parent, trials)
            except (EditError, ValidationError, SourceLost):
                continue  # it may fit later, or is told to the model with the next request
            attributes |= found | self._trials.of_source(source, attributes["parent_sha256"])
            self._trials.enqueue(attributes)
            return True
        return False

    def _propose(self, trials: Sequence[FrozenTrial], crashed: FrozenTrial | None = None) -> None:
        """Ask for a change and enqueue it; or for ``crashed`` mended, in the place of that trial."""
        history = self._history(trials)
        assert history.best is not None
        dropped = {} if crashed is not None else self._unusable(trials, history.best)
        attributes = child_of(history.best, PROPOSAL)
        if dropped:
            attributes[DROPPED] = list(dropped)
        # The study's seed and the turn, so that a resumed study asks as it would have; but two
        # processes that ask at the same moment must not get the same reply.
        others = any(t.state == TrialState.RUNNING for t in trials)
        seed = derive_seed(self._seed, len(counted(trials)), os.getpid() if others else 0)
        outlook = Outlook(self._left(trials), dropped=list(dropped.values()), crashed=crashed)
        if self._editing.tune > 0:
            outlook = replace(
                outlook,
                tuning=self._tuner.share(history),
                found=self._tuner.found(history),
                untuned=self._tuner.untuned(history),
                sensitivities=self._tuner.sensitivities(history),
            )
        proposal = self._proposer.propose(history, trials, outlook, seed)
        attributes |= proposal.attributes
        if not proposal.source:
            self._trials.reject(attributes, proposal.reason, proposal.exchanges, crashed)
            return
        attributes |= self._trials.of_source(proposal.source, attributes["parent_sha256"])
        with alone(self._lock_file):
            # Meanwhile others may have used up the study, or proposed or mended the same.
            trials = self._study.get_trials(deepcopy=False)
            if crashed is not None and crashed_at_once(trials) != crashed:
                crashed = None
            if crashed is not None:
                attributes[MENDED] = True
            if not self._room(trials, crashed):
                self._drafts.drop()
                return
            try:
                check(proposal.source, self._sources, self._testbed, trials)
            except ValidationError as error:
                self._trials.reject(attributes, str(error), proposal.exchanges, crashed)
                return
            self._trials.enqueue(attributes, proposal.exchanges, crashed)

    def _unusable(
        self, trials: Sequence[FrozenTrial], best: FrozenTrial
    ) -> dict[str, tuple[str, str]]:
        """Return the ideas that wait and can't be used on the best script: what each is, and why."""
        parent = self._sources.load(best.user_attrs["source_sha256"])
        found = {}
        for sha in waiting(trials):
            try:
                self._proposer.apply_idea(sha, parent, trials)
            except SourceLost as error:
                found[sha] = "(not known any more)", str(error)
            except (EditError, ValidationError) as error:
                found[sha] = describe(self._sources.load(sha)), str(error)
        return found

    def _left(self, trials: Sequence[FrozenTrial]) -> int | None:
        """Return how many trials are left by their number and by the training time.

        Not by the clock: a study that is resumed must ask what it would have asked, or it pays for
        a reply twice.
        """
        left = []
        if self._budget.trials is not None:
            left.append(max(0, self._budget.trials - len(counted(trials))))
        fit = replace(self._budget, trials=None, until=None, wall=None).trials_left(trials)
        return min([*left, fit] if fit is not None else left, default=None)

    def _run(self, trial: optuna.Trial) -> float:
        attrs = trial.user_attrs
        if attrs.get("status") == "rejected":  # whose worker was killed before it could say so
            raise TrialFailed("rejected", attrs.get("reason", ""))
        if self._editing.unsafe:
            trial.set_user_attr("isolation", NONE)
        try:
            source = self._sources.load(attrs["source_sha256"])
        except SourceLost as error:
            trial.set_user_attr("status", "rejected")
            trial.set_user_attr("reason", one_line(str(error)))
            raise TrialFailed("rejected", str(error)) from None
        script, others = script_and_others(source)
        if attrs.get("source") not in (AGAIN, BASELINE):
            self._trials.upload_diff(trial, source)
        seed = attrs.get("train_seed")
        objective = self._objective if seed is None else self._objective.with_seed(seed)
        return objective.run(trial, script, others)

    def _log_tail(self, step: Step) -> str:
        return log_tail(read_artifact(self._study, step.trial, self._artifacts, "train.log") or "")
