"""Plays a study to find out what it would ask of a language model, without training or asking.

The study's own loop runs on a storage in memory. Trainings are replaced by placeholder values and
the model by one that answers every request as its schema asks, so that turns, requests and prompts
are those of the real study; only the numbers in them are not.
"""

from __future__ import annotations

from collections.abc import Mapping
import json
import random
from typing import Any
from typing import TYPE_CHECKING

import optuna

from objective import Testbed
from objective.objective import suggest
from samplers import Completion
from samplers import OpenAIChat
from samplers import ScriptedChat
from samplers._llm.chat import ChatUnavailable
from samplers._llm.scripted import Request
from studies.commands.tables import space_rows
from studies.errors import Misuse
from studies.llm import checked_llm
from studies.llm import open_llm
from studies.loop import StudyLoop
from studies.spec import Spec
from studies.study import setup


if TYPE_CHECKING:
    from samplers import Chat

# A long study is not played to its end: later turns cost what the last of these did.
PLAYED_TRIALS = 60


class PlayedChat(ScriptedChat):
    """Answers any request with a valid reply to its schema.

    Args:
        real: The model that counts tokens.

    Attributes:
        tokens: Prompt and completion tokens of each request.
    """

    def __init__(self, real: Chat) -> None:
        super().__init__(self._play, context_tokens=real.context_tokens, model=real.model)
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


class _Enough(Exception):
    """Ends the study's loop once `PLAYED_TRIALS` trials were played."""


def dry_run(spec: Spec) -> dict[str, Any]:
    """Say what a study would tune and ask, without running it.

    Raises:
        Misuse: If its method is the code agent, whose prompts show what was measured.
        NoChatFound, ChatError: If there is no language model, or it refuses.
    """
    if spec.row.edits_code:
        raise Misuse(f"--dry-run must be of a method with a sampler, but got {spec.method}")
    testbed = spec.where.load_script()
    facts: dict[str, Any] = {"method": spec.method, "space": space_rows(testbed), "llm": None}
    if not spec.row.uses_llm:
        return facts
    real, problem = open_llm(spec.model), ""
    try:
        real = checked_llm(spec.model, patient=False)
    except ChatUnavailable as error:  # it may be there when the study begins
        problem = str(error)
    chat = PlayedChat(real)
    per_trial, planned = _play(spec, testbed, chat)
    n_trials = planned or len(per_trial)
    prompts, completions = (sum(column) for column in zip(*chat.tokens, (0, 0)))
    # Turns may come at intervals, so the later half of what was played tells the rate.
    later = per_trial[len(per_trial) // 2 :]
    rate = sum(later) / len(later)
    calls = len(chat.requests) + round(rate * (n_trials - len(per_trial)))
    scale = calls / len(chat.requests) if chat.requests else 0.0
    llm = {
        "model": chat.model,
        "problem": problem or None,
        "tokens_counted": isinstance(real, OpenAIChat) and real.counts_tokens,
        "context_tokens": chat.context_tokens,
        "trials": n_trials,
        "trials_known": planned is not None,
        "first_prompt": chat.requests[0].messages if chat.requests else [],
        "first_prompt_tokens": chat.tokens[0][0] if chat.requests else 0,
        "calls": calls,
        "prompt_tokens": round(prompts * scale),
        "completion_tokens": round(completions * scale),
        "cost": None,
    }
    price_in, price_out = spec.model.price_in, spec.model.price_out
    if price_in is not None or price_out is not None:
        cost = llm["prompt_tokens"] * (price_in or 0) + llm["completion_tokens"] * (price_out or 0)
        llm["cost"] = round(cost / 1e6, 4)
    return {**facts, "llm": llm}


def _play(spec: Spec, testbed: Testbed, chat: PlayedChat) -> tuple[list[int], int | None]:
    """Count the requests of each played trial, and the trials of the whole study.

    The latter is None if the budget is of time, and nobody knows how long a training takes.
    """
    per_trial: list[int] = []

    def objective(trial: optuna.Trial) -> float:
        if len(per_trial) == PLAYED_TRIALS:
            raise _Enough
        before = len(chat.requests)
        for name, distribution in testbed.space.items():
            suggest(trial, name, distribution)
        per_trial.append(len(chat.requests) - before)
        value = 2.0 + random.Random(trial.number).random()
        for key, attr in {
            "status": "ok",
            testbed.metric.name: value,
            "training_seconds": spec.budget.train_seconds or 0.0,
        }.items():
            trial.set_user_attr(key, attr)
        return value

    loop = StudyLoop(
        optuna.create_study(direction=testbed.metric.direction),
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
    return per_trial, min(ends, default=None)
