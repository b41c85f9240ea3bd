"""What a language model answers, and what its server sends, byte by byte."""

from __future__ import annotations

import json
import math
import time
from typing import Any

from hypothesis import example
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from samplers import ChatError
from samplers import Completion
from samplers import OpenAIChat
from samplers._llm.answers import read_completion
from samplers._llm.client import Client
from samplers._llm.failures import retry_after
from samplers._llm.reply import parse_params
from samplers._llm.reply import ReplyError
from samplers._llm.transport import answer_of
from samplers._llm.warm_start import parse_configurations
from samplers.llambo_paper.candidates import parse_candidates
from tests.properties.bounds import bounded
from tests.properties.bounds import damaged
from tests.properties.bounds import examples
from tests.properties.bounds import JSON_PIECES
from tests.properties.bounds import mixed
from tests.properties.bounds import read
from tests.properties.bounds import texts
from tests.properties.bounds import values


SPACE = {
    "DEPTH": IntDistribution(1, 8),
    "WIDTH": IntDistribution(64, 2**20, log=True),
    "LR": FloatDistribution(1e-4, 0.1, log=True),
    "DROPOUT": FloatDistribution(0, 0.5, step=0.1),
    "PATTERN": CategoricalDistribution(["ab", "ba", 1, True, None]),
}
BASE = {"DEPTH": 4, "WIDTH": 128, "LR": 0.01, "DROPOUT": 0.1, "PATTERN": "ab"}
PIECES = [
    *JSON_PIECES,
    *SPACE,
    *(f'"{name}": ' for name in SPACE),
    "ab",
    "0.01",
    "LR = 0.1",
    "```",
]
PIECES += [
    "<think>",
    "</think>",
    "[THINK]",
    '{"name": "LR", "value": 1}',
    "<|im_start|>",
    "reason",
]
REPLIES = [
    '{"reason": "why", "DEPTH": 5, "WIDTH": 256, "LR": 0.02, "DROPOUT": 0.2, "PATTERN": "ba"}',
    '```json\n{"parameters": {"DEPTH": 5, "LR": 0.02}}\n```',
    '[{"name": "LR", "value": 0.1}, {"name": "DEPTH", "value": 3}]',
    '{"configurations": [{"DEPTH": 5, "LR": 0.02}, {"DEPTH": 6}]}',
    '{"candidates": [[5, 256, 0.02, 0.2, "ba"], [6, 256, 0.03, 0.2, "ab"]]}',
    "DEPTH: 5\nLR = 0.02,\n",
]
replies = damaged(REPLIES, PIECES).map(lambda data: data.decode(errors="replace")) | (
    values() | mixed({name: st.integers() | st.floats() for name in SPACE})
).map(json.dumps)


@examples
@given(replies)
def test_a_reply_is_a_configuration_or_an_error(reply: str) -> None:
    parsed = read(parse_params, reply, SPACE, BASE, "reason", refusals=ReplyError)
    found = read(parse_configurations, reply, SPACE, BASE, "reason", refusals=ReplyError)
    for one in [*([parsed] if parsed else []), *(found or [])]:
        assert one.named and all(SPACE[name]._contains(_inner(name, v)) for name, v in _of(one))


def _of(parsed: Any) -> list[tuple[str, Any]]:
    assert parsed.params.keys() == SPACE.keys()
    return list(parsed.params.items())


def _inner(name: str, value: Any) -> float:
    return SPACE[name].to_internal_repr(value)


@examples
@example("[" * 950 + "]" * 950)
@given(replies)
def test_candidates_are_of_the_space_or_problems_are_said(reply: str) -> None:
    with bounded():
        usable, problems = parse_candidates(reply, SPACE, {"DEPTH": 4})
    assert usable or problems
    for params in usable:
        assert params["DEPTH"] == 4
        assert all(SPACE[name]._contains(_inner(name, v)) for name, v in params.items())


# --- Servers ------------------------------------------------------------------------------------

message = mixed(
    {
        "content": st.text() | st.lists(mixed({"type": st.just("text"), "text": st.text()})),
        "reasoning_content": st.text(),
        "refusal": st.text(),
    }
)
usage = mixed(
    {
        "prompt_tokens": st.integers(),
        "completion_tokens": st.integers(),
        "prompt_tokens_details": mixed({"cached_tokens": st.integers()}),
        "completion_tokens_details": mixed({"reasoning_tokens": st.integers()}),
    }
)
choice = mixed(
    {"message": message, "finish_reason": st.sampled_from(["length", "content_filter"])}
)
error = mixed(
    {
        "message": st.sampled_from(
            ["maximum context length is 4096 tokens", "Unknown name: seed"]
        ),
        "code": st.sampled_from([400, 429, "rate_limit_exceeded", "insufficient_quota"]),
        "param": st.just("seed"),
        "detail": st.lists(mixed({"loc": st.just(["body", "seed"]), "msg": st.text()})),
        "n_ctx": st.integers(),
        "metadata": mixed({"raw": st.text()}),
    }
)
answer = mixed(
    {
        "choices": st.lists(choice, max_size=2),
        "usage": usage,
        "model": st.text(),
        "error": error,
        "timings": mixed({"cache_n": st.integers()}),
        "data": st.lists(mixed({"id": st.text()})),
    }
)
ANSWERS = [
    '{"choices": [{"message": {"content": "{\\"LR\\": 1}"}}], "usage": {"prompt_tokens": 5}}',
    '[{"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}}]',
    "<html><body>502 Bad Gateway</body></html>",
]
bodies = damaged(ANSWERS, [*PIECES, '"choices"', '"error"', '"message"']) | (
    (answer | st.lists(answer, min_size=1, max_size=1) | values()).map(
        lambda value: json.dumps(value).encode()
    )
)
KEY = "sk-abcdefghijklmnop"


