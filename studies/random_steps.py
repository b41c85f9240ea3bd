"""Not a language model: random steps from the best configuration that a request shows.

Methods that ask a language model consist of a model and of machinery around it: start-up trials,
prompts, schemas, repairs, the base method. With this in the model's place the machinery is measured
alone. A model is worth what it adds to that.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import csv
import json
import random
import re
from typing import Any
from typing import Literal
from typing import TYPE_CHECKING

from samplers import Completion
from samplers._llm.chat import Message
from samplers._llm.tokens import estimate_tokens


if TYPE_CHECKING:
    from samplers import Chat

NAME = "random steps"
LLM = NAME.replace(" ", "-")  # what ``--llm`` calls it

# Standard deviation of a step as a share of a range; each value of the best configuration changes
# with this probability.
_STEP = 0.1
_CHANGE = 0.3

# From this ratio of its ends on a range is taken for logarithmic, which no schema says.
_LOG_RATIO = 50.0
_PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1}


class RandomSteps:
    """Replies to the requests of this project's samplers, the same to the same request.

    ==================  =========================================================================
    request             reply
    ==================  =========================================================================
    candidate values    some of the offered parameters, with any of the offered values near the
                        best configuration's
    LLAMBO's            the best configuration of the prompt's table, with Gaussian steps in some
    candidates          of its values; random ones if there is no table yet
    LLAMBO's            for each candidate a score of the table, at random: so the candidate is
    predictions         chosen blindly; or a probability, at random, if that is asked for
    ==================  =========================================================================
    """

    model = NAME
    context_tokens = None

    def count_tokens(self, text: str) -> int:
        return estimate_tokens(text)

    def complete(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int = 1024,
        temperature: float = 0.7,
        seed: int | None = None,
    ) -> Completion:
        prompt = "\n".join(message["content"] for message in messages)
        text = json.dumps(_reply(prompt, schema or {}, random.Random(f"{seed} {prompt}")))
        return Completion(
            text,
            model=self.model,
            prompt_tokens=self.count_tokens(prompt),
            completion_tokens=self.count_tokens(text),
        )


def reply_format(chat: Chat | None) -> Literal["menu", "auto"]:
    """Return the ``reply`` for samplers that have one: random steps only choose offered values."""
    return "menu" if isinstance(chat, RandomSteps) else "auto"


def _reply(prompt: str, schema: Mapping[str, Any], rng: random.Random) -> Any:
    properties: Mapping[str, Any] = schema.get("properties", {})
    if "candidates" in properties:
        rows = properties["candidates"]
        columns = rows["items"]["prefixItems"]
        table = _scored_rows(prompt)
        best = min(table, key=lambda row: row[1])[0] if table else None
        return {"candidates": [_near(best, columns, rng) for _ in range(rows["minItems"])]}
    if all(value == {"type": "number"} for value in properties.values()):
        scores = [score for _, score in _scored_rows(prompt)] or [0.0]
        return {name: rng.choice(scores) for name in properties}
    if all(value == _PROBABILITY for value in properties.values()):
        return {name: rng.random() for name in properties}
    if not all("enum" in value for value in properties.values()):
        raise ValueError(
            "Random steps answer candidate values, candidates or predictions of scores, "
            f"but got {schema!r}."
        )
    names = [name for name in properties if rng.random() < 0.5] or [rng.choice(list(properties))]
    return {name: rng.choice(properties[name]["enum"]) for name in names}


def _scored_rows(prompt: str) -> list[tuple[list[str], float]]:
    """Return the rows of LLAMBO's table: values as text, and the score that ends them."""
    found = re.search(r"^([^\n]*),score\n((?:[^\n]+\n)+)", prompt, re.MULTILINE)
    if found is None:
        return []
    width = len(found[1].split(",")) + 1
    rows = [row for row in csv.reader(found[2].splitlines()) if len(row) == width]
    return [(row[:-1], float(row[-1])) for row in rows if _is_number(row[-1])]


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?(e[+-]?\d+)?", text) is not None


def _near(
    best: Sequence[str] | None, columns: Sequence[Mapping[str, Any]], rng: random.Random
) -> list[Any]:
    """Return a configuration with steps from ``best`` in some values, at least one."""
    if best is None:
        return [_step(None, column, rng) for column in columns]
    certain = rng.randrange(len(columns))
    return [
        _step(text, column, rng)
        if i == certain or rng.random() < _CHANGE
        else (json.loads(text) if _is_number(text) else text)
        for i, (text, column) in enumerate(zip(best, columns))
    ]


def _step(text: str | None, column: Mapping[str, Any], rng: random.Random) -> Any:
    """Step from the value ``text`` within a column's bounds; draw any value without it."""
    choices = column.get("enum")
    if choices and column["type"] == "string":
        return rng.choice([choice for choice in choices if choice != text] or choices)
    low, high = (min(choices), max(choices)) if choices else (column["minimum"], column["maximum"])
    log = low > 0 and high / low >= _LOG_RATIO
    width = high / low if log else high - low
    if text is None:
        share = rng.random()
        value = low * width**share if log else low + share * width
    else:
        step = rng.gauss(0.0, _STEP)
        value = float(text) * width**step if log else float(text) + step * width
        if column["type"] == "integer" and round(value) == float(text):
            value = float(text) + rng.choice((-1, 1))
    value = min(max(value, low), high)
    return round(value) if column["type"] == "integer" else value
