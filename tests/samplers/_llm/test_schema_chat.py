"""Replies are what the schema allows, and the same for the same request."""

from __future__ import annotations

import json

from samplers._llm.schema_chat import SchemaChat


SCHEMA = {
    "type": "object",
    "properties": {
        "x": {"type": "number", "minimum": -2.0, "maximum": -1.0},
        "k": {"type": "integer", "minimum": 3, "maximum": 4},
        "kind": {"enum": ["a", None]},
        "many": {"type": "array", "items": {"const": 7}, "minItems": 2, "maxItems": 2},
    },
    "required": ["x", "k", "kind", "many"],
}


def test_a_reply_is_what_the_schema_allows() -> None:
    for seed in range(20):
        reply = json.loads(SchemaChat().complete([], schema=SCHEMA, seed=seed).text)
        assert -2 <= reply["x"] <= -1
        assert reply["k"] in (3, 4)
        assert reply["kind"] in ("a", None)
        assert reply["many"] == [7, 7]


def test_the_same_request_gets_the_same_reply_and_another_seed_another() -> None:
    first, again, other = (
        SchemaChat().complete([], schema=SCHEMA, seed=seed).text for seed in (0, 0, 1)
    )
    assert first == again != other
