"""Errors as servers really tell them, and what becomes of each."""

from __future__ import annotations

import json
from typing import Any

import pytest

from samplers._llm.chat import ChatError
from samplers._llm.chat import ChatRejected
from samplers._llm.chat import ChatUnavailable
from samplers._llm.chat import ContextTooLong
from samplers._llm.failures import Refusal
from samplers._llm.failures import refusal
from samplers._llm.failures import to_error

from .conftest import Answer
from .conftest import LoopbackServer
from .conftest import reply
from .test_openai_chat import ASK
from .test_openai_chat import connect


pytestmark = pytest.mark.usefixtures("short_pauses")

PYDANTIC = {
    "object": "error",
    "message": {
        "detail": [
            {
                "type": "extra_forbidden",
                "loc": ["body", "seed"],
                "msg": "Extra inputs are not permitted",
            }
        ]
    },
}


def read(body: Any, status: int = 400) -> Refusal | None:
    text = body if isinstance(body, str) else json.dumps(body)
    payload = None if isinstance(body, str) else body
    return refusal(status, payload, text, lambda words: " ".join(words.split()))


@pytest.mark.parametrize(
    "body, words, names",
    [
        ({"error": {"message": "no"}}, "no", set()),
        ([{"error": {"code": 400, "message": "no"}}], "no", set()),
        ({"error": "no"}, "no", set()),
        ({"error": {"error": {"message": "no"}}}, "no", set()),
        ({"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}, "no", set()),
        ({"detail": "no"}, "no", set()),
        ({"message": "no"}, "no", set()),
        ("<html>no</html>", "<html>no</html>", set()),
        ({"error": {"message": "bad", "param": "seed"}}, "bad", {"seed"}),
        ({"error": {"message": "bad", "param": "response_format.json_schema"}}, "bad", {"response_format"}),
        (PYDANTIC, "not permitted", {"seed"}),
        (
            [{"error": {"message": 'Invalid JSON payload received. Unknown name "seed": Cannot find field.'}}],
            "Unknown name",
            {"seed"},
        ),
        ({"error": {"message": "Unrecognized request argument supplied: seed"}}, "seed", {"seed"}),
        (
            {"error": {"message": "Provider returned error", "metadata": {"raw": "upstream is down"}}},
            "Provider returned error; upstream is down",
            set(),
        ),
    ],
)  # fmt: skip
def test_an_error_is_read_in_every_shape(body: Any, words: str, names: set[str]) -> None:
    refused = read(body)
    assert refused is not None
    assert words in refused.words and names <= refused.names


@pytest.mark.parametrize(
    "body",
    [[], {}, "", [[]], {"error": []}, {"error": {}}, {"error": {"message": {}}}, {"error": 5},
     {"error": {"code": [1], "message": ["a", {"b": None}], "param": 3}}, {"detail": [1, [2]]}],
)  # fmt: skip
def test_an_error_of_no_shape_is_an_error_all_the_same(body: Any) -> None:
    refused = read(body)
    assert refused is not None and refused.words
    assert isinstance(to_error(refused, "KEY"), ChatRejected)


@pytest.mark.parametrize(
    "words, limit",
    [
        ("This model's maximum context length is 4096 tokens. However, you requested 5000", 4096),
        ("prompt is too long: 210000 tokens > 200000 maximum", 200000),
        ("The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", 1048576),
        ("Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length", 32768),
        ("Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens", 4096),
        ("Request too large for model `x` on tokens per minute (TPM): Limit 6000, Requested 8000", 6000),
        ("request (9001 tokens) exceeds the available context size (8192 tokens)", 8192),
        ("Please reduce the length of the messages or completion.", None),
        ("The input (9000 tokens) is longer than the model's context length (8192 tokens).", 8192),
        ("context window exceeded: 4096 tokens maximum, 9000 given", 4096),
    ],
)  # fmt: skip
def test_a_long_prompt_is_recognized_in_every_wording(words: str, limit: int | None) -> None:
    for body in ({"error": {"message": words}}, [{"error": {"code": 400, "message": words}}]):
        refused = read(body)
        assert refused is not None
        error = to_error(refused, "KEY")
        assert isinstance(error, ContextTooLong) and error.limit == limit


def test_a_limit_of_requests_is_no_limit_of_the_context() -> None:
    words = "Rate limit reached for model `x` on tokens per minute (TPM): Limit 6000, Used 5900"
    refused = read({"error": {"message": words, "code": "rate_limit_exceeded"}}, 429)
    assert refused is not None
    assert isinstance(to_error(refused, "KEY"), ChatUnavailable)


GOOGLE = (
    "You exceeded your current quota, please check your plan and billing details. Quota exceeded "
    "for metric: generate_content_free_tier_requests, limit: 20. Please retry in 31.3s."
)
GROQ = (
    "Rate limit reached for model `x` on tokens per {} (TPX): Limit 9, Used 8, Requested 2. Please "
    "try again in {}. Need more tokens? Upgrade today at https://console.groq.com/settings/billing"
)


def google(*quotas: str) -> Any:
    """As Gemini tells which quotas are used up: in details, with the same words for all."""
    violations = [{"quotaId": f"GenerateRequests{quota}-FreeTier"} for quota in quotas]
    return [{"error": {"code": 429, "message": GOOGLE, "details": [{"violations": violations}]}}]


@pytest.mark.parametrize(
    "body, helps",
    [
        (google("PerMinutePerProjectPerModel"), True),
        (google("PerDayPerProjectPerModel"), False),
        (google("PerMinutePerProjectPerModel", "PerDayPerProjectPerModel"), False),
        ({"error": {"message": "Rate limit exceeded: free-models-per-min. ", "code": 429}}, True),
        (
            {"error": {"message": "Rate limit exceeded: free-models-per-day. Add 10 credits"}},
            False,
        ),
        ({"error": {"message": "At most 10 requests per minute and 500 per day"}}, True),
        ({"error": {"message": GROQ.format("minute", "4.77s")}}, True),
        ({"error": {"message": GROQ.format("day", "9m38.016s")}}, True),
    ],
)
def test_waiting_helps_against_any_limit_but_a_days(body: Any, helps: bool) -> None:
    refused = read(body, 429)
    assert refused is not None
    assert isinstance(to_error(refused, "KEY"), ChatUnavailable if helps else ChatRejected)


@pytest.mark.parametrize(
    "body, status",
    [
        ({"error": {"code": 429, "message": "slow down"}}, 429),
        ({"error": {"code": "429", "message": "slow down"}}, 429),
        ({"error": {"status": "RESOURCE_EXHAUSTED", "message": "slow down"}}, 429),
        ({"error": {"type": "overloaded_error", "message": "slow down"}}, 503),
        ({"error": {"type": "invalid_request_error", "message": "slow down"}}, 400),
        ({"error": "slow down"}, 502),
        ({"object": "error", "message": "slow down", "code": 429}, 429),
        ({"detail": "slow down"}, 502),
        ({"choices": [{"error": {"code": 502, "message": "slow down"}}]}, 502),
        ({"choices": [{"message": {"content": ""}, "error": {"code": 429, "message": "slow down"}}]}, 429),
    ],
)  # fmt: skip
def test_an_error_within_a_success_has_the_status_that_it_names(body: Any, status: int) -> None:
    refused = read(body, 200)
    assert refused is not None
    assert (refused.status, refused.words) == (status, "slow down")


def test_a_success_is_no_error() -> None:
    assert read(reply("hello").body, 200) is None
    assert read({"error": None, **reply("hello").body}, 200) is None


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": 429, "message": "slow down"}},
        {"choices": [{"message": {"content": None}, "error": {"code": 502, "message": "slow"}}]},
        {"choices": None, "usage": None},
        {"choices": []},
        {},
        [],
    ],
)
def test_a_success_without_an_answer_is_asked_again(server: LoopbackServer, body: Any) -> None:
    server.answers = [Answer(body), reply("hello")]
    completion = connect(server).complete(ASK)
    assert (completion.text, completion.attempts) == ("hello", 2)


