"""Finds the trials of killed processes, and queues them again, tells their results or gives up.

While a trial runs, Optuna writes a heartbeat for it; when another
trial of the study starts and finds a heartbeat older than the grace period, it marks that trial
FAIL and queues its parameters again (:class:`RetryKilled`, which keeps CMA-ES's marks on it). That
takes a minute, which is right for another machine behind a slow network and too long for somebody
who killed a run and starts it again. So a trial also says which process runs it (:func:`claim`),
and :func:`reclaim` does the same at once for processes of this machine that no longer exist.
Storages that Optuna gives no heartbeats have ours (`studies.storage.heartbeat`).

:func:`take` writes the first heartbeat before it sets a trial running: there is no moment at which
a worker could die and leave a running trial that nobody finds. It writes which process runs the
trial afterwards: of several that try at the same moment only one may say so, or the winner's trial
would be failed when a loser ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
import copy
from datetime import timedelta
import fcntl
import logging
import time
from typing import Any
from typing import TYPE_CHECKING

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.storages._heartbeat import is_heartbeat_enabled
from optuna.storages._rdb.models import TrialHeartbeatModel
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from objective.failure import store_constraint
from objective.worker import BEGAN
from objective.worker import WORKER
from objective.worker import worker_goes_on
from objective.worker import worker_is_here
from objective.worker import worker_mark
from samplers._trials.internals import interrupted_before
from samplers._trials.internals import interrupted_trials
from studies.printable import printable
from studies.stopping import held
from studies.storage.heartbeat import AttributeHeartbeat
from studies.storage.heartbeat import BEAT
from studies.storage.kinds import StorageError
from studies.storage.patient import Patient
from studies.storage.proxy import quietly


if TYPE_CHECKING:
    from objective.results import Result
    from objective.results import Results


_logger = logging.getLogger(__name__)

MAX_RETRY = 3  # times that the parameters of a killed trial are tried again
_KILLS = "autoresearch:kills"  # system attribute: how often they have killed, or were killed

SILENCE = timedelta(hours=1)  # of a running trial, until it may be taken for abandoned


def take(
    study: optuna.Study, waiting: FrozenTrial, fixed_params: Mapping[str, Any] | None = None
) -> bool:
    """Set a waiting trial running; False if another process was faster.

    ``fixed_params`` are noted on the trial first, as by `optuna.Study.enqueue_trial`. A signal to
    stop leaves no trial running of which nobody knows whose it is.
    """
    storage = study._storage
    trial_id = waiting._trial_id
    try:
        if fixed_params is not None:
            storage.set_trial_system_attr(trial_id, "fixed_params", dict(fixed_params))
        if is_heartbeat_enabled(storage):
            storage.record_heartbeat(trial_id)  # type: ignore[attr-defined]
        with held():
            taken = storage.set_trial_state_values(trial_id, TrialState.RUNNING)
            if taken:
                storage.set_trial_system_attr(trial_id, WORKER, worker_mark(waiting.number))
                if waiting.number == 0:
                    storage.set_trial_system_attr(trial_id, BEGAN, time.time())
    except UpdateFinishedTrialError:
        return False  # It is even done with it.
    return taken


def take_any(study: optuna.Study) -> FrozenTrial | None:
    """Set the first waiting trial running that no other process takes, and return it."""
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    return next((trial for trial in waiting if take(study, trial)), None)


def set_patience(storage: BaseStorage, seconds: float) -> None:
    """Wait from now on for so long for a database that is away; 0 if this process is to end."""
    backend = getattr(storage, "_backend", storage)
    if isinstance(backend, Patient):
        backend.patience = seconds


def abandoned(study: optuna.Study) -> dict[int, str]:
    """Return the running trials that nobody runs any more: number -> how that is known.

    Those of another program, which says nothing of its workers, are told by their age alone: one
    that was made by ``study.ask`` and waits for its ``tell`` looks the same.
    """
    found = {}
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    silent = [trial.number for trial in _silent(study, running)]
    unknown = unclaimed(study)
    for trial in running:
        mark = _mark(trial)
        if mark and worker_is_here(mark) is False:
            found[trial.number] = f"its process {mark[1]} is gone"
        elif trial.number in silent:
            found[trial.number] = "its heartbeat has stopped"
        elif (age := unknown.get(trial.number, timedelta())) > SILENCE:
            found[trial.number] = f"no process has claimed it for {str(age).partition('.')[0]}"
    return found


def unclaimed(study: optuna.Study) -> dict[int, timedelta]:
    """Return the running trials of programs that say nothing of their workers, and their ages."""
    storage: Any = study._storage
    beats = is_heartbeat_enabled(storage)
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return {
        trial.number: age_of(trial)
        for trial in running
        if not _mark(trial) and not (beats and _has_heartbeat(storage, trial))
    }


def age_of(trial: FrozenTrial) -> timedelta:
    """Return for how long a trial has run, also in a night in which the clocks change."""
    if trial.datetime_start is None:
        return timedelta()
    # Never less than nothing: the start may be of a machine whose clock is ahead.
    return timedelta(seconds=max(0.0, time.time() - trial.datetime_start.timestamp()))


def _mark(trial: FrozenTrial) -> Sequence[Any] | None:
    """Return what the process that took a trial left on it; not what is on one that it repeats."""
    mark: Sequence[Any] | None = trial.system_attrs.get(WORKER)
    return mark if mark and mark[-1] == trial.number else None


def _silent(study: optuna.Study, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials whose heartbeat has stopped, but for those of processes that go on here.

    After this machine has slept, all of them have been silent for as long.
    """
    storage: Any = study._storage
    running = [t for t in trials if t.state == TrialState.RUNNING]
    if not running or not is_heartbeat_enabled(storage):
        return []
    stale = set(storage._get_stale_trial_ids(study._study_id))
    silent = [t for t in running if t._trial_id in stale]
    return [t for t in silent if not ((mark := _mark(t)) and worker_goes_on(mark))]


