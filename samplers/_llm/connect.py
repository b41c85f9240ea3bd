"""The choice of a language model if none was named.

The embedded model belongs to the project ``optuna-autoresearch``. A published copy of this module
uses it where the project is installed.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
import os
from typing import TYPE_CHECKING

import optuna

from .chat import ChatUnavailable
from .chat import NoChatFound
from .client import OPENAI_KEY
from .openai_chat import OPENAI_URL
from .openai_chat import OpenAIChat


if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .chat import Chat

_logger = optuna.logging.get_logger(f"optuna.{__name__}")


def default_chat(make: Callable[..., OpenAIChat] = OpenAIChat) -> OpenAIChat:
    """Connect to the model to ask if none was named.

    It is the server that ``OPENAI_BASE_URL``, ``OPENAI_API_KEY`` and ``OPENAI_MODEL`` tell of if
    one of the first two is set, else the embedded model if it is installed.

    Args:
        make: Makes the connection, with ``OpenAIChat``'s arguments.

    Raises:
        NoChatFound: If there is neither.
    """
    if os.environ.get("OPENAI_BASE_URL") or os.environ.get(OPENAI_KEY):
        return make(
            os.environ.get("OPENAI_MODEL") or None,
            base_url=os.environ.get("OPENAI_BASE_URL") or OPENAI_URL,
        )
    try:
        return open_embedded(make=make)
    except NoChatFound as error:
        raise NoChatFound(
            "There is no language model to ask. Give one as chat=, or set OPENAI_BASE_URL, "
            f"OPENAI_API_KEY and OPENAI_MODEL. {error}"
        ) from None


def chat_to_ask(chat: Chat | None) -> Chat:
    """Return the model that a sampler asks, if it is given one or none.

    An ``OpenAIChat`` is asked for one word. Only a server that is away may be there in time.

    Raises:
        NoChatFound: If there is none.
        ChatError: If the server refuses: the key, the model, any request.
    """
    if chat is None:
        chat = default_chat()
    if isinstance(chat, OpenAIChat):
        try:
            chat.check(patient=False)
        except ChatUnavailable as error:
            _logger.warning(f"The language model can't be asked yet. {error}")
    return chat


def open_embedded(
    model: Path | None = None, *, make: Callable[..., OpenAIChat] = OpenAIChat
) -> OpenAIChat:
    """Connect to a model of this machine, whose server starts with the first request.

    Args:
        model: A GGUF file; by default the embedded model.
        make: Makes the connection, see ``default_chat``.

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
    return make(path.stem, base_url=partial(embedded.embedded_server, path))
