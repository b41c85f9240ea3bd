"""Storages that outlast an outage of their server.

Two things are done to Optuna's storages, so that a restarted server costs waiting and no more:

- *Connecting is patient.* Whoever needs a connection while the server is away waits for it, with
  longer and longer pauses. How long the server may be away is counted from the first failure and
  not for each call: after ``patience`` seconds, calls fail at once.
- *What was cut off in the middle is done again.* Most calls may safely be made twice. To finish a
  trial is not: it may have been stored and only the answer been lost, so
  :meth:`Patient.set_trial_state_values` looks first.

After an outage all heartbeats are old, those of living workers too: nobody is declared dead until
everybody had the time to reconnect.

:class:`PatientStorage` is for databases; `studies.storage.proxy` has the one for a gRPC proxy.
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

from studies.stopping import is_stop
from studies.storage.attributes import CheckedDatabase


_logger = logging.getLogger(__name__)

PATIENCE = 600.0  # seconds that a server may be away
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between two attempts to connect

_REPEATABLE = (  # calls of any storage that may be made twice
    "set_study_user_attr",
    "set_study_system_attr",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "set_trial_intermediate_value",
    "get_all_studies",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_directions",
    "get_study_user_attrs",
    "get_study_system_attrs",
    "get_trial",
    "get_trial_id_from_study_id_trial_number",
)

_T = TypeVar("_T")
_Function = TypeVar("_Function", bound=Callable[..., Any])
_PatientClass = TypeVar("_PatientClass", bound="type[Patient]")


def repeating(*more: str) -> Callable[[_PatientClass], _PatientClass]:
    """Let a class repeat its calls of these names too if the connection was lost."""

    def decorate(cls: _PatientClass) -> _PatientClass:
        for name in (*_REPEATABLE, *more):
            setattr(cls, name, _again(getattr(cls, name)))
        return cls

    return decorate


def _again(call: _Function) -> _Function:
    @functools.wraps(call)
    def patient(self: Patient, *args: Any, **kwargs: Any) -> Any:
        return self._outlast(lambda: call(self, *args, **kwargs))

    return patient  # type: ignore[return-value]


class Patient(BaseStorage):
    """Base of storages on a server that may be away; must be inherited before the storage itself.

    Args:
        args, kwargs: Those of the storage.
        patience: Seconds that the server may be away; may be changed.
    """

    def __init__(self, *args: Any, patience: float = PATIENCE, **kwargs: Any) -> None:
        self.patience = patience
        self._away_since: float | None = None
        self._outage = threading.Lock()
        super().__init__(*args, **kwargs)

    def _outlast(self, call: Callable[[], _T], look: Callable[[], _T | None] | None = None) -> _T:
        """Make a call until it isn't cut off.

        ``look`` tells what a call did that was cut off; without it, the call may be made twice.
        """
        raise NotImplementedError

    def forget_beats(self) -> None:
        """Forget the heartbeats seen until now, so that no worker is declared dead by them."""
        raise NotImplementedError

    def _wait(self, what: str, pause: float) -> bool:
        """Wait for a server that is away; False if ``patience`` is exceeded."""
        with self._outage:
            now = time.monotonic()
            if self._away_since is None:
                self._away_since = now
                if self.patience > 0:
                    _logger.warning("waiting for %s", what)
            left = self._away_since + self.patience - now
        if left <= 0:
            return False
        time.sleep(min(pause, left))
        return True

    def _is_back(self) -> None:
        with self._outage:
            if self._away_since is not None:
                self._away_since = None
                self.forget_beats()
                if self.patience > 0:
                    _logger.warning("the storage is back")

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Set a trial's state and values; true also if a call did so whose answer was lost."""
        # What comes after this class is never `BaseStorage` alone.
        really = super().set_trial_state_values  # type: ignore[safe-super]

        def look() -> bool | None:
            trial = self.get_trial(trial_id)
            told = list(values) if values is not None else None
            # RUNNING isn't looked at: it may be another worker's. Should it be ours after all,
            # then its heartbeat, written before the claim, brings it back.
            same = trial.state == state and state.is_finished() and trial.values == told
            return True if same else None

        return self._outlast(lambda: really(trial_id, state, values), look)


# Optuna reads and writes through a cache, which calls the private ones. To make a trial it repeats
# itself; the worst is one that waits and nobody asked for.
@repeating(
    "record_heartbeat",
    "_get_trials",
    "_get_best_trial_id",
    # Twice is once: the row's key is the trial and the name, and Optuna ignores the second.
    "_set_trial_param",
)
class PatientStorage(Patient, CheckedDatabase):
    """A database. SQLAlchemy's ``do_connect`` waits for its server.

    Args:
        args, kwargs: Of `Patient` and `optuna.storages.RDBStorage`; with ``pool_pre_ping``, every
            call that begins during an outage waits. Its opening isn't patient: a wrong address is
            to be told at once.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._back_since = -float("inf")
        sqlalchemy.event.listen(self.engine, "do_connect", self._connect)
        sqlalchemy.event.listen(self.engine, "handle_error", _stop)
        logger = self.engine.pool.logger
        assert isinstance(logger, logging.Logger)  # without `echo` it is
        logger.addFilter(_is_no_stop)

    def _connect(self, dialect: Any, record: Any, args: Any, kwargs: Any) -> Any:
        pause = SHORTEST_PAUSE
        while True:
            try:
                connection = dialect.connect(*args, **kwargs)
            except dialect.loaded_dbapi.OperationalError as error:
                if not self._wait(f"the database: {' '.join(str(error).split())}", pause):
                    raise
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._is_back()
                return connection

    def _outlast(self, call: Callable[[], _T], look: Callable[[], _T | None] | None = None) -> _T:
        while True:
            try:
                return call()
            except (StorageInternalError, sqlalchemy.exc.DBAPIError) as error:
                if not _was_cut_off(error):
                    raise
                self.forget_beats()
            if look is not None and (done := look()) is not None:
                return done

    def forget_beats(self) -> None:
        self._back_since = time.monotonic()

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        assert self.heartbeat_interval is not None
        stale = self._outlast(lambda: RDBStorage._get_stale_trial_ids(self, study_id))
        reconnecting = self.heartbeat_interval + 2 * LONGEST_PAUSE
        return [] if time.monotonic() - self._back_since < reconnecting else stale


def _stop(context: sqlalchemy.engine.ExceptionContext) -> BaseException | None:
    """Stop where a signal came in the middle of a call: no error, whatever the driver makes of it."""
    return KeyboardInterrupt() if is_stop(context.original_exception) else None


def _is_no_stop(record: logging.LogRecord) -> bool:
    return not (record.exc_info and is_stop(record.exc_info[1]))


def _was_cut_off(error: BaseException) -> bool:
    """Return whether a connection was lost in the middle of a call; not if none could be made."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, sqlalchemy.exc.DBAPIError):
            return cause.connection_invalidated
        # What follows if the first query of a call was cut off and Optuna tried another one.
        if isinstance(cause, sqlalchemy.exc.PendingRollbackError):
            return True
        cause = cause.__cause__
    return False
