"""The study loop: claim a trial, evaluate it, say how it went, until the budget is used up.

It is `Study.optimize` with three things that Optuna leaves to its callers: a total number of trials
across resumes and processes, a budget of training seconds, and samplers that are pure functions of
the seed and the trial's number.

*Claiming.* Every trial begins as WAITING and is claimed by setting it RUNNING. The lowest number is
always tried first, so that trials start in the order of their numbers and `Budget.allows` can
decide from what came before. Trial 0 is the baseline by definition, so nobody has to make sure
that it is enqueued only once. Trials that were killed come back as WAITING copies (see
`studies.storage.open`) and are claimed like all others.

Database servers and journals let only one process win a claim. SQLite does not: Optuna reads the
state and then sets it, without a lock in between (`SELECT ... FOR UPDATE` is nothing to SQLite),
and two processes that meet there both run the trial. A lock file keeps them apart.

*Faults.* A process may die between any two statements here, and its database may be away at any
of them: `studies.storage.open` says how trials come back, `objective.results` how results do.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from contextlib import suppress
import copy
from dataclasses import dataclass
from datetime import datetime
import logging
import math
import threading
import time
from typing import Any

import optuna
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.storages._heartbeat import is_heartbeat_enabled
from optuna.trial import create_trial
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from objective import TrialFailed
from objective.objective import ArtifactError
from objective.results import Results
from objective.run.script import DiskFull
from objective.testbed.runtime import option_for
from objective.worker import WORKER
from objective.worker import worker_mark
from samplers._trials.internals import first_number
from samplers._trials.internals import number_without_repeats
from samplers._trials.internals import repeating
from studies.budget import Budget
from studies.budget import is_ok
from studies.errors import Failed
from studies.facts import baseline_trial
from studies.methods import Method
from studies.methods import Setup
from studies.notes import Notes
from studies.stopping import finishing
from studies.storage.recovery import alone
from studies.storage.recovery import recover
from studies.storage.recovery import retry
from studies.storage.recovery import set_patience
from studies.storage.recovery import take
from studies.storage.recovery import tell_kept


_logger = logging.getLogger(__name__)

# What to do about failures that say more about the script or its set-up than about its
# hyperparameters, as long as no trial has worked.
_MEND = (
    "see its log among the trial's artifacts; mend the script or its environment, and run the same"
    " command again"
)
_ADVICE = {
    "crash": _MEND,
    "no-metric": "if it prints its metric by another name, say --metric NAME, if it writes it to a file,"
    " --metric-file FILE, and begin another study (--study, or --name of a comparison); else "
    + _MEND,
    "timeout": "run the command again with a larger --wall-seconds, or begin another study (--study,"
    " or --name of a comparison) that trains for less by --train-seconds",
}
POLL_SECONDS = 1.0
_JOIN_SECONDS = 2.0  # for a heartbeat that is being written

Objective = Callable[[optuna.Trial], float]
# Takes a study's trials when they may have changed.
Watch = Callable[[Sequence[FrozenTrial]], None]


class StudyStopped(Failed):
    """The study can't sensibly go on; the message is one line that says why and what to do."""


