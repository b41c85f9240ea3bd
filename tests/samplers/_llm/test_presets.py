"""Short names of language models."""

from __future__ import annotations

import pytest

from samplers._llm.chat import NoChatFound
from samplers._llm.presets import open_chat


def test_presets_and_addresses_are_told_apart() -> None:
    assert "11434" in repr(open_chat("ollama", model="m"))
    assert "anthropic" in repr(open_chat("anthropic", model="m"))
    assert "example.org" in repr(open_chat("https://example.org/v1/"))
    with pytest.raises(NoChatFound, match="local, openai,.*got 'olama'"):
        open_chat("olama")
    with pytest.raises(NoChatFound, match="there is no .*nowhere.gguf"):
        open_chat("nowhere.gguf")
