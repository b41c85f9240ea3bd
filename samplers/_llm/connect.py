"""Which language model is asked, if none was named.

The embedded model belongs to the project ``optuna-autoresearch``. A published copy of this module
uses it where the project is installed.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
import os
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING

from .chat import NoChatFound
from .openai_chat import OpenAIChat
from .openai_chat import PRESETS


if TYPE_CHECKING:
    from .chat import Chat
    from .openai_chat import Prices


def default_chat(**caps: Any) -> Chat:
    """The model to ask if none was named.

    The server that ``OPENAI_BASE_URL``, ``OPENAI_API_KEY`` and ``OPENAI_MODEL`` tell of if one of
    the first two is set, else the embedded model if it is installed.

    Args:
        **caps: ``prices``, ``max_total_tokens`` and ``max_cost``, see ``OpenAIChat``.

    Raises:
        NoChatFound: If there is neither.
    """
    if os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_KEY"):
        return OpenAIChat(
            os.environ.get("OPENAI_MODEL") or None,
            base_url=os.environ.get("OPENAI_BASE_URL") or PRESETS["openai"].base_url,
            **caps,
        )
    try:
        return open_embedded(**caps)
    except NoChatFound as error:
        raise NoChatFound(
            "There is no language model to ask. Give one as chat=, or set OPENAI_BASE_URL, "
            f"OPENAI_API_KEY and OPENAI_MODEL. {error}"
        ) from None


def open_chat(
    spec: str,
    *,
    model: str | None = None,
    api_key: str | None = None,
    prices: Prices | None = None,
    max_total_tokens: int | None = None,
    max_cost: float | None = None,
) -> OpenAIChat:
    """Open a model by a short name.

    Args:
        spec: ``"local"`` (the embedded model), ``openai``, ``anthropic``, ``gemini``, ``vllm``,
            ``ollama``, a base URL, or the path of a GGUF file.
        model: Name of the model; by default the only one that the server lists.
        api_key: By default from the environment: the preset's variable, else ``OPENAI_API_KEY``.
        prices: See ``OpenAIChat``, as are ``max_total_tokens`` and ``max_cost``.

    Raises:
        NoChatFound: If the spec is none of these, or the embedded model is not installed.
    """
    caps: dict[str, Any] = {
        "prices": prices,
        "max_total_tokens": max_total_tokens,
        "max_cost": max_cost,
    }
    if spec == "local":
        return open_embedded(**caps)
    if spec in PRESETS:
        preset = PRESETS[spec]
        return OpenAIChat(
            model,
            base_url=preset.base_url,
            api_key=api_key,
            key_variable=preset.key_variable,
            **caps,
        )
    if spec.startswith(("http://", "https://")):
        return OpenAIChat(model, base_url=spec, api_key=api_key, **caps)
    if spec.endswith(".gguf"):
        return open_embedded(Path(spec), **caps)
    raise NoChatFound(
        f"A language model must be local, {', '.join(PRESETS)}, a base URL that begins with "
        f"http:// or https://, or the path of a .gguf file, but got {spec!r}."
    )


def open_embedded(model: Path | None = None, **caps: Any) -> OpenAIChat:
    """A chat with a model of this machine, whose server starts with the first request.

    Args:
        model: A GGUF file; by default the embedded model.
        **caps: See ``OpenAIChat``.

    Raises:
        NoChatFound: If there is no such file, or no engine for it.
    """
    try:
        # By its name in the project, which publishing leaves alone: no package carries a server.
        embedded = import_module("samplers._llm.embedded")
    except ImportError:
        raise NoChatFound(
            "The embedded model comes with the project optuna-autoresearch, which is not installed."
        ) from None
    try:
        path = embedded.model_path(model)
    except ValueError as error:
        raise NoChatFound(str(error)) from None
    return OpenAIChat(path.stem, base_url=partial(embedded.embedded_server, path), **caps)
