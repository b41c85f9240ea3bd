from __future__ import annotations

import json
from typing import Any

import pytest

from samplers._llm.reply import changes_schema
from samplers._llm.reply import params_schema
from samplers.llambo_paper.candidates import candidates_schema
from studies.random_steps import RandomSteps
from tests.studies.scoreboard.made import bowl


SPACE = bowl().space
TABLE = """\
Evaluated configurations:
x,n,kind,score
1.5,3,b,2.5
-4,90,a,80
These gave no score (1 oom in all):
1.4,3,b,oom

Propose 4 new configurations."""


def ask(prompt: str, schema: dict[str, Any], seed: int = 0) -> Any:
    completion = RandomSteps().complete(
        [{"role": "user", "content": prompt}], schema=schema, seed=seed
    )
    return json.loads(completion.text)


def test_a_menus_reply_is_some_of_its_offers() -> None:
    schema = changes_schema(SPACE, {"x": 0.0, "n": 10, "kind": "a"})
    replies = [ask("Change it.", schema, seed) for seed in range(30)]
    for reply in replies:
        assert 1 <= len(reply) <= 3
        assert all(v in schema["properties"][name]["enum"] for name, v in reply.items())
    assert len({json.dumps(reply) for reply in replies}) > 10


def test_candidates_are_steps_from_the_best_row() -> None:
    rows = [
        row for s in range(50) for row in ask(TABLE, candidates_schema(SPACE, 4), s)["candidates"]
    ]
    assert all([1.5, 3, "b"] != row for row in rows)
    unchanged = [sum(a == b for a, b in zip(row, [1.5, 3, "b"])) for row in rows]
    assert sum(unchanged) / len(rows) > 1.0  # of three values
    steps = [abs(x - 1.5) for x, _, _ in rows if x != 1.5]
    assert sum(step < 2 for step in steps) / len(steps) > 0.9  # of a range of 10
    assert all(type(n) is int and 1 <= n <= 100 and n < 60 for _, n, _ in rows)


def test_without_a_table_candidates_are_random() -> None:
    rows = [
        row
        for seed in range(30)
        for row in ask("Recommend.", candidates_schema(SPACE, 4), seed)["candidates"]
    ]
    x = [row[0] for row in rows]
    assert min(x) < -3 and max(x) > 3
    assert {row[2] for row in rows} == {"a", "b", "c"}


def test_predictions_are_scores_of_the_table() -> None:
    schema = {"properties": {name: {"type": "number"} for name in ("c1", "c2", "c3")}}
    replies = [ask(TABLE, schema, seed) for seed in range(10)]
    assert {score for reply in replies for score in reply.values()} == {2.5, 80.0}
    assert replies[0].keys() == {"c1", "c2", "c3"}


def test_probabilities_are_any() -> None:
    value = {"type": "number", "minimum": 0, "maximum": 1}
    reply = ask(TABLE, {"properties": {name: value for name in ("c1", "c2", "c3")}})
    assert len(set(reply.values())) == 3 and all(0 <= p <= 1 for p in reply.values())


def test_the_same_request_gets_the_same_reply() -> None:
    schema = candidates_schema(SPACE, 4)
    assert ask(TABLE, schema) == ask(TABLE, schema) != ask(TABLE, schema, seed=1)


def test_what_it_can_not_answer_is_an_error() -> None:
    with pytest.raises(ValueError, match="Random steps answer"):
        ask("A whole configuration.", params_schema(SPACE))
