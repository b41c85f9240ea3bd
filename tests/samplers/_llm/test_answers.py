"""Replies as servers really send them; what isn't understood is left out."""

from __future__ import annotations

import math
from typing import Any

import pytest

from samplers._llm.answers import read_completion
from samplers._llm.chat import ChatError
from samplers._llm.chat import Completion

from .conftest import LoopbackServer
from .conftest import reply
from .test_openai_chat import ASK
from .test_openai_chat import connect


NONSENSE: list[Any] = [
    None,
    True,
    "",
    "many",
    -5,
    1.5,
    math.inf,
    math.nan,
    10**30,
    [],
    [1],
    {},
    {"a": []},
]


def read(body: dict[str, Any]) -> Completion:
    return read_completion(body, "asked", lambda text: text)


def message(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"message": fields}]}


@pytest.mark.parametrize(
    "choice",
    [
        {"message": {"content": None, "tool_calls": [{"function": {"arguments": '{"x": 1}'}}]}},
        {"message": {"content": "", "tool_calls": [3, {"function": {"arguments": {"x": 1}}}]}},
        {"message": {"function_call": {"name": "reply", "arguments": '{"x": 1}'}}},
        {"text": '{"x": 1}'},
    ],
)
def test_a_reply_beside_the_content_is_read(choice: dict[str, Any]) -> None:
    assert read({"choices": [choice]}).text == '{"x": 1}'


def test_a_content_beside_a_call_is_the_reply() -> None:
    called = [{"function": {"arguments": "{}"}}]
    assert read(message(content="42", tool_calls=called)).text == "42"


@pytest.mark.parametrize(
    "content, text, reasoning",
    [
        ([{"type": "text", "text": '{"x": 1}'}], '{"x": 1}', ""),
        ([{"type": "text", "text": '{"x"'}, {"type": "text", "text": ": 1}"}], '{"x": 1}', ""),
        ([{"type": "thinking", "thinking": "hmm"}, {"type": "text", "text": "42"}], "42", "hmm"),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "hmm"}]}, {"type": "text", "text": "42"}], "42", "hmm"),
        ([{"type": "reasoning", "text": "hmm"}, "42"], "42", "hmm"),
        ([{"type": "redacted_thinking", "data": "xyz"}, {"type": "output_text", "text": "42"}], "42", ""),
        ({"type": "text", "text": "42"}, "42", ""),
        ({"x": 1}, '{"x": 1}', ""),  # the reply, read by a gateway
        ([{"type": "image_url"}, None, 5, {"text": 7}, {"type": None, "text": "42"}], "42", ""),
        ("[THINK]hmm[/THINK]42", "42", "hmm"),
        ("\u25c1think\u25b7hmm\u25c1/think\u25b742", "42", "hmm"),
        ("<reasoning>hmm</reasoning>42", "42", "hmm"),
        ("<think>a</think>b<think>c", "b", "a\nc"),
        ("<think>a<think>b</think>c", "c", "a<think>b"),
        ("a</think>b</think>c", "c", "a\nb"),
    ],
)  # fmt: skip
def test_content_is_read_in_every_shape(content: Any, text: str, reasoning: str) -> None:
    completion = read(message(content=content))
    assert (completion.text, completion.reasoning) == (text, reasoning)


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_what_is_not_understood_is_left_out(nonsense: Any) -> None:
    counts = {"prompt_tokens": nonsense, "completion_tokens": nonsense}
    for body in (
        {"choices": [{"message": nonsense}]},
        {"choices": [{"message": {"content": nonsense, "reasoning_content": nonsense}}]},
        {**message(content="42"), "usage": nonsense},
        {**message(content="42"), "usage": counts, "model": nonsense, "timings": nonsense},
        {**message(content="42"), "usage": {"prompt_tokens_details": nonsense}},
        {**message(content="42"), "usage": {"completion_tokens_details": nonsense}},
        {"choices": [{"message": {"content": "42"}, "finish_reason": nonsense}]},
        {"choices": nonsense},
    ):
        completion = read(body)
        assert completion.text in ("42", "", "many", "{}", '{"a": []}')
        assert completion.prompt_tokens in (0, 1) and completion.completion_tokens in (0, 1)
        assert completion.model in ("asked", "many") and not completion.truncated


def test_cached_tokens_are_at_most_the_prompts() -> None:
    usage = {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 99}}
    assert read({**message(content="42"), "usage": usage}).cached_tokens == 10


@pytest.mark.parametrize(
    "told, written",
    [
        ({"completion_tokens": 1, "prompt_tokens": 9, "total_tokens": 103}, 94),  # Gemini
        ({"completion_tokens": 0, "prompt_tokens": 21, "total_tokens": 81}, 60),
        ({"completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 60}}, 60),
        ({"completion_tokens": 5, "total_tokens": 81}, 5),  # of which nobody knows the prompt's
        ({"completion_tokens": 80, "prompt_tokens": 9, "total_tokens": 85}, 80),
    ],
)
def test_thoughts_count_as_written_where_a_server_leaves_them_out(
    told: dict[str, Any], written: int
) -> None:
    assert read({**message(content="42"), "usage": told}).completion_tokens == written


@pytest.mark.parametrize(
    "content",
    ["<think>" * 500_000, "</think>" * 500_000, "<think></think>" * 250_000, "<" * 4_000_000],
)
def test_tags_without_end_are_read_in_one_pass(content: str) -> None:
    completion = read(message(content=content))  # which took hours
    assert len(completion.text) + len(completion.reasoning) < len(content) + 1


def test_blocks_within_blocks_have_an_end() -> None:
    nested: Any = "hmm"
    for _ in range(500):
        nested = [{"type": "thinking", "thinking": nested}]
    assert read(message(content=[*nested, {"type": "text", "text": "42"}])).text == "42"


def test_a_lone_surrogate_and_a_terminals_escapes_do_not_arrive(server: LoopbackServer) -> None:
    server.answers = [reply("\x1b[31m\ud83d{}\x1b[0m", reasoning="\udc00\x1b]0;x\x07", model="m\x1b[1m\n\ud800")]  # fmt: skip
    completion = connect(server).complete(ASK)
    shown = (completion.text, completion.reasoning, completion.model)
    assert shown == ("\ufffd{}", "\ufffd", "m \ufffd")


def test_a_lone_surrogate_can_be_sent(server: LoopbackServer) -> None:
    server.answers = [reply("fine")]
    assert connect(server).complete([{"role": "user", "content": "a\ud800b"}]).text == "fine"
    assert server.requests[0]["messages"][0]["content"] == "a?b"


def test_a_server_that_sends_the_key_back_does_not_get_it_into_a_reply(
    server: LoopbackServer,
) -> None:
    key = "gsk_0123456789abcdef"
    server.answers = [reply(f"your key is {key}", reasoning=key, model=key)]
    completion = connect(server, api_key=key).complete(ASK)
    assert key not in repr(completion)


def test_a_refusal_beside_a_text_is_no_refusal() -> None:
    assert read(message(content="42", refusal=None)).text == "42"
    with pytest.raises(ChatError, match="refuses"):
        read(message(content="", refusal="no"))
