"""A language model that may take or cost no more, against a real HTTP server on loopback."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
import pickle
from typing import Any

import pytest

from samplers._llm.capped import CappedChat
from samplers._llm.capped import Prices
from samplers._llm.chat import BudgetExhausted
from samplers._llm.chat import ChatError
from samplers._llm.record import Exchange
from samplers._llm.record import request_attributes

from .conftest import Answer
from .conftest import LoopbackServer
from .conftest import reply


ASK = [{"role": "user", "content": "Which values?"}]


def capped(server: LoopbackServer, **options: Any) -> CappedChat:
    return CappedChat("m", base_url=server.url, **{"timeout": 20.0, **options})


def test_a_copy_in_another_process_knows_what_was_spent(server: LoopbackServer) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 7}
    server.answers = [reply("hello", usage=usage)]
    chat = capped(server, prices=Prices(prompt=2.0, completion=10.0))
    chat.complete(ASK)
    assert chat.spent == pytest.approx((107, (100 * 2.0 + 7 * 10.0) / 1e6))
    assert pickle.loads(pickle.dumps(chat)).spent == chat.spent


def test_a_copy_that_is_made_during_a_request_sets_nothing_aside_for_it(
    server: LoopbackServer,
) -> None:
    copies = []

    def answer(body: dict[str, Any]) -> Answer:
        copies.append(pickle.loads(pickle.dumps(chat)))
        return reply("x")

    server.answers = answer
    chat = capped(server, max_total_tokens=1000)
    chat.complete(ASK, max_tokens=100)
    assert [copy.spent[0] for copy in copies] == [0]


def test_a_request_that_was_repeated_with_more_room_counts_twice(server: LoopbackServer) -> None:
    def answer(body: dict[str, Any]) -> Answer:
        usage = {"prompt_tokens": 10, "completion_tokens": body["max_tokens"]}
        if body["max_tokens"] < 1000:
            return reply("<think>let me see", finish_reason="length", usage=usage)
        return reply("<think>let me see</think>42", usage=usage)

    server.answers = answer
    chat = capped(server)
    chat.complete(ASK, max_tokens=100)
    assert chat.spent[0] == sum(10 + sent["max_tokens"] for sent in server.requests)
    assert len(server.requests) == 2
    tight = capped(server, max_total_tokens=1000)
    with pytest.raises(BudgetExhausted):  # the room to think counts
        tight.complete(ASK, max_tokens=100)


def test_nothing_is_sent_that_might_exceed_the_cap_on_tokens(server: LoopbackServer) -> None:
    usage = {"prompt_tokens": 50, "completion_tokens": 50}
    server.answers = lambda body: reply("x", usage=usage)
    chat = capped(server, max_total_tokens=250)
    chat.complete(ASK, max_tokens=60)
    chat.complete(ASK, max_tokens=40)
    with pytest.raises(BudgetExhausted, match="250 tokens; 200 are used"):
        chat.complete(ASK, max_tokens=60)
    assert len(server.requests) == 2


def test_nothing_is_sent_that_might_exceed_the_cap_on_cost(server: LoopbackServer) -> None:
    usage = {"prompt_tokens": 0, "completion_tokens": 500_000}
    server.answers = lambda body: reply("x", usage=usage)
    chat = capped(server, prices=Prices(0.0, 10.0), max_cost=8.0)
    chat.complete(ASK, max_tokens=700_000)
    with pytest.raises(BudgetExhausted, match="may cost 8; 5 is spent"):
        chat.complete(ASK, max_tokens=400_000)
    with pytest.raises(ValueError, match="needs `prices`"):
        capped(server, max_cost=1.0)


def test_what_others_have_asked_counts_beside_what_this_chat_asks(server: LoopbackServer) -> None:
    usage = {"prompt_tokens": 50, "completion_tokens": 50}
    server.answers = lambda body: reply("x", usage=usage)
    chat = capped(server, max_total_tokens=550)
    chat.complete(ASK, max_tokens=60)
    chat.charge(200, 100)  # its own 100, and 200 of others
    chat.complete(ASK, max_tokens=60)
    with pytest.raises(BudgetExhausted, match="550 tokens; 400 are used"):
        chat.complete(ASK, max_tokens=160)
    assert chat.spent[0] == 400


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": 0, "completion_tokens": 60},
        {"prompt_tokens": 5, "completion_tokens": 0},
    ],
)
def test_a_server_that_tells_no_usage_is_charged_by_what_is_counted(
    server: LoopbackServer, usage: Any
) -> None:
    server.answers = lambda body: reply("a word or two " * 20, usage=usage)
    chat = capped(server, max_total_tokens=400)
    told = chat.complete(ASK, max_tokens=100)
    assert told.completion_tokens >= 40 and told.prompt_tokens >= 3
    assert chat.spent[0] == told.prompt_tokens + told.completion_tokens
    with pytest.raises(BudgetExhausted, match="400 tokens"):
        for _ in range(10):
            chat.complete(ASK, max_tokens=100)


@pytest.mark.parametrize(
    "choice",
    [
        {"message": {"content": None, "refusal": "I won't."}},
        {"message": {"content": ""}, "finish_reason": "content_filter"},
    ],
)
def test_an_answer_that_is_refused_or_filtered_is_charged(
    server: LoopbackServer, choice: dict[str, Any]
) -> None:
    usage = {"prompt_tokens": 50, "completion_tokens": 30}
    server.answers = [Answer({"choices": [choice], "usage": usage})]
    chat = capped(server, max_total_tokens=1000)
    with pytest.raises(ChatError, match="refuses|filter"):
        chat.complete(ASK, max_tokens=60)
    assert chat.spent[0] == 80


def test_a_refused_answer_is_charged_to_its_trial_as_it_is_to_the_cap(
    server: LoopbackServer,
) -> None:
    """Else another process, or a resumed one, would not know of it."""
    server.answers = [reply(None, refusal="I won't.")]  # without a usage
    chat = capped(server, max_total_tokens=1000)
    with pytest.raises(ChatError, match="refuses") as raised:
        chat.complete(ASK, max_tokens=60)
    attributes = request_attributes([Exchange(ASK, None, raised.value)])
    assert attributes["llm_prompt_tokens"] == chat.spent[0] > 0


def test_threads_together_keep_the_cap(server: LoopbackServer) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 90}
    server.answers = lambda body: Answer(reply("x", usage=usage).body, hang=0.05)
    chat = capped(server, max_total_tokens=400)

    def ask(_: int) -> bool:
        try:
            chat.complete(ASK, max_tokens=90)
        except BudgetExhausted:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        answered = sum(pool.map(ask, range(16)))
    assert 1 <= answered <= 4
    assert chat.spent[0] == 100 * answered <= 400
