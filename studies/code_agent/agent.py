"""The code agent: a language model edits the training script, one change after the other.

Each proposal is a trial of a study of its own (code trials have no parameters, and one such trial
would empty the search space that other samplers infer):

1. The first ``baselines`` trials run the unedited script, so that the noise of a run is known.
2. A prompt is made of the stored trials (`prompt`), the model's edit is applied to the best script
   so far (`edit_blocks`) and checked by the validator (`validator`). A reply that can't be used goes
   back to the model once, with the reason (and, if there was no block in it, with the offer to
   change one constant instead: `constant_choice`). If the next can't be used either, the proposal
   is a trial of status ``rejected``, which cost no training.
   A coding agent of the user's own may take the model's place (`edit_command`).
3. The new script is stored under its hash and the trial is enqueued. Whoever claims it runs it in
   the sandbox, with the same objective as any method's.
4. Whether it is kept or reverted follows from the stored trials (`history`).

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
import os
from pathlib import Path
import re
import tempfile
import time
from typing import Any
from typing import TYPE_CHECKING

import optuna
from optuna.artifacts import upload_artifact
from optuna.trial import create_trial
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from objective import TestbedError
from objective import TrainScriptObjective
from objective import TrialFailed
from objective.run.outcome import one_line
from objective.run.sandbox import NONE
from objective.run.sandbox import require_sandbox
from objective.testbed.source import read_constants
from objective.worker import claim
from samplers._llm.chat import Completion
from samplers._llm.chat import ContextTooLong
from samplers._llm.prompt import PromptTooLong
from samplers._llm.record import Exchange
from samplers._llm.record import record
from samplers._llm.scripted import ScriptedChat
from samplers._trials.seeds import derive_seed
from studies.budget import is_evaluated
from studies.budget import is_interrupted
from studies.code_agent.constant_choice import apply_choice
from studies.code_agent.constant_choice import candidate_values
from studies.code_agent.constant_choice import Candidates
from studies.code_agent.constant_choice import choice_schema
from studies.code_agent.constant_choice import describe_choice
from studies.code_agent.edit_blocks import apply_edits
from studies.code_agent.edit_blocks import EditError
from studies.code_agent.edit_blocks import NoBlocks
from studies.code_agent.edit_blocks import parse_edits
from studies.code_agent.edit_blocks import parse_whole_file
from studies.code_agent.edit_blocks import with_line_ends_of
from studies.code_agent.edit_command import EditCommand
from studies.code_agent.history import BASELINE
from studies.code_agent.history import CodeHistory
from studies.code_agent.history import first_number
from studies.code_agent.history import is_baseline
from studies.code_agent.history import PROPOSAL
from studies.code_agent.history import read_history
from studies.code_agent.history import Step
from studies.code_agent.history import TUNER
from studies.code_agent.prompt import build_prompt
from studies.code_agent.prompt import Form
from studies.code_agent.prompt import log_tail
from studies.code_agent.prompt import Outlook
from studies.code_agent.sources import changed_lines
from studies.code_agent.sources import diff
from studies.code_agent.sources import SourceLost
from studies.code_agent.sources import Sources
from studies.code_agent.tuning import Tuner
from studies.code_agent.validator import check_source
from studies.code_agent.validator import ValidationError
from studies.errors import Failed
from studies.llm import open_llm
from studies.llm import within_caps
from studies.loop import evaluate
from studies.loop import Watch
from studies.notes import Notes
from studies.stopping import finishing
from studies.storage.open import open_storage
from studies.storage.open import read_artifact
from studies.storage.recovery import alone
from studies.storage.recovery import recover
from studies.storage.recovery import take_any
from studies.study import open_study
from studies.study import train_objective


if TYPE_CHECKING:
    from samplers import Chat
    from samplers._llm.chat import Message
    from studies.spec import Spec


# A reply with blocks takes some hundred tokens, but models that reason first take thousands; of a
# small context it must not take too much.
MAX_REPLY_TOKENS = 8192
REPLY_SHARE = 1 / 12
CHOICE_TOKENS = 300
TEMPERATURE = 0.7
# After so many choices of a constant in a row, each instead of blocks, a choice is asked for at
# once; but blocks are asked for again now and then, since a study may go on with another model.
_FUTILE = 3
_ASK_AGAIN = 10  # proposals
_REPLY_FORMAT = "form"  # user attribute of a proposal: one of the next two
_BLOCKS, _CHOICE = "blocks", "choice"
POLL_SECONDS = 0.5
_DESCRIPTION = re.compile(r"^\W*description\W*:\s*(.+)$", re.IGNORECASE | re.MULTILINE)
_DESCRIPTION_CHARS = 120
_TEXT = "text/plain; charset=utf-8"


def run_agent(
    spec: Spec, watch: Watch = lambda trials: None, *, chat: Chat | None = None
) -> optuna.Study:
    """Do a code study's trials in this process until its budget is used up.

    Args:
        spec: The study.
        watch: See `studies.loop.Watch`.
        chat: The language model; by default the one that the spec names.

    Raises:
        SandboxError: Nothing isolates a process here, and the spec doesn't allow that.
        Failed: No baseline could be measured, or the best script is lost.
        ChatError: The model can't be asked. Nothing is lost; the same spec goes on.
    """
    testbed = spec.where.load_script()
    sandbox = None if spec.editing.unsafe else require_sandbox()
    if chat is None and spec.editing.command is not None:
        chat = ScriptedChat()  # which only counts tokens
    chat = chat or open_llm(spec.model)
    study = open_study(spec, testbed, open_storage(spec.where.storage))
    objective = train_objective(spec, testbed, failure_value=None, sandbox=sandbox)
    CodeAgent(spec, study, objective, chat).run(within_caps(chat, watch))
    return study


class CodeAgent:
    """One process's work on a code study. It keeps nothing that isn't in the storage."""

    def __init__(
        self,
        spec: Spec,
        study: optuna.Study,
        objective: TrainScriptObjective,
        chat: Chat,
    ) -> None:
        self._seed = spec.seed
        self._budget = spec.budget
        self._editing = spec.editing
        self._study = study
        self._objective = objective
        self._results = spec.where.results
        self._testbed = objective.testbed
        self._chat = chat
        self._artifacts = spec.where.open_artifacts()
        self._sources = Sources(self._artifacts, self._testbed.source)
        self._lock_file = spec.where.lock_file
        self._command: EditCommand | None = None
        if spec.editing.command is not None:
            self._command = EditCommand(
                spec.editing.command, self._testbed.path, spec.editing.command_seconds
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
        self._prepare()
        notes = Notes(study)
        while not finishing():
            with alone(self._lock_file):
                recover(study, self._results)
                self._enqueue_baselines()
                claimed = take_any(study)
            trials = study.get_trials(deepcopy=False)
            watch(trials)
            notes.write(trials)
            if claimed is not None:
                evaluate(study, claimed, self._run, self._results)
            elif self._baselines_left(trials) == 0 and self._room(trials):
                if not (self._editing.tune and self._tune()):
                    self._propose(trials)
            elif any(t.state == TrialState.RUNNING for t in trials):
                time.sleep(POLL_SECONDS)  # another process is at it; if that dies, it comes back
            else:
                return

    def _room(self, trials: Sequence[FrozenTrial]) -> bool:
        """Return whether the study may have one more trial."""
        return self._budget.allows(trials, len(trials))

    def _baselines_left(self, trials: Sequence[FrozenTrial]) -> int:
        """Baselines that are still to be measured: the noise must be known before a change is."""
        done = sum(is_baseline(t) and is_evaluated(t) for t in trials)
        return max(0, self._n_baselines - done)

    def _enqueue_baselines(self) -> None:
        trials = self._study.get_trials(deepcopy=False)
        there = sum(is_baseline(t) and not is_interrupted(t) for t in trials)
        for _ in range(self._n_baselines - there):
            self._enqueue({"source": BASELINE, "source_sha256": self._sources.baseline})

    def _history(self, trials: Sequence[FrozenTrial]) -> CodeHistory:
        history = read_history(trials, self._editing.min_gain, self._testbed.metric)
        if history.best is None:
            reasons = {t.user_attrs.get("reason", "?") for t in trials if is_baseline(t)}
            raise Failed(
                f"the unedited script could not be measured ({'; '.join(sorted(reasons))});"
                " see its log among the trial's artifacts, mend it, and begin a new study"
            )
        return history

    def prompt(self, trials: Sequence[FrozenTrial], choice: str = "") -> list[Message]:
        """Return the request for the next proposal, from nothing but the storage.

        Args:
            trials: The study's.
            choice: Text that offers a choice instead of writing blocks.
        """
        reply_tokens = self._reply_tokens()
        if choice:
            reply_tokens = max(reply_tokens, CHOICE_TOKENS + self._chat.count_tokens(choice))
        try:
            messages = build_prompt(
                self._chat,
                self._history(trials),
                self._sources,
                self._log_tail,
                task=self._testbed.task,
                outlook=self._outlook(trials),
                reply_tokens=reply_tokens,
                form=self._form,
            )
        except PromptTooLong as error:
            raise Failed(str(error)) from None
        last = messages[-1]
        content = f"{last['content']}\n\n{choice}".rstrip()
        return [*messages[:-1], {"role": last["role"], "content": content}]

    def _tune(self) -> bool:
        """Enqueue other constants of the best script, if that is due and there are any."""
        with alone(self._lock_file):  # others may be at the same
            trials = self._study.get_trials(deepcopy=False)
            if not self._room(trials):
                return True
            history = self._history(trials)
            if not self._tuner.is_turn(history):
                return False
            tuned = self._tuner.propose(history, _counted(trials))
            if tuned is None:
                return False
            try:
                fingerprint = self._check(tuned.source, trials)
            except ValidationError:  # by a rule of this script's own, such as of its size
                return False
            attributes = {
                "source": TUNER,
                "parent": first_number(tuned.parent),
                "parent_sha256": tuned.parent.user_attrs["source_sha256"],
                "fingerprint": fingerprint,
                "description": one_line(tuned.description, _DESCRIPTION_CHARS),
            }
            self._enqueue(attributes | self._of_source(tuned.source, attributes["parent_sha256"]))
        return True

    def _of_source(self, source: str, parent_sha: str) -> dict[str, Any]:
        """Keep a script, and return what its trial says of it."""
        sha = self._sources.save(source)
        _, added, removed = changed_lines(self._sources.load(parent_sha), source)
        return {
            "source_sha256": sha,
            "lines_added": added,
            "lines_removed": removed,
            **self._changed_constants(source),
        }

    def _propose(self, trials: Sequence[FrozenTrial]) -> None:
        history = self._history(trials)
        assert history.best is not None
        parent_sha = history.best.user_attrs["source_sha256"]
        parent = self._sources.load(parent_sha)
        attributes: dict[str, Any] = {
            "source": PROPOSAL,
            "parent": first_number(history.best),
            "parent_sha256": parent_sha,
        }
        # The study's seed and the turn, so that a resumed study asks as it would have; but two
        # processes that ask at the same moment must not get the same reply.
        others = any(t.state == TrialState.RUNNING for t in trials)
        seed = derive_seed(self._seed, len(trials), os.getpid() if others else 0)
        exchanges: list[Exchange] = []
        source = reason = ""
        candidates: Candidates = {}
        if _writes_no_blocks(history):
            candidates = self._candidates(parent, seed, trials)
        messages = self.prompt(trials, describe_choice(parent, candidates) if candidates else "")
        for attempt in range(2):
            try:
                completion, edited = self._ask(messages, seed + attempt, candidates, parent)
            except EditError as error:  # of a command, which can be asked again
                reason = str(error)
                exchanges.append(Exchange(messages, Completion(""), problem=reason))
                messages = self._retry(messages, "", reason)
                continue
            text = completion.text
            is_choice = bool(candidates) and text.lstrip().startswith("{")
            attributes[_REPLY_FORMAT] = _CHOICE if is_choice else _BLOCKS
            try:
                if is_choice:
                    description, source = apply_choice(parent, text)
                    attributes["description"] = one_line(description, _DESCRIPTION_CHARS)
                else:
                    attributes["description"] = describe(text)
                    if edited is not None:
                        source = edited
                    elif self._editing.whole_files:
                        source = with_line_ends_of(parent, parse_whole_file(text))
                    else:
                        source = apply_edits(parent, parse_edits(text))
                attributes["fingerprint"] = self._check(source, trials)
            except (EditError, ValidationError) as error:
                source, reason = "", str(error)
                exchanges.append(Exchange(messages, completion, problem=reason))
                if isinstance(error, NoBlocks):
                    # It didn't get the format, and is asked for less: to change one constant.
                    candidates = self._candidates(parent, seed, trials)
                how = "Try again." if self._command else "Reply again, in the same format."
                if candidates:
                    how = describe_choice(parent, candidates)
                messages = self._retry(messages, text, f"{reason}\n{how}")
                continue
            exchanges.append(Exchange(messages, completion))
            break
        if not source:
            self._reject(attributes, reason, exchanges)
            return
        attributes |= self._of_source(source, parent_sha)
        sha = attributes["source_sha256"]
        with alone(self._lock_file):
            # Meanwhile others may have used up the study, or proposed the same.
            trials = self._study.get_trials(deepcopy=False)
            if not self._room(trials):
                return
            try:
                self._check(source, trials)
            except ValidationError as error:
                self._reject(attributes, str(error), exchanges)
                return
            self._enqueue(attributes)
        waiting = [
            t
            for t in self._study.get_trials(deepcopy=False)
            if t.user_attrs.get("source_sha256") == sha
        ]
        self._record(waiting[-1], exchanges)

    @property
    def _form(self) -> Form:
        """How the model is to give its change."""
        if self._command is not None:
            return Form.IN_PLACE
        return Form.WHOLE_FILE if self._editing.whole_files else Form.BLOCKS

    def _ask(
        self, messages: list[Message], seed: int, candidates: Candidates, parent: str
    ) -> tuple[Completion, str | None]:
        """Return the model's reply, and the script itself if it was edited in place."""
        if self._command is not None:
            return self._command.edit(messages, parent)
        try:
            completion = self._chat.complete(
                messages,
                schema=choice_schema(candidates) if candidates else None,
                max_tokens=CHOICE_TOKENS if candidates else self._reply_tokens(),
                temperature=TEMPERATURE,
                seed=seed % 2**31,
            )
            return completion, None
        except ContextTooLong as error:
            raise Failed(
                f"the prompt is too long for the model ({error}); choose one with a longer context"
            ) from None

    def _outlook(self, trials: Sequence[FrozenTrial]) -> Outlook:
        history = self._history(trials)
        total = self._budget.trials
        return Outlook(
            left=None if total is None else max(0, total - _counted(trials)),
            tuning=self._tuner.share(history) if self._editing.tune else 0.0,
            found=self._tuner.found(history) if self._editing.tune else {},
        )

    def _reply_tokens(self) -> int:
        tokens = MAX_REPLY_TOKENS
        if self._chat.context_tokens is not None:
            tokens = min(tokens, int(self._chat.context_tokens * REPLY_SHARE))
        if self._editing.whole_files:
            tokens += int(1.2 * self._chat.count_tokens(self._testbed.source))
        return tokens

    def _retry(self, messages: list[Message], reply: str, reason: str) -> list[Message]:
        """Return the second request: the reply and what is wrong with it, or only the latter."""
        complaint: Message = {"role": "user", "content": f"That reply can't be used. {reason}"}
        longer = [*messages, {"role": "assistant", "content": reply[:2000]}, complaint]
        limit = self._chat.context_tokens
        if limit is not None:
            needed = sum(self._chat.count_tokens(m["content"]) + 16 for m in longer)
            if needed + self._reply_tokens() > limit:
                last = messages[-1]
                short = f"{last['content']}\n\nAn earlier reply couldn't be used. {reason[:1500]}"
                return [*messages[:-1], {"role": last["role"], "content": short}]
        return longer

    def _candidates(self, parent: str, seed: int, trials: Sequence[FrozenTrial]) -> Candidates:
        def is_usable(source: str) -> bool:
            try:
                self._check(source, trials)
            except ValidationError:
                return False
            return True

        return candidate_values(parent, seed, is_usable)

    def _check(self, source: str, trials: Sequence[FrozenTrial]) -> str:
        earlier = {
            str(t.user_attrs["fingerprint"]) for t in trials if "fingerprint" in t.user_attrs
        }
        return check_source(
            source,
            baseline=self._testbed.source,
            earlier=earlier,
            evaluator=self._testbed.metric.evaluator,
        )

    def _changed_constants(self, source: str) -> dict[str, Any]:
        baseline = read_constants(self._testbed.source)
        try:
            constants = read_constants(source)
        except TestbedError:
            return {}
        return {
            name: constant.value
            for name, constant in constants.items()
            if name not in baseline or baseline[name].value != constant.value
        }

    def _enqueue(self, attributes: dict[str, Any]) -> None:
        # Not skip_if_exists: to Optuna all trials without parameters are the same.
        self._study.enqueue_trial({}, user_attrs=attributes)

    def _reject(
        self, attributes: dict[str, Any], reason: str, exchanges: Sequence[Exchange]
    ) -> None:
        """Store a trial that says why a proposal was not run."""
        # The fingerprint of a rejected source must not make the same source a duplicate later.
        attributes = {k: v for k, v in attributes.items() if k != "fingerprint"}
        attributes |= {"status": "rejected", "reason": one_line(reason)}
        template = create_trial(state=TrialState.RUNNING, user_attrs=attributes)
        trial_id = self._study._storage.create_new_trial(self._study._study_id, template)
        claim(optuna.Trial(self._study, trial_id))
        self._record(self._study._storage.get_trial(trial_id), exchanges)
        self._study._storage.set_trial_state_values(trial_id, TrialState.FAIL)

    def _record(self, trial: FrozenTrial, exchanges: Sequence[Exchange]) -> None:
        reason = next((e.error for e in exchanges if e.error), "")
        record(
            self._study,
            trial,
            source=PROPOSAL,
            reason=reason,
            exchanges=exchanges,
            artifact_store=self._artifacts,
        )

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
        if not is_baseline(trial.study._storage.get_trial(trial._trial_id)):
            self._upload_diff(trial, source)
        return self._objective.run(trial, source)

    def _upload_diff(self, trial: optuna.Trial, source: str) -> None:
        try:
            parent = self._sources.load(trial.user_attrs["parent_sha256"])
        except SourceLost:
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "change.diff"
            path.write_text("\n".join(diff(parent, source)) + "\n")
            upload_artifact(
                artifact_store=self._artifacts,
                file_path=str(path),
                study_or_trial=trial,
                mimetype=_TEXT,
            )

    def _prepare(self) -> None:
        """Let the testbed make its caches now: in a sandbox they can't be written."""
        if not self._study.get_trials(deepcopy=False):
            self._objective.prepare()

    def _log_tail(self, step: Step) -> str:
        log = read_artifact(self._study, step.trial, self._artifacts, "train.log")
        return log_tail(log or "")


def _counted(trials: Sequence[FrozenTrial]) -> int:
    """Return how many there are without those that were interrupted, which come again."""
    return sum(not is_interrupted(t) for t in trials)


def _writes_no_blocks(history: CodeHistory) -> bool:
    formats = [step.trial.user_attrs.get(_REPLY_FORMAT) for step in history.proposals]
    return formats[-_FUTILE:] == [_CHOICE] * _FUTILE and len(formats) % _ASK_AGAIN != 0


def describe(reply: str) -> str:
    """Return the line in which a reply says what it changes, at most 120 characters."""
    match = _DESCRIPTION.search(reply)
    if match:
        return one_line(match[1], _DESCRIPTION_CHARS)
    for line in reply.splitlines():
        if line.startswith(("<<<<<", "```")):
            break
        if line.strip():
            return one_line(line, _DESCRIPTION_CHARS)
    return "(not described)"