def _has_heartbeat(storage: Any, trial: FrozenTrial) -> bool:
    if isinstance(storage, AttributeHeartbeat):
        return BEAT in trial.system_attrs
    backend = getattr(storage, "_backend", storage)
    with backend.scoped_session() as session:
        return TrialHeartbeatModel.where_trial_id(trial._trial_id, session) is not None


def reclaim(study: optuna.Study, trials: Sequence[FrozenTrial] | None = None) -> list[int]:
    """Fail the running trials whose process on this machine is gone, and queue them again.

    Call it before ``study.optimize``. Trials of other machines are left to the heartbeat. Several
    processes on one SQLite file should take turns: Optuna doesn't keep two of them from failing
    the same trial there, and its parameters would be queued twice.

    Args:
        study: Whose trials.
        trials: All of them, if they have just been read.

    Returns:
        The numbers of the trials.
    """
    numbers = []
    for trial in study.get_trials(deepcopy=False) if trials is None else trials:
        mark = _mark(trial)
        if trial.state == TrialState.RUNNING and mark and worker_is_here(mark) is False:
            numbers += fail(study, trial)
    return numbers


def fail(study: optuna.Study, trial: FrozenTrial) -> list[int]:
    """Fail a running trial and queue it again; return its number, or none if another did."""
    storage = study._storage
    try:
        storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
    except UpdateFinishedTrialError:
        return []
    retry(study, storage.get_trial(trial._trial_id))
    return [trial.number]


class RetryKilled(RetryHeartbeatStaleTrialCallback):
    """Queues a killed trial again, unless its parameters, or script, were tried `MAX_RETRY` times.

    Parameters may be what kills: a model that takes all memory of the machine, say. A trial that
    was killed before it had any has nothing to be given up for. Nor has one that was put back, by
    Ctrl-C, say: that isn't counted. One that is known to have failed needs no other try. What
    another program stored may be parameters that Optuna doesn't take again: those are lost.
    """

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        if is_given_up(trial) or _has_failed(trial):
            return
        trial = copy.deepcopy(trial)  # which Optuna alters
        trial.system_attrs[_KILLS] = _kills(trial)
        try:
            super().__call__(study, trial)
        except (ValueError, TypeError) as error:
            _logger.warning(
                "the parameters of trial %d can't be queued again: %s",
                trial.number,
                printable(str(error))[:200],
            )


def is_given_up(killed: FrozenTrial) -> bool:
    """Return whether the parameters of a killed trial were tried often enough."""
    return _kills(killed) > MAX_RETRY


def _has_failed(killed: FrozenTrial) -> bool:
    return bool(killed.user_attrs.get("status", "ok") != "ok")


def _kills(killed: FrozenTrial) -> int:
    has_any = bool(killed.params) or "source_sha256" in killed.user_attrs
    return int(killed.system_attrs.get(_KILLS, 0)) + has_any


