"""A database behind a gRPC proxy: Optuna's server and client, made to outlast each other.

Thousands of workers would be thousands of connections to the database; the proxy has a few, reads
what has changed once for all, and speaks to workers over HTTP/2. `python -m studies serve-storage`
starts one.

The client waits for a server that is away, as `objective.patient` does for a database, and counts
heartbeats by `objective.heartbeat`, since the protocol has none. An outage of the database behind
the server is the server's to wait for: its clients only see a slow answer.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
import logging
import socket
import threading
import time
from typing import Any
from typing import TypeVar
import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from optuna.storages import get_storage
from optuna.storages import GrpcStorageProxy
from optuna.storages import run_grpc_proxy_server
from optuna.trial import TrialState

from objective.heartbeat import AttributeHeartbeat
from objective.patient import again
from objective.patient import LONGEST_PAUSE
from objective.patient import PATIENCE
from objective.patient import was_finished
from objective.storage_kinds import kind_of
from objective.storage_kinds import KINDS
from objective.storage_kinds import StorageError


_logger = logging.getLogger(__name__)

DEFAULT_PORT = 13000  # Optuna's
_THREADS = 10  # calls that are served at the same time; Optuna's default

_T = TypeVar("_T")


class PatientProxy(AttributeHeartbeat, GrpcStorageProxy):
    """The client; see the module.

    Args:
        host, port: Of the server.
        patience: Seconds that it may be away; may be changed.
        kwargs: Of `AttributeHeartbeat`.
    """

    def __init__(self, *, host: str, port: int, patience: float = PATIENCE, **kwargs: Any) -> None:
        self.patience = patience
        self._away_since: float | None = None
        self._outage = threading.Lock()
        super().__init__(host=host, port=port, **kwargs)

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        del state["_outage"]
        return state

    def __setstate__(self, state: dict[Any, Any]) -> None:
        self._outage = threading.Lock()
        super().__setstate__(state)

    def hurry(self) -> None:
        """Wait no longer, from now on."""
        self.patience = 0.0

    def _outlast(self, call: Callable[[], _T], look: Callable[[], _T | None] | None = None) -> _T:
        """Make a call until the server has answered it.

        ``look`` tells what a call did whose answer was lost; without it, the call may be made
        twice.

        Raises:
            StorageInternalError: What the server or its absence leads to, as a database would.
        """
        import grpc

        pause = 0.1
        cut_off = False
        while True:
            try:
                if cut_off and look is not None and (done := look()) is not None:
                    return done
                answer = call()
            except grpc.RpcError as error:
                where = f"the storage at grpc://{self._host}:{self._port}"
                what = f"{where}: {error.details() or error.code().name}"
                if error.code() != grpc.StatusCode.UNAVAILABLE or not self._may_wait(what):
                    raise StorageInternalError(what) from None
                cut_off = True
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._is_back()
                return answer

    def _may_wait(self, what: str) -> bool:
        with self._outage:
            now = time.monotonic()
            if self._away_since is None:
                self._away_since = now
                if self.patience > 0:
                    _logger.warning("waiting for %s", what)
            return now < self._away_since + self.patience

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
        """As Optuna's; true also if it was done by a call whose answer was lost."""
        return self._outlast(
            lambda: GrpcStorageProxy.set_trial_state_values(self, trial_id, state, values),
            lambda: was_finished(self, trial_id, state, values),
        )

    # A study or a trial may be made twice this way: the second study has the first one's name and
    # is refused, and a surplus trial waits and nobody asked for it.
    create_new_study = again(GrpcStorageProxy.create_new_study)
    create_new_trial = again(GrpcStorageProxy.create_new_trial)
    set_study_user_attr = again(GrpcStorageProxy.set_study_user_attr)
    set_study_system_attr = again(GrpcStorageProxy.set_study_system_attr)
    set_trial_param = again(GrpcStorageProxy.set_trial_param)
    set_trial_user_attr = again(GrpcStorageProxy.set_trial_user_attr)
    set_trial_system_attr = again(GrpcStorageProxy.set_trial_system_attr)
    set_trial_intermediate_value = again(GrpcStorageProxy.set_trial_intermediate_value)
    get_all_studies = again(GrpcStorageProxy.get_all_studies)
    get_study_id_from_name = again(GrpcStorageProxy.get_study_id_from_name)
    get_study_name_from_id = again(GrpcStorageProxy.get_study_name_from_id)
    get_study_directions = again(GrpcStorageProxy.get_study_directions)
    get_study_user_attrs = again(GrpcStorageProxy.get_study_user_attrs)
    get_study_system_attrs = again(GrpcStorageProxy.get_study_system_attrs)
    get_trial = again(GrpcStorageProxy.get_trial)
    get_all_trials = again(GrpcStorageProxy.get_all_trials)
    get_trial_id_from_study_id_trial_number = again(
        GrpcStorageProxy.get_trial_id_from_study_id_trial_number
    )


def check_grpc() -> None:
    """Raise StorageError if the library isn't installed."""
    try:
        import google.protobuf  # noqa: F401
        import grpc  # noqa: F401
    except ImportError as error:
        raise StorageError(
            f"A gRPC proxy needs {error.name}, which isn't installed: pip install grpcio protobuf."
        ) from None


def check_served(url: str) -> None:
    """Raise StorageError if a storage can't be put behind the proxy."""
    kind = kind_of(url)
    why = {
        "memory": "would be lost with the server",
        "journal": "isn't supported by Optuna's server",  # optuna#6084
        "grpc": "is served already",
    }
    for name, reason in why.items():
        if kind is KINDS[name]:
            raise StorageError(f"A storage to serve must be a database, but {kind.name} {reason}.")


def _announce(host: str, port: int, say: Callable[[str], None]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        client = GrpcStorageProxy(host=host, port=port)
    client.wait_server_ready()
    client.close()
    say(f"grpc://{host}:{port}")


def serve(
    url: str, storage: BaseStorage, host: str, port: int, say: Callable[[str], None]
) -> None:
    """Serve a storage until KeyboardInterrupt.

    Args:
        url: Where it is.
        storage: What `objective.open_storage` made of the URL.
        host: Address to listen at.
        port: Its port.
        say: Is given the address for clients, once it answers.

    Raises:
        StorageError: If the port is taken.
    """
    v6 = ":" in host
    # gRPC shares a port with whoever has it, and each would get some of the calls.
    try:
        with socket.socket(socket.AF_INET6 if v6 else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise StorageError(
            f"{host}:{port} must be free to listen at, but: {error.strerror}."
        ) from None
    # Two processes that claim a trial in SQLite may both win (see `studies.loop`), unless their
    # calls take turns.
    threads = 1 if kind_of(url) is KINDS["sqlite"] else _THREADS
    served = get_storage(storage)
    # Its cache refuses parameters of trials that it has neither made nor read, such as those that
    # were running when another server was killed.
    for study in served.get_all_studies():
        served.get_all_trials(study._study_id, deepcopy=False)
    address = f"[{host}]" if v6 else host
    threading.Thread(target=_announce, args=(address, port, say), daemon=True).start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        run_grpc_proxy_server(
            served,
            host=address,
            port=port,
            thread_pool=ThreadPoolExecutor(max_workers=threads),
        )
