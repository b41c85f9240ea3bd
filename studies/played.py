"""Plays a study to find out what it would ask of a language model, without training or asking.

The study's own loop runs on a storage in memory. Trainings are replaced by placeholder values and
the model by one that answers every request as its schema asks, so that turns, requests and prompts
are those of the real study; only the numbers in them are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import json
import random
from typing import Any
from typing import TYPE_CHECKING

import optuna

from objective import Testbed
from objective.suggesting import suggest
from samplers import Completion
from samplers import OpenAIChat
from samplers import ScriptedChat
from samplers._llm.record import LLM_ERROR
from samplers._llm.record import source_of
from samplers._llm.scripted import Request
from studies.errors import Misuse
from studies.loop import StudyLoop
from studies.spec import load_testbed
from studies.study import setup


if TYPE_CHECKING:
    from objective.surrogate.surrogate import Surrogate
    from samplers import Chat
    from studies.spec import Spec

# A long study is not played to its end: later turns cost what the last of these did.
PLAYED_TRIALS = 60


class PlayedChat(ScriptedChat):
    """Answers any request with a valid reply to its schema.

    Args:
        real: The model that counts tokens, and whose context it has.

    Attributes:
        tokens: Prompt and completion tokens of each request.
    """

    def __init__(self, real: Chat, **context_tokens: None) -> None:
        context = {"context_tokens": real.context_tokens, **context_tokens}
        super().__init__(self._play, **context, model=real.model)
        self._real = real
        self._random = random.Random(0)
        self.tokens: list[tuple[int, int]] = []

    def count_tokens(self, text: str) -> int:
        return self._real.count_tokens(text)

    def _play(self, request: Request) -> Completion:
        reply = json.dumps(self._answer(request.schema)) if request.schema else "{}"
        prompt = sum(self.count_tokens(message["content"]) for message in request.messages)
        completion = self.count_tokens(reply)
        self.tokens.append((prompt, completion))
        return Completion(reply, prompt_tokens=prompt, completion_tokens=completion)

    def _answer(self, schema: Mapping[str, Any]) -> Any:
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._random.choice(schema["enum"])
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                return self._answer(schema[keyword][0])
        kind = schema.get("type")
        low = schema.get("minimum", 0)
        high = schema.get("maximum", low + 1)
        if kind == "object":
            return {name: self._answer(s) for name, s in schema.get("properties", {}).items()}
        if kind == "array":
            # A row has a schema for each column, a list one for all of its items.
            items = schema.get("prefixItems") or [schema["items"]] * schema.get("minItems", 1)
            return [self._answer(item) for item in items]
        if kind == "integer":
            return self._random.randint(int(low), int(high))
        if kind == "number":
            return self._random.uniform(low, high)
        return False if kind == "boolean" else "no reason: this is a dry run"


@dataclass(frozen=True)
class Played:
    """What was found by playing a study.

    Attributes:
        per_trial: Requests of each trial that was played.
        planned: Trials of the whole study; None if the budget is of time, and nobody knows how long
            a training takes.
        no_room: Why no prompt could be made; empty if they could.
    """

    per_trial: list[int]
    planned: int | None
    no_room: str


class _Enough(Exception):
    """Ends the study's loop once enough trials were played."""


def play(
    spec: Spec, testbed: Testbed | Surrogate, chat: PlayedChat, *, first_only: bool = False
) -> Played:
    """Play a study of a method with a sampler.

    Args:
        spec: The study.
        testbed: Its testbed.
        chat: Stands for its model.
        first_only: Whether to end with the first request, or when none can be made.
    """
    per_trial: list[int] = []
    no_room = ""

    def objective(trial: optuna.Trial) -> float:
        nonlocal no_room
        if len(per_trial) == PLAYED_TRIALS:
            raise _Enough
        before = len(chat.requests)
        for name, distribution in testbed.space.items():
            suggest(trial, name, distribution)
        per_trial.append(len(chat.requests) - before)
        # Every reply is of use, so that nothing else can be the reason.
        stored = study.get_trials(deepcopy=False)[trial.number]
        if source_of(stored) == LLM_ERROR:
            no_room = no_room or str(stored.user_attrs["llm_reason"])
        if first_only and (no_room or chat.requests):
            raise _Enough
        value = 2.0 + random.Random(trial.number).random()
        for key, attr in {
            "status": "ok",
            testbed.metric.name: value,
            "training_seconds": spec.budget.train_seconds or 0.0,
        }.items():
            trial.set_user_attr(key, attr)
        return value

    study = optuna.create_study(direction=testbed.metric.direction)
    loop = StudyLoop(
        study,
        objective,
        testbed.baseline,
        spec.row,
        setup(spec, testbed, chat),
        spec.budget,
    )
    try:
        loop.run()
    except _Enough:
        pass
    budget = spec.budget
    ends = [len(per_trial)] if len(per_trial) < PLAYED_TRIALS else []
    if budget.trials is not None:
        ends.append(budget.trials)
    if budget.seconds is not None and budget.train_seconds:
        ends.append(int(budget.seconds / budget.train_seconds))
    return Played(per_trial, min(ends, default=None), no_room)


def check_first_prompt(spec: Spec, real: Chat) -> str:
    """Make the first prompt before anything is trained, and say how long it is in a line.

    Returns:
        The line; ``""`` for the code agent, whose first prompt shows what was measured, and for the
        embedded model, which is started when it is needed, and whose prompts are short.

    Raises:
        Misuse: If the model's context is too small for it.
    """
    if spec.row.edits_code or not isinstance(real, OpenAIChat) or real.starts_server:
        return ""
    testbed = load_testbed(spec)
    chat = PlayedChat(real)
    no_room = play(spec, testbed, chat, first_only=True).no_room
    context = real.context_tokens
    if no_room:
        endless = PlayedChat(real, context_tokens=None)
        if context is not None and not play(spec, testbed, endless, first_only=True).no_room:
            raise Misuse(
                f"the context of {real.model} must hold the first prompt and its reply, but it is"
                f" of {context:,} tokens, and the prompt takes {endless.tokens[0][0]:,}; choose a"
                " model or a server with a longer one"
            )
        return f"the language model can't be asked (--max-prompt-tokens): {no_room}"
    if not chat.requests:
        return ""
    held = "" if context is None else f" of a context of {context:,}"
    counted = how_counted(counts_tokens(real))
    return f"first prompt: {chat.tokens[0][0]:,} tokens ({counted}){held}"


def counts_tokens(chat: Chat) -> bool:
    """Whether the model's server counts tokens."""
    return isinstance(chat, OpenAIChat) and chat.counts_tokens


def how_counted(by_server: bool) -> str:
    """Say how a model's tokens are counted."""
    if by_server:
        return "counted by the server"
    return "estimated: rather too many, for the server doesn't count"
