"""What servers refuse of a request, in their words, and what they are asked then."""

from __future__ import annotations

from collections.abc import Callable
import json
from typing import Any

import pytest

from samplers._llm.chat import ChatRejected
from samplers._llm.chat import ChatUnavailable

from .conftest import Answer
from .conftest import LoopbackServer
from .conftest import refusal
from .conftest import reply
from .test_openai_chat import ASK
from .test_openai_chat import connect
from .test_openai_chat import SCHEMA


pytestmark = pytest.mark.usefixtures("short_pauses")

Body = dict[str, Any]
SYSTEM = [{"role": "system", "content": "You tune."}, *ASK]


def gemini(message: str, status: int = 400) -> Answer:
    return Answer(
        [{"error": {"code": status, "message": message, "status": "INVALID_ARGUMENT"}}], status
    )


def unless(refused: Callable[[Body], Answer | None]) -> Callable[[Body], Answer]:
    return lambda body: refused(body) or reply('{"x": 1}')


def formats(server: LoopbackServer) -> list[str]:
    sent = [body.get("response_format", {}) for body in server.requests]
    kinds = {None: "text", "json_schema": "schema", "json_object": "json"}
    return [
        "strict" if s.get("json_schema", {}).get("strict") else kinds[s.get("type")] for s in sent
    ]


def test_gemini_is_asked_without_the_seed_that_it_refuses(server: LoopbackServer) -> None:
    said = 'Invalid JSON payload received. Unknown name "seed": Cannot find field.'
    server.answers = unless(lambda body: gemini(said) if "seed" in body else None)
    chat = connect(server)
    assert chat.complete(ASK, schema=SCHEMA, seed=1).attempts == 2
    assert chat.complete(ASK, schema=SCHEMA, seed=2).attempts == 1
    assert formats(server) == ["strict"] * 3, "a JSON payload is no reply format"


