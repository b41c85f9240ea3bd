"""A language model for tests that answers any JSON schema with values that it allows."""

from __future__ import annotations

from collections.abc import Mapping
import random
from typing import Any

from .scripted import Request
from .scripted import ScriptedChat


class SchemaChat(ScriptedChat):
    """Answers any JSON schema with random valid values; the same request gets the same reply."""

    def __init__(self, seed: int = 0, context_tokens: int | None = None) -> None:
        def reply(request: Request) -> Any:
            rng = random.Random(repr((seed, request.seed, request.messages)))
            return random_value(request.schema or {"type": "string"}, rng)

        super().__init__(reply, context_tokens=context_tokens, model="schema")


def random_value(schema: Mapping[str, Any], rng: random.Random) -> Any:
    """A value that a JSON schema allows (of the keywords that this project's schemas use)."""
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            return random_value(rng.choice(schema[keyword]), rng)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return rng.choice(schema["enum"])
    kind = schema.get("type", "string")
    if isinstance(kind, list):
        kind = rng.choice(kind)
    if kind == "object":
        required = set(schema.get("required", ()))
        properties = schema.get("properties", {})
        kept = {name for name in properties if name in required or rng.random() < 0.3}
        others = [name for name in properties if name not in kept]
        kept |= set(rng.sample(others, max(0, schema.get("minProperties", 0) - len(kept))))
        return {n: random_value(sub, rng) for n, sub in properties.items() if n in kept}
    if kind == "array":
        if "prefixItems" in schema:
            return [random_value(sub, rng) for sub in schema["prefixItems"]]
        low = schema.get("minItems", 0)
        length = rng.randint(low, schema.get("maxItems", low + 2))
        return [random_value(schema.get("items", {}), rng) for _ in range(length)]
    if kind == "integer":
        low = schema.get("minimum", 0)
        return rng.randint(low, schema.get("maximum", low + 100))
    if kind == "number":
        low = schema.get("minimum", 0.0)
        return rng.uniform(low, schema.get("maximum", low + 1.0))
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "null":
        return None
    return "text"