@dataclass(frozen=True)
class StudyLoop:
    """One process's work on a study.

    Attributes:
        study: Where trials come from and go to; its sampler is replaced before each trial.
        objective: From a trial to its value; see `objective.TrainScriptObjective`.
        baseline: Parameters of trial 0.
        method: Which sampler.
        setup: What the sampler may know.
        budget: When to stop.
        lock_file: A file that processes lock while they claim; made if it isn't there. ``None``
            will do for a single process, and on storages other than SQLite: there, two processes
            that need a new trial at the same moment may both create one, and the surplus one
            stays WAITING until the study is extended.
        results: Where the objective keeps results until the storage has them.
    """

    study: optuna.Study
    objective: Objective
    baseline: Mapping[str, Any]
    method: Method
    setup: Setup
    budget: Budget
    lock_file: str | None = None
    results: Results | None = None

    def run(self, watch: Watch = lambda trials: None) -> None:
        """Work until the budget is used up and no other process is at a trial of the study.

        A signal may end it earlier, with the running trial: `studies.stopping.stop_by_signal`.

        Raises:
            StudyStopped: If the script itself is broken.
            KeyboardInterrupt: After the running trial was put back to be tried again.
        """
        study = self.study
        study.sampler = self.method.sampler(self.setup, 0)
        notes = Notes(study)
        claimed: FrozenTrial | None = None
        with put_back_if_stopped(study):
            with alone(self.lock_file):
                self._try_again()
            while not finishing():
                with alone(self.lock_file):
                    trials = recover(study, self.results)
                    if claimed is not None:
                        _refuse_to_waste_time(trials[claimed.number], trials)
                    claimed, trials = self._claim(trials)
                watch(trials)
                notes.write(trials)
                if claimed is not None and self.method.seeded_by_trial:
                    number = number_without_repeats(claimed, trials)
                    study.sampler = self.method.sampler(self.setup, number)
                if claimed is not None:
                    is_suggested = first_number(claimed) != 0  # but for the script as it is
                    evaluate(
                        study, claimed, self.objective, self.results, is_suggested=is_suggested
                    )
                elif any(t.state == TrialState.RUNNING for t in trials):
                    # Another process is at it, or was killed; then the trial will come back to us.
                    time.sleep(POLL_SECONDS)
                else:
                    return

    def _try_again(self) -> None:
        """Queue the script as it is once more, if that failed for a reason that may be mended."""
        trials = self.study.get_trials(deepcopy=False)
        baseline = baseline_trial(trials)
        if baseline is None or baseline.user_attrs.get("status") not in _ADVICE:
            return
        if any(is_ok(t) or not t.state.is_finished() for t in trials):
            return
        attrs = {**repeating(baseline.number), "fixed_params": dict(self.baseline)}
        self.study.add_trial(create_trial(state=TrialState.WAITING, system_attrs=attrs))

    def _claim(self, trials: list[FrozenTrial]) -> tuple[FrozenTrial | None, list[FrozenTrial]]:
        """Return the next trial, now RUNNING and ours; ``None`` if the budget allows no other.

        Returns:
            It, and all trials of the study as they are now.
        """
        study = self.study
        while True:
            waiting = [t for t in trials if t.state == TrialState.WAITING]
            if not waiting:
                if not self.budget.allows(trials, len(trials)):
                    return None, trials
                study.add_trial(create_trial(state=TrialState.WAITING))
            else:
                first = copy.copy(waiting[0])
                if not self.budget.allows(trials, first.number):
                    return None, trials
                if take(study, first, self.baseline if first.number == 0 else None):
                    first.state, first.datetime_start = TrialState.RUNNING, datetime.now()
                    return first, [first if t.number == first.number else t for t in trials]
            trials = study.get_trials(deepcopy=False)


def _refuse_to_waste_time(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> None:
    status = trial.user_attrs.get("status")
    if status in _ADVICE and not any(map(is_ok, trials)):
        reason = str(trial.user_attrs.get("reason", "no reason given"))
        option = option_for(reason) if status == "crash" else ""
        raise StudyStopped(
            f"trial {trial.number} failed ({status}: {reason}) and none has worked yet;"
            f" {option and f'{option}; else '}{_ADVICE[status]}"
        )


@contextmanager
def _heartbeats(study: optuna.Study, claimed: FrozenTrial) -> Iterator[None]:
    """Say now and then that the trial is alive.

    Optuna's own thread ends with the first error, and with a database that is away it would let
    nobody leave.
    """
    storage: Any = study._storage
    if not is_heartbeat_enabled(storage):
        yield
        return
    over = threading.Event()

    def beat() -> None:
        while not over.wait(storage.get_heartbeat_interval()):
            with suppress(Exception):  # the next beat may reach it; the trial's thread raises
                storage.record_heartbeat(claimed._trial_id)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_JOIN_SECONDS)