@pytest.mark.parametrize(
    "said",
    [
        refusal("Unrecognized request argument supplied: seed"),
        refusal("Unsupported parameter", param="seed"),
        Answer({"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}, 422),
        Answer({"object": "error", "message": {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}}, 422),
        refusal("1 validation error for Request: seed: Extra inputs are not permitted", 422),
        refusal("This model does not support the seed parameter"),
    ],
)  # fmt: skip
def test_a_refused_argument_is_left_out(server: LoopbackServer, said: Answer) -> None:
    server.answers = unless(lambda body: said if "seed" in body else None)
    chat = connect(server)
    assert chat.complete(ASK, schema=SCHEMA, seed=1).attempts == 2
    assert chat.complete(ASK, schema=SCHEMA, seed=2).attempts == 1
    assert server.requests[-1]["temperature"] == 0.7


@pytest.mark.parametrize(
    "words, cap",
    [
        ("Invalid max_tokens value, the valid range of max_tokens is [1, 800]", 800),
        ("max_tokens must be in [1,800]", 800),
        ("max_tokens is too large: 1024. This model supports at most 800 completion tokens, whereas you provided 1024.", 800),
        ("max_tokens: 1024 > 800, which is the maximum allowed number of output tokens for claude-x-20251022", 800),
        ("`max_tokens` must be less than or equal to `800`, the maximum value for `max_tokens` is less than the `context_window` for this model", 800),
        ("max_tokens is not supported above 800", 800),
        ("max_tokens is more than this model can write", 512),
    ],
)  # fmt: skip
def test_the_longest_reply_shrinks_to_what_the_server_allows(
    server: LoopbackServer, words: str, cap: int
) -> None:
    server.answers = unless(lambda body: refusal(words) if body["max_tokens"] > cap else None)
    chat = connect(server)
    assert chat.complete(ASK, schema=SCHEMA, max_tokens=1024).attempts == 2
    assert chat.complete(ASK, schema=SCHEMA, max_tokens=1024).attempts == 1
    assert chat.complete(ASK, schema=SCHEMA, max_tokens=100).attempts == 1
    assert [body["max_tokens"] for body in server.requests] == [1024, cap, cap, 100]


def test_a_cap_of_thousands_with_commas_is_read(server: LoopbackServer) -> None:
    words = "max_tokens may be 8,192 at most"
    server.answers = unless(lambda body: refusal(words) if body["max_tokens"] > 8192 else None)
    assert connect(server).complete(ASK, max_tokens=20_000).attempts == 2


def test_a_server_without_either_name_of_the_length_is_asked_without(
    server: LoopbackServer,
) -> None:
    def refused(body: Body) -> Answer | None:
        for name in ("max_tokens", "max_completion_tokens"):
            if name in body:
                return refusal(f"Unsupported parameter: {name}", param=name)
        return None

    server.answers = unless(refused)
    assert connect(server).complete(ASK).attempts == 3


def test_a_model_that_had_no_room_to_think_gets_more(server: LoopbackServer) -> None:
    words = (
        "Could not finish the message because max_tokens or model output limit was reached. "
        "Please try again with higher max_tokens."
    )
    server.answers = unless(lambda body: refusal(words) if body["max_tokens"] < least else None)
    least, chat = 5000, connect(server)
    assert chat.complete(ASK, max_tokens=100).attempts == 2
    least = 10_000
    assert chat.complete(ASK, max_tokens=100).attempts == 2
    least = 100_000
    with pytest.raises(ChatRejected, match="higher max_tokens") as raised:
        chat.complete(ASK, max_tokens=100)
    assert raised.value.attempts == 1, "there is no more room to give"


@pytest.mark.parametrize(
    "said",
    [
        refusal("Failed to parse grammar", 500),
        refusal("xgrammar: failed to compile the schema", 500),
        refusal("Internal Server Error", 500),
        Answer("Internal Server Error", 500),
        refusal("Invalid grammar: the schema is too complex", 400),
        refusal("Failed to generate JSON. Please adjust your prompt.", 400, code="json_validate_failed"),
    ],
)  # fmt: skip
def test_one_failed_grammar_costs_the_schema_of_one_request(
    server: LoopbackServer, said: Answer
) -> None:
    failing = [True]

    def refused(body: Body) -> Answer | None:
        return said if failing[0] and "response_format" in body else None

    server.answers = unless(refused)
    chat = connect(server)
    assert chat.complete(ASK, schema=SCHEMA).attempts <= 3
    assert formats(server)[-1] == "text"
    failing[0] = False
    assert chat.complete(ASK, schema=SCHEMA).attempts == 1
    assert formats(server)[-1] == "strict"


def test_a_server_that_always_fails_with_a_schema_is_at_last_not_sent_one(
    server: LoopbackServer,
) -> None:
    said = refusal("Failed to parse grammar", 500)
    server.answers = unless(lambda body: said if "response_format" in body else None)
    chat = connect(server)
    assert [chat.complete(ASK, schema=SCHEMA).attempts for _ in range(5)] == [2, 2, 2, 1, 1]


def test_a_server_that_fails_without_a_schema_too_is_unavailable(server: LoopbackServer) -> None:
    server.answers = lambda body: refusal("Internal Server Error", 500)
    with pytest.raises(ChatUnavailable, match="Internal Server Error"):
        connect(server, max_retries=3).complete(ASK, schema=SCHEMA)


def test_a_keyword_that_strict_schemas_may_not_have_costs_the_strictness(
    server: LoopbackServer,
) -> None:
    words = "Invalid schema for response_format 'reply': In context=('properties', 'x'), 'minimum' is not permitted."

    def refused(body: Body) -> Answer | None:
        strict = body["response_format"]["json_schema"]["strict"]
        return refusal(words, param="response_format") if strict else None

    server.answers = unless(refused)
    assert connect(server).complete(ASK, schema=SCHEMA).attempts == 2
    assert formats(server) == ["strict", "schema"]


@pytest.mark.parametrize(
    "words, kinds",
    [
        ("'response_format.type' must be 'json_schema' or 'text'", ["json_object"]),
        ("This response_format type is unavailable now", ["json_schema"]),
        ("Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.", ["json_schema"]),
        ("Prompt must contain the word 'json' in some form to use 'response_format' of type 'json_object'.", ["json_schema", "json_object"]),
        ('Unknown name "response_format": Cannot find field.', ["json_schema", "json_object"]),
    ],
)  # fmt: skip
def test_a_format_that_a_server_has_not_is_asked_for_once(
    server: LoopbackServer, words: str, kinds: list[str]
) -> None:
    def refused(body: Body) -> Answer | None:
        return refusal(words) if body.get("response_format", {}).get("type") in kinds else None

    server.answers = unless(refused)
    chat = connect(server)
    chat.complete(ASK, schema=SCHEMA)
    assert chat.complete(ASK, schema=SCHEMA).attempts == 1


@pytest.mark.parametrize(
    "said",
    [
        refusal("System role not supported", 400),
        refusal("Jinja Exception: Conversation roles must alternate user/assistant/...", 500),
        gemini("Developer instruction is not enabled: no system instruction is supported"),
    ],
)
def test_a_model_without_a_system_role_gets_one_message(
    server: LoopbackServer, said: Answer
) -> None:
    def refused(body: Body) -> Answer | None:
        return said if body["messages"][0]["role"] == "system" else None

    server.answers = unless(refused)
    assert connect(server).complete(SYSTEM, schema=SCHEMA).attempts == 2
    assert server.requests[-1]["messages"] == [
        {"role": "user", "content": "You tune.\n\nWhich values?"}
    ]
    assert formats(server) == ["strict", "strict"]


def test_a_server_that_is_never_content_is_not_asked_for_ever(server: LoopbackServer) -> None:
    server.answers = lambda body: refusal(f"max_tokens must not be {body.get('max_tokens')}")
    with pytest.raises(ChatRejected):
        connect(server).complete(ASK, max_tokens=100_000)
    assert len(server.requests) <= 12


def test_what_one_thread_found_out_another_keeps(server: LoopbackServer) -> None:
    said = refusal("Unknown parameter: 'seed'", param="seed")
    server.answers = unless(lambda body: said if "seed" in body else None)
    connect(server).complete(ASK, seed=1)
    assert connect(server).complete(ASK, seed=1).attempts == 1
    assert json.dumps(server.requests[-1]).count("seed") == 0
