"""Heartbeats for storages that Optuna gives none: journals and the gRPC proxy.

A running trial carries an attribute that its worker changes now and then. Who looks for dead
workers remembers when it first saw the present value: unchanged for longer than the grace period,
the trial is stale. So no two machines have to agree on the time, and a worker is never declared
dead at first sight, unless its last beat is hours old. The price is that a death on another
machine is noticed at the second look, a training later at worst, or after the grace period by
whoever waits.

`studies.storage.recovery` does the rest, as for Optuna's own heartbeats.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
import time
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.trial import FrozenTrial
from optuna.trial import TrialState


# System attribute of a trial: seconds since 1970, by its worker's clock.
BEAT = "autoresearch:beat"
_OLD_SECONDS = 3600.0  # of a beat that nobody needs to watch, and more than clocks differ

StaleCallback = Callable[["optuna.Study", FrozenTrial], None]


class AttributeHeartbeat(BaseStorage, BaseHeartbeat):
    """Heartbeats as described in the module; a subclass inherits this before the storage.

    Args:
        args, kwargs: Of the storage.
        heartbeat_interval: Seconds between two beats.
        grace_period: Seconds without one after which a trial is stale.
        heartbeat_stale_trial_callback: Is called with a stale trial, once it is marked FAIL.
    """

    def __init__(
        self,
        *args: Any,
        heartbeat_interval: int,
        grace_period: float,
        heartbeat_stale_trial_callback: StaleCallback | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._heartbeat_interval = heartbeat_interval
        self._grace_period = grace_period
        self._callback = heartbeat_stale_trial_callback
        self._seen: dict[int, tuple[float, float]] = {}  # trial id -> beat, since when

    def record_heartbeat(self, trial_id: int) -> None:
        with suppress(UpdateFinishedTrialError):  # it ended meanwhile
            self.set_trial_system_attr(trial_id, BEAT, time.time())

    def forget_beats(self) -> None:
        """Begin to watch anew: while the storage was away, nobody could write a heartbeat."""
        self._seen = {}

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        now, clock = time.monotonic(), time.time()
        seen = {}
        stale = []
        for trial in self.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,)):
            beat = trial.system_attrs.get(BEAT)
            if beat is None:  # another program's
                continue
            last, since = self._seen.get(trial._trial_id, (beat, now))
            seen[trial._trial_id] = beat, since if beat == last else now
            if now - seen[trial._trial_id][1] > self._grace_period or clock - beat > _OLD_SECONDS:
                stale.append(trial._trial_id)
        self._seen = seen
        return stale

    def get_heartbeat_interval(self) -> int | None:
        return self._heartbeat_interval

    def get_heartbeat_stale_trial_callback(self) -> StaleCallback | None:
        return self._callback
