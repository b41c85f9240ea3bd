"""A database behind a gRPC proxy: Optuna's server and client, made to outlast each other.

Thousands of workers would be thousands of connections to the database; the proxy has a few, reads
what has changed once for all, and speaks to workers over HTTP/2. `optuna-autoresearch serve-storage`
starts one.

The client waits for a server that is away, as `studies.storage.patient` does for a database, and
counts heartbeats by `studies.storage.heartbeat`, since the protocol has none. An outage of the
database behind the server is the server's to wait for: its clients only see a slow answer.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
import socket
import threading
from typing import Any
from typing import TYPE_CHECKING
from typing import TypeVar
from urllib.parse import unquote
import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from optuna.storages import get_storage
from optuna.storages import GrpcStorageProxy

from samplers._llm.address import is_loopback
from samplers._llm.peers import is_ours
from studies.storage.attributes import CheckedKept
from studies.storage.heartbeat import AttributeHeartbeat
from studies.storage.kinds import kind_of
from studies.storage.kinds import KINDS
from studies.storage.kinds import StorageError
from studies.storage.patient import LONGEST_PAUSE
from studies.storage.patient import Patient
from studies.storage.patient import repeating
from studies.storage.patient import SHORTEST_PAUSE
from studies.storage.tls import Identity


if TYPE_CHECKING:
    import grpc

_THREADS = 10  # calls that are served at the same time; Optuna's default

_T = TypeVar("_T")


# A study or a trial may be made twice this way: the second study has the first one's name and is
# refused, and a surplus trial waits and nobody asked for it.
@repeating("create_new_study", "create_new_trial", "set_trial_param", "get_all_trials")
class PatientProxy(CheckedKept, AttributeHeartbeat, Patient, GrpcStorageProxy):
    """Client of the proxy, which waits for its server and writes heartbeats.

    Args:
        identity: For a server with TLS; None for one without.
        kwargs: Those of `AttributeHeartbeat`, `Patient` and `optuna.storages.GrpcStorageProxy`.
    """

    def __init__(self, identity: Identity | None = None, **kwargs: Any) -> None:
        self._identity = identity
        super().__init__(**kwargs)

    def _setup(self) -> None:
        if self._identity is None:
            super()._setup()
            return
        # What Optuna's own does, for a channel that it can't be given.
        from optuna.storages._grpc.auto_generated import api_pb2_grpc
        from optuna.storages._grpc.client import GrpcClientCache

        self._channel = self._identity.channel(f"{self._host}:{self._port}")
        self._stub = api_pb2_grpc.StorageServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._cache = GrpcClientCache(self._stub)

    def _outlast(self, call: Callable[[], _T], look: Callable[[], _T | None] | None = None) -> _T:
        """Repeat a call that the server's absence cut off; see :meth:`Patient._outlast`.

        Raises:
            StorageInternalError: If the server is away for too long or answers with an error.
        """
        import grpc

        pause = SHORTEST_PAUSE
        while True:
            try:
                answer = call()
            except grpc.RpcError as error:
                where = f"the storage at grpc://{self._host}:{self._port}"
                what = f"{where}: {error.details() or error.code().name}"
                if error.code() != grpc.StatusCode.UNAVAILABLE or not self._wait(what, pause):
                    raise StorageInternalError(what) from None
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._is_back()
                return answer
            if look is not None and (done := look()) is not None:
                return done


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


def quietly(call: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
    """Call something without Optuna's warning that it is experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return call(*args, **kwargs)


def bracketed(host: str) -> str:
    """Write a host as it stands before a port: an address of IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def _announce(host: str, port: int, identity: Identity | None, say: Callable[[str], None]) -> None:
    import grpc

    target = f"{host}:{port}"
    with identity.channel(target) if identity else grpc.insecure_channel(target) as channel:
        grpc.channel_ready_future(channel).result()
    say(f"grpc://{host}:{port}")


def serve(
    url: str,
    storage: BaseStorage,
    host: str,
    port: int,
    say: Callable[[str], None],
    identity: Identity | None = None,
    everybody: bool = False,
) -> None:
    """Serve a storage until KeyboardInterrupt.

    Args:
        url: Where it is.
        storage: The same, opened by `studies.storage.open.open_storage`.
        host: Address to listen at.
        port: Its port.
        say: Is given the address for clients, once it answers.
        identity: For TLS: clients without the same are refused.
        everybody: Without TLS: whether to serve other users of this machine, too. Who listens on
            other interfaces than loopback serves everybody.

    Raises:
        StorageError: If the port is taken.
    """
    # gRPC shares a port with whoever has it, and each would get some of the calls.
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
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
    address = bracketed(host)
    threading.Thread(target=_announce, args=(address, port, identity, say), daemon=True).start()
    # As Optuna's `run_grpc_proxy_server`, which lets in everybody.
    import grpc
    from optuna.storages._grpc.auto_generated import api_pb2_grpc
    from optuna.storages._grpc.servicer import OptunaStorageProxyService

    own_only = identity is None and not everybody and is_loopback(f"http://{address}")
    server = grpc.server(
        ThreadPoolExecutor(max_workers=threads),
        interceptors=[_own_only(port)] if own_only else [],
    )
    service = OptunaStorageProxyService(served)
    api_pb2_grpc.add_StorageServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    if identity is None:
        server.add_insecure_port(f"{address}:{port}")
    else:
        server.add_secure_port(f"{address}:{port}", identity.of_server())
    server.start()
    server.wait_for_termination()


def _own_only(port: int) -> grpc.ServerInterceptor:
    """Refuse the calls of other users of this machine to a server on loopback."""
    import grpc

    def is_own(peer: str) -> bool:  # ipv4:127.0.0.1:50000, ipv6:[::1]:50000
        _, _, end = unquote(peer).partition(":")
        host, _, client_port = end.rpartition(":")
        host = host.strip("[]")
        return is_ours((host, int(client_port)), (host, port))

    class OwnOnly(grpc.ServerInterceptor):  # type: ignore[misc]
        def intercept_service(self, continuation: Any, details: Any) -> Any:
            handler = continuation(details)
            if handler is None:
                return None

            def answer(request: Any, context: Any) -> Any:
                if not is_own(context.peer()):
                    context.abort(
                        grpc.StatusCode.PERMISSION_DENIED,
                        "it serves its own user only; serve-storage --tls FILE lets in who has the"
                        " file, --insecure everybody",
                    )
                return handler.unary_unary(request, context)

            return grpc.unary_unary_rpc_method_handler(
                answer, handler.request_deserializer, handler.response_serializer
            )

    return OwnOnly()