def unqueued(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the interrupted ones of a study's trials that nobody has queued again.

    To fail a killed trial and to queue its parameters again are two steps on any storage, and who
    does it may be killed in between. As long as the trial's own process lives, it is left to that.
    """
    again = interrupted_trials(trials)
    return [
        t
        for t in trials
        if t.state == TrialState.FAIL
        and (mark := _mark(t)) is not None
        and not _has_failed(t)
        and t.number not in again
        and not is_given_up(t)
        and (mark == worker_mark(t.number) or not worker_is_here(mark))
    ]


def requeue(study: optuna.Study, trials: Sequence[FrozenTrial]) -> list[int]:
    """Queue the study's :func:`unqueued` trials again, and return their numbers."""
    again = unqueued(trials)
    for trial in again:
        retry(study, trial)
    return [trial.number for trial in again]


def retry(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a killed trial again by `RetryKilled`."""
    quietly(RetryKilled)(study, trial)


def tell_kept(study: optuna.Study, results: Results, only: int | None = None) -> list[int]:
    """Tell the results that never reached the storage, and drop those that are settled.

    A trial that was given up meanwhile can't take its result any more, but the copy that waits to
    repeat it can. If that already runs, or is done, the training was made twice, and the second
    one counts.

    Call it in turns (see :func:`reclaim`), with no trial of this process unfinished.

    Args:
        study: The study.
        results: The folder of results.
        only: The number of a trial of this process, to tell just that one, while it runs; this
            needs no turn.

    Returns:
        The numbers of the trials that now have their result.
    """
    kept = [r for r in results.of(study.study_name) if only in (None, r.trial)]
    if not kept:
        return []
    told = []
    trials = study.get_trials(deepcopy=False)
    for result in kept:
        if not _is_of(result, trials):
            continue  # of another database whose artifacts are here too
        trial = trials[result.trial]
        if trial.state == TrialState.RUNNING:
            ours = result.worker == worker_mark(result.trial)
            if worker_is_here(result.worker) is not False and not ours:
                continue  # its worker is about to tell it
            told += _tell(study, trial, result)
        elif only is not None:
            continue  # others may be at its copies, in their turn
        elif trial.state == TrialState.FAIL:
            copies = [
                t
                for t in trials
                if trial.number in interrupted_before(t)
                and t.state == TrialState.WAITING
                and t.params == result.params
            ]
            if copies and take(study, copies[-1]):
                told += _tell(study, copies[-1], result)
        results.drop(result.study, result.trial)
    return told


def _is_of(result: Result, trials: list[FrozenTrial]) -> bool:
    if result.trial >= len(trials):
        return False
    trial = trials[result.trial]
    return trial.system_attrs.get(WORKER) == result.worker and trial.params == result.params


def _tell(study: optuna.Study, trial: FrozenTrial, result: Result) -> list[int]:
    try:
        for key, value in result.attributes.items():
            study._storage.set_trial_user_attr(trial._trial_id, key, value)
        store_constraint(study._storage, trial._trial_id, result.constraint)
        if result.value is None:
            study.tell(trial.number, state=TrialState.FAIL)
        else:
            study.tell(trial.number, result.value)
    except UnicodeEncodeError:  # a ValueError, too
        raise
    except (UpdateFinishedTrialError, ValueError):  # another process has finished it
        return []
    return [trial.number]


@contextmanager
def alone(lock_file: str | None) -> Iterator[None]:
    """Keep other processes from claiming trials meanwhile; see `StudyLoop.lock_file`."""
    if lock_file is None:
        yield
        return
    # The system lifts it when a process ends, however that ends; also over NFS.
    with open(lock_file, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise StorageError(
                f"{lock_file} must be on a file system that can lock files, but: {error.strerror};"
                " choose other --artifacts or another --storage"
            ) from None
        yield


def recover(study: optuna.Study, results: Results | None = None) -> list[FrozenTrial]:
    """Queue killed trials again: at once on this machine, by its heartbeat elsewhere.

    What had been measured by then isn't repeated, but told.

    Returns:
        The study's trials as they are now. Reading them is what a trial costs a database most, so
        that it is done once if there was nothing to do.
    """
    trials = study.get_trials(deepcopy=False)
    changed = requeue(study, trials)
    if results is not None:
        changed += tell_kept(study, results)
    changed += reclaim(study, trials)
    if silent := _silent(study, trials):
        for trial in silent:
            changed += fail(study, trial)
        if results is not None:  # while nobody has taken the copies that wait
            tell_kept(study, results)
    return study.get_trials(deepcopy=False) if changed else trials