class Sent:
    """A transport on which an answer lies ready."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self._answer = status, headers, body

    def send(self, *_: object, **__: object) -> Any:
        return answer_of(*self._answer)


@examples
@example(200, b'{"error": ' + b"[" * 900 + b"]" * 900 + b"}", "")
@example(400, b"null" * 30_000, "")
@example(400, b"a://b:" * 20_000, "")
@example(400, b"a://:" * 1_500_000, "")
@example(400, json.dumps({"error": {"code": "a://:" * 1_500_000, "message": "a"}}).encode(), "")
@example(200, b"a://:" * 1_500_000, "")
@example(301, b"", "a://:" * 1_500_000)
@example(200, b'{"model": " \\f", "choices": [{"message": {"content": "a"}}]}', "")
@given(st.sampled_from([200, 204, 301, 400, 401, 404, 422, 429, 500, 503]), bodies, st.text())
def test_an_answer_is_a_completion_or_an_error_of_one_line(
    status: int, body: bytes, location: str
) -> None:
    client = Client("http://127.0.0.1:1/v1", KEY, "OPENAI_API_KEY", max_retries=0)
    client._transport = Sent(status, {"location": location}, body)  # type: ignore[assignment]

    def ask() -> Completion:
        asked = {"seed": 1, "max_tokens": 10, "response_format": {}}
        found = client.call("POST", "x", time.monotonic() + 60, asked, needs="choices")
        return read_completion(found, "m", client.clean)

    completion = read(ask, refusals=ChatError)
    if completion is not None:
        tokens = completion.prompt_tokens, completion.cached_tokens, completion.completion_tokens
        assert all(0 <= n < 1e9 for n in tokens)
        assert KEY not in completion.text and completion.model
        (completion.text + completion.reasoning + completion.model).encode()


MODELS = [
    '{"object": "list", "data": [{"id": "a/b.gguf", "max_model_len": 8192}, {"id": "c"}]}',
    '{"default_generation_settings": {"n_ctx": 8192}, "tokens": [1, 2, 3], "count": 3}',
]
listings = damaged(MODELS, [*PIECES, '"data"', '"id"', ".gguf", "/"]) | mixed(
    {
        "data": st.lists(
            mixed({"id": st.text() | texts([".gguf", "/", KEY]), "max_model_len": st.integers()}),
            max_size=3,
        ),
        "default_generation_settings": mixed({"n_ctx": st.integers()}),
        "tokens": st.lists(st.integers(), max_size=3),
        "count": st.integers(),
    }
).map(lambda value: json.dumps(value).encode())


@examples
@example(200, json.dumps({"data": [{"id": "m" * 4000}] * 500}).encode(), None)
@example(200, json.dumps({"data": [{"id": KEY}]}).encode(), "m")
@example(200, json.dumps({"data": [{"id": "m" * 190 + KEY}]}).encode(), None)
@example(200, b'{"count": true}', "m")
@example(200, b'{"data": [{"id": "\\f"}]}', None)
@example(200, b'{"default_generation_settings": {"n_ctx": 1%s}}' % (b"0" * 400), None)
@given(st.sampled_from([200, 404]), listings, st.sampled_from([None, "m"]))
def test_what_a_server_says_of_itself_is_of_use_or_left_out(
    status: int, body: bytes, asked: str | None
) -> None:
    chat = OpenAIChat(asked, base_url="http://127.0.0.1:1/v1", api_key=KEY, max_retries=0)
    chat._client._transport = Sent(status, {}, body)  # type: ignore[assignment]
    name = read(lambda: chat.model, refusals=ChatError)
    if name is not None:
        assert name and KEY[:10] not in name and "\n" not in name and "\x1b" not in name
        name.encode()
    context = read(lambda: chat.context_tokens, refusals=ChatError)
    assert context is None or 0 < context < 1e9
    with bounded():
        assert 0 <= chat.count_tokens("0.0123") < 100


@examples
@example("Mon, 01 Jan 2020 00:00:00 +99999999999999999999")
@example("nan")
@example("Sat, 01 Jan 0001 00:00:00 +2300")
@given(
    texts(["1", "Mon, ", "01 ", "Jan ", "2020 ", "00:00:00 ", "GMT", "+9999", "inf", "-1"])
    | st.floats().map(str)
    | st.datetimes().map(lambda moment: f"{moment:%a, %d %b %Y %H:%M:%S} +0000")
)
def test_a_pause_is_a_number_of_seconds(text: str) -> None:
    with bounded():
        seconds = retry_after({"retry-after": text})
    assert 0 <= seconds <= math.inf
