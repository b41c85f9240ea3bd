"""The language model that a command names, its caps, and its sharing among processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
import os
from typing import TYPE_CHECKING

from studies import random_steps
from studies.errors import Misuse
from studies.facts import llm_total


if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from samplers import Chat
    from studies.loop import Watch
    from studies.spec import Model


def open_llm(model: Model) -> Chat:
    """Open the language model that ``--llm`` and ``--model`` name, else the one that is found.

    Raises:
        NoChatFound: If there is none.
        Misuse: If the two don't go together.
    """
    from samplers import CappedChat
    from samplers import Prices
    from samplers._llm.connect import default_chat
    from samplers._llm.presets import open_chat

    if model.llm == random_steps.LLM:
        return random_steps.RandomSteps()
    priced = model.price_in is not None or model.price_out is not None
    make = partial(
        CappedChat,
        prices=Prices(model.price_in or 0.0, model.price_out or 0.0) if priced else None,
        max_total_tokens=model.max_tokens,
        max_cost=model.max_cost,
        extra=model.extra(),
    )
    if model.llm is None and model.name is None:
        return default_chat(make)
    return open_chat(llm_named(model), model=model.name, make=make)


def checked_llm(model: Model, *, patient: bool = True) -> Chat:
    """Open the language model, and ask for one word: before anything is trained for nothing.

    Args:
        model: As a command names it.
        patient: Whether to wait for a server that is away.

    Raises:
        NoChatFound, Misuse: As ``open_llm``.
        ChatError: If it doesn't answer.
    """
    from samplers import OpenAIChat

    chat = open_llm(model)
    if isinstance(chat, OpenAIChat):
        chat.check(patient=patient)
    return chat


def within_caps(chat: Chat | None, watch: Watch) -> Watch:
    """Extend a watch to charge a model's caps with the requests of all processes of a study.

    Only requests of turns that others are at just now are not counted yet.
    """
    from samplers import CappedChat

    if not isinstance(chat, CappedChat):
        return watch

    def look(trials: Sequence[FrozenTrial]) -> None:
        tokens = (
            int(llm_total(trials, f"llm_{kind}_tokens")) for kind in ("prompt", "completion")
        )
        chat.charge(*tokens)
        watch(trials)

    return look


def llm_named(model: Model) -> str:
    """Return the name by ``--llm``, else by the environment, else ``local``, the embedded model.

    Raises:
        Misuse: If it is the embedded model and ``--model`` names another.
    """
    llm = model.llm
    if llm is None:
        key = os.environ.get("OPENAI_API_KEY")
        llm = os.environ.get("OPENAI_BASE_URL") or ("openai" if key else "local")
    if llm == "local" and model.name is not None:
        raise Misuse(
            f"--model {model.name} must be a model of a server that --llm or OPENAI_BASE_URL names;"
            " the embedded one has none to choose from, but --llm takes the path of a .gguf file"
        )
    return llm


def share_embedded_model(model: Model, n_busy: int) -> Model:
    """Serve an embedded model once for all processes, and return the model that they should ask.

    Args:
        model: As a command names it.
        n_busy: CPUs that train meanwhile.
    """
    from samplers._llm.embedded import embedded_server

    named = llm_named(model)
    if named != "local" and not named.endswith(".gguf"):
        return model
    path = None if named == "local" else named
    return replace(model, llm=embedded_server(path, n_busy=n_busy))