@pytest.mark.parametrize(
    "message, said",
    [
        (reply(None, refusal="I can't help\nwith that."), "refuses to answer: I can't help with that."),
        (reply(None, finish_reason="content_filter"), "filter"),
    ],
)  # fmt: skip
def test_a_model_that_refuses_is_quoted_and_not_scolded(
    server: LoopbackServer, message: Answer, said: str
) -> None:
    server.answers = [message]
    with pytest.raises(ChatError, match=said):
        connect(server).complete(ASK)
    assert len(server.requests) == 1


def test_words_of_a_server_are_shown_without_escapes_and_keys(server: LoopbackServer) -> None:
    key = "0123456789abcdef0123456789abcdef"
    words = f"\x1b[31mno\x1b[0m \ud800 key {key}\n{' '.join(key)}"
    server.answers = [Answer([{"error": {"code": 403, "message": words}}], 403)]
    with pytest.raises(ChatRejected, match=r"HTTP 403: no . key \*\*\*") as raised:
        connect(server, api_key=key).complete(ASK)
    assert "\x1b" not in str(raised.value) and str(raised.value).encode()


def test_an_error_of_any_depth_is_read() -> None:
    deep: list[Any] = []
    for _ in range(5000):  # where it was read, a stack may hold more than where it is looked at
        deep = [deep]
    for error in ({"code": deep}, {"message": "no", "metadata": {"raw": deep}}, {"detail": deep}):
        for status in (200, 400):
            assert refusal(status, {"error": error}, "", str) is not None


@pytest.mark.parametrize("status", [200, 400, 500])
def test_no_cut_shows_half_a_key(server: LoopbackServer, status: int) -> None:
    key = "0123456789abcdef" * 8
    # Short when they are shown, and so long before that the last key is cut wherever one cuts.
    texts = ["a" * n + f" {key}" * 200 for n in range(0, len(key), 15)]
    for words in [*texts, *(json.dumps({"error": {"detail": [text]}}) for text in texts)]:
        server.answers = [Answer(words, status)]
        with pytest.raises(ChatError) as raised:
            connect(server, api_key=key, max_retries=0).complete(ASK)
        assert "0123" not in str(raised.value)
