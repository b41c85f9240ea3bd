"""The language model that a command names, and its sharing among processes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from studies import random_steps
from studies.errors import Misuse


if TYPE_CHECKING:
    from samplers import Chat


def open_llm(llm: str | None, model: str | None) -> Chat:
    """The language model that ``--llm`` and ``--model`` name, else the one that can be found.

    Raises:
        NoChatFound: If there is none.
        Misuse: If the two don't go together.
    """
    from samplers._llm.connect import default_chat
    from samplers._llm.connect import open_chat

    if llm == random_steps.LLM:
        return random_steps.RandomSteps()
    if llm is None and model is None:
        return default_chat()
    return open_chat(llm_named(llm, model), model=model)


def llm_named(llm: str | None, model: str | None) -> str:
    """What ``--llm`` names, else what the environment does, else ``local``, the embedded model.

    Raises:
        Misuse: If it is the embedded model and ``--model`` names another.
    """
    if llm is None:
        key = os.environ.get("OPENAI_API_KEY")
        llm = os.environ.get("OPENAI_BASE_URL") or ("openai" if key else "local")
    if llm == "local" and model is not None:
        raise Misuse(
            f"--model {model} must be a model of a server that --llm or OPENAI_BASE_URL names;"
            " the embedded one has none to choose from, but --llm takes the path of a .gguf file"
        )
    return llm


def share_embedded_model(llm: str | None, model: str | None, n_busy: int) -> str | None:
    """Let one process serve the model to all, instead of each loading its own: `llm` to use.

    Args:
        llm, model: As in `StudySpec`.
        n_busy: CPUs that train meanwhile.
    """
    from samplers._llm.embedded import embedded_server

    named = llm_named(llm, model)
    if named == "local":
        return embedded_server(n_busy=n_busy)
    if named.endswith(".gguf"):
        return embedded_server(named, n_busy=n_busy)
    return llm
