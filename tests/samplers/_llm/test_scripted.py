"""The scripted language model, whose example is in docs/language_models.md."""

from __future__ import annotations

from collections.abc import Callable
import copy
import itertools
import pickle
from typing import Any

import pytest

import samplers
from samplers import Chat
from samplers import ChatError
from samplers import Completion
from samplers import ScriptedChat
from samplers._llm.scripted import Request


ASK = [{"role": "user", "content": "Hello, who?"}]


def text_of(chat: Chat) -> str:
    return chat.complete(ASK).text


def test_replies_come_in_turn_and_requests_are_kept() -> None:
    whole = Completion("whole", truncated=True)
    chat = ScriptedChat(["text", {"x": 1}, whole, lambda request: request.text[:5]])
    assert [text_of(chat), text_of(chat)] == ["text", '{"x": 1}']
    assert chat.complete(ASK, seed=3, schema={"type": "object"}) is whole
    assert text_of(chat) == "Hello"
    assert [r.seed for r in chat.requests] == [None, None, 3, None]
    assert chat.requests[2].schema == {"type": "object"} and chat.requests[0].messages == ASK


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda chat: pickle.loads(pickle.dumps(chat))])
def test_a_copy_goes_on_by_itself(copied: Callable[[ScriptedChat], ScriptedChat]) -> None:
    chat = ScriptedChat(["a", "b", "c"])
    text_of(chat)
    other = copied(chat)
    assert [text_of(other), text_of(other), text_of(chat)] == ["b", "c", "b"]
    assert (len(other.requests), len(chat.requests)) == (3, 2)


def test_an_exception_is_raised_and_one_request_too_many_is_an_error() -> None:
    chat = ScriptedChat([ChatError("away")])
    with pytest.raises(ChatError, match="away"):
        chat.complete(ASK)
    with pytest.raises(AssertionError, match="none is left for request 2"):
        chat.complete(ASK)


def test_a_function_gives_every_reply() -> None:
    def reply(request: Request) -> Any:
        return {"asked": request.text}

    chat = ScriptedChat(reply, model="large-70b", context_tokens=100)
    assert text_of(chat) == text_of(chat) == '{"asked": "Hello, who?"}'
    completion = chat.complete(ASK)
    assert (completion.model, completion.prompt_tokens) == ("large-70b", 3)
    assert chat.context_tokens == 100 and len(chat.requests) == 3
    assert text_of(ScriptedChat(itertools.repeat("a"))) == "a"


def test_what_samplers_offers_is_there() -> None:
    for name in samplers.__all__:
        assert getattr(samplers, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nobody'"):
        samplers.Nobody
