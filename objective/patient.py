"""A database storage that outlasts an outage of its server.

Two things are done to Optuna's storage, so that a restarted server costs waiting and nothing else:

- *Connecting is patient.* Whoever needs a connection while the server is away waits for it, with
  longer and longer pauses (SQLAlchemy's ``do_connect``). Together with ``pool_pre_ping`` this
  covers every call that begins during an outage. How long the server may be away is counted from
  the first failure and not for each call: after ``patience`` seconds, calls fail at once.
- *What was cut off in the middle is done again.* Most calls may safely be made twice. To finish a
  trial is not: the commit may have reached the server and only its answer been lost, so
  :meth:`PatientStorage.set_trial_state_values` looks first. (Optuna itself repeats the making of a
  trial; the worst is one that waits and nobody asked for.)

After an outage all heartbeats are old, those of living workers too: nobody is declared dead until
everybody had the time to reconnect.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import functools
import logging
import threading
import time
from typing import Any
from typing import TypeVar

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from optuna.storages import RDBStorage
from optuna.trial import TrialState
import sqlalchemy.event
import sqlalchemy.exc


_logger = logging.getLogger(__name__)

PATIENCE = 600.0  # seconds that a server may be away
LONGEST_PAUSE = 5.0  # seconds between two attempts to connect

_T = TypeVar("_T")
_Function = TypeVar("_Function", bound=Callable[..., Any])


def again(call: _Function) -> _Function:
    """Repeat a call of the storage whose connection was lost; for what may be done twice."""

    @functools.wraps(call)
    def patient(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._outlast(lambda: call(self, *args, **kwargs))

    return patient  # type: ignore[return-value]


def was_finished(
    storage: BaseStorage, trial_id: int, state: TrialState, values: Sequence[float] | None
) -> bool | None:
    """True if a trial was ended just so; ``None`` if it wasn't, or nobody can know."""
    trial = storage.get_trial(trial_id)
    told = list(values) if values is not None else None
    # RUNNING isn't looked at: it may be another worker's. Should it be ours after all, then its
    # heartbeat, written before the claim, brings it back.
    same = trial.state == state and state.is_finished() and trial.values == told
    return True if same else None


class PatientStorage(RDBStorage):
    """See the module.

    Args:
        args, kwargs: Of `optuna.storages.RDBStorage`. Its opening isn't patient: a wrong address
            is to be told at once.
        patience: Seconds that the server may be away.
    """

    def __init__(self, *args: Any, patience: float = PATIENCE, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._patience = patience
        self._away_since: float | None = None
        self._back_since = -float("inf")
        self._outage = threading.Lock()
        sqlalchemy.event.listen(self.engine, "do_connect", self._connect)

    def _connect(self, dialect: Any, record: Any, args: Any, kwargs: Any) -> Any:
        pause = 0.1
        while True:
            try:
                connection = dialect.connect(*args, **kwargs)
            except dialect.loaded_dbapi.OperationalError as error:
                with self._outage:
                    now = time.monotonic()
                    if self._away_since is None:
                        self._away_since = now
                        if self._patience > 0:
                            line = " ".join(str(error).split())
                            _logger.warning("waiting for the database: %s", line)
                    left = self._away_since + self._patience - now
                if left <= 0:
                    raise
                time.sleep(min(pause, left))
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                with self._outage:
                    if self._away_since is not None:
                        self._away_since, self._back_since = None, time.monotonic()
                        if self._patience > 0:
                            _logger.warning("the database is back")
                return connection

    def hurry(self) -> None:
        """Wait no longer, from now on."""
        self._patience = 0.0

    def _outlast(self, call: Callable[[], _T], look: Callable[[], _T | None] | None = None) -> _T:
        """Make a call until it isn't cut off; ``look`` tells what a call that was cut off did."""
        while True:
            try:
                return call()
            except (StorageInternalError, sqlalchemy.exc.DBAPIError) as error:
                if not _was_cut_off(error):
                    raise
                with self._outage:
                    self._back_since = time.monotonic()
            if look is not None and (done := look()) is not None:
                return done

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """As Optuna's; true also if it was done by a call whose answer was lost."""

        def call() -> bool:
            return RDBStorage.set_trial_state_values(self, trial_id, state, values)

        return self._outlast(call, lambda: was_finished(self, trial_id, state, values))

    def _set_trial_param(self, trial_id: int, param_name: str, *args: Any, **kwargs: Any) -> None:
        # Twice is once: the row's key is the trial and the name, and Optuna ignores the second.
        self._outlast(
            lambda: RDBStorage._set_trial_param(self, trial_id, param_name, *args, **kwargs)
        )

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        assert self.heartbeat_interval is not None
        stale = self._outlast(lambda: RDBStorage._get_stale_trial_ids(self, study_id))
        reconnecting = self.heartbeat_interval + 2 * LONGEST_PAUSE
        return [] if time.monotonic() - self._back_since < reconnecting else stale

    set_study_user_attr = again(RDBStorage.set_study_user_attr)
    set_study_system_attr = again(RDBStorage.set_study_system_attr)
    set_trial_user_attr = again(RDBStorage.set_trial_user_attr)
    set_trial_system_attr = again(RDBStorage.set_trial_system_attr)
    set_trial_intermediate_value = again(RDBStorage.set_trial_intermediate_value)
    record_heartbeat = again(RDBStorage.record_heartbeat)
    get_all_studies = again(RDBStorage.get_all_studies)
    get_study_id_from_name = again(RDBStorage.get_study_id_from_name)
    get_study_name_from_id = again(RDBStorage.get_study_name_from_id)
    get_study_directions = again(RDBStorage.get_study_directions)
    get_study_user_attrs = again(RDBStorage.get_study_user_attrs)
    get_study_system_attrs = again(RDBStorage.get_study_system_attrs)
    get_trial = again(RDBStorage.get_trial)
    get_trial_id_from_study_id_trial_number = again(
        RDBStorage.get_trial_id_from_study_id_trial_number
    )
    _get_trials = again(RDBStorage._get_trials)
    _get_best_trial_id = again(RDBStorage._get_best_trial_id)


def _was_cut_off(error: BaseException) -> bool:
    """Whether a connection was lost in the middle of a call (and not: couldn't be made)."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, sqlalchemy.exc.DBAPIError):
            return cause.connection_invalidated
        # What follows if the first query of a call was cut off and Optuna tried another one.
        if isinstance(cause, sqlalchemy.exc.PendingRollbackError):
            return True
        cause = cause.__cause__
    return False