def evaluate(
    study: optuna.Study,
    claimed: FrozenTrial,
    objective: Objective,
    results: Results | None = None,
    *,
    is_suggested: bool = False,
) -> None:
    """Evaluate a trial that was taken, and tell the study what came of it.

    Args:
        study: Its study.
        claimed: The trial.
        objective: What evaluates it.
        results: See `StudyLoop.results`.
        is_suggested: Whether its parameters, or script, may be why the disk is full, as nobody knows
            yet what they need. They are given up after some tries, as those that kill.

    Raises:
        ArtifactError: From the objective, after its value was told.
        Exception: Whatever else the objective raised that isn't a verdict on the trial, which was
            then put back to be tried again.
        KeyboardInterrupt: The value was told if there was one; else it is for the caller to put the
            trial back, as `put_back_if_stopped` does.
    """
    storage = study._storage
    try:
        with _heartbeats(study, claimed):
            trial = optuna.Trial(study, claimed._trial_id)
            unkept: ArtifactError | None = None
            value: float | None = None
            state = TrialState.FAIL
            try:
                value = objective(trial)
            except optuna.TrialPruned:
                state = TrialState.PRUNED
            except TrialFailed:
                pass
            except ArtifactError as error:
                unkept, value = error, error.value
            if value is None or math.isnan(value):  # NaN: a failure for which nothing stands yet
                study.tell(trial, state=state)
            else:
                study.tell(trial, value)
        if results is not None:
            results.drop(study.study_name, claimed.number)
    except Exception as error:  # whatever it was, the trial must not be left RUNNING
        if _told(study, claimed, results):
            _logger.warning("trial %d has its result in spite of: %s", claimed.number, error)
        elif _put_back(study, claimed, counted=is_suggested and isinstance(error, DiskFull)):
            raise
    except KeyboardInterrupt:  # the trial is put back by the caller: `put_back_if_stopped`
        set_patience(storage, 0.0)
        _told(study, claimed, results)
        raise
    else:
        if unkept is not None:
            raise unkept


def _told(study: optuna.Study, claimed: FrozenTrial, results: Results | None) -> bool:
    """Tell what the trial came to, if its training was done before something went wrong."""
    try:
        return results is not None and bool(tell_kept(study, results, only=claimed.number))
    except Exception:  # the storage is what went wrong: next time
        return False


@contextmanager
def put_back_if_stopped(study: optuna.Study) -> Iterator[None]:
    """Let what this process has claimed be tried again if a signal stops what is done within.

    It may come before it is known that something was claimed, or after that was dealt with.
    """
    try:
        yield
    except KeyboardInterrupt:
        set_patience(study._storage, 0.0)
        with suppress(Exception):  # the storage is what failed: the next process finds them
            for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if trial.system_attrs.get(WORKER) == worker_mark(trial.number):
                    _put_back(study, trial)
        raise


def _put_back(study: optuna.Study, claimed: FrozenTrial, counted: bool = False) -> bool:
    """Let the trial, which was not evaluated, be tried again with the same parameters.

    Args:
        study: Its study.
        claimed: The trial.
        counted: Whether its parameters may be the cause, as of a killed one, which is given up after
            some tries: what a disk can't hold would be the first thing of every later command.

    Returns:
        False if another process has done so already: it took this one for dead (a laptop that
        slept, say), and the error is only that the trial is no longer ours.
    """
    storage = study._storage
    try:
        trial = storage.get_trial(claimed._trial_id)
        if trial.state.is_finished():
            return False
        storage.set_trial_state_values(claimed._trial_id, TrialState.FAIL)
        again = retry if counted else RetryHeartbeatStaleTrialCallback()
        again(study, trial)
    except Exception:  # the storage is what failed: the next process finds the trial, repeats it
        pass
    return True
