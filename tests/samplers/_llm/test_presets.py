"""Short names of language models."""

from __future__ import annotations

import pytest

from samplers._llm.chat import NoChatFound
from samplers._llm.presets import open_chat


def test_presets_and_addresses_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key-of-tests")
    assert "11434" in repr(open_chat("ollama", model="m"))
    assert "anthropic" in repr(open_chat("anthropic", model="m"))
    assert "example.org" in repr(open_chat("https://example.org/v1/"))
    with pytest.raises(NoChatFound, match="local, openai,.*got 'olama'"):
        open_chat("olama")
    with pytest.raises(NoChatFound, match="there is no .*nowhere.gguf"):
        open_chat("nowhere.gguf")


def test_a_preset_without_its_key_is_refused_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    with pytest.raises(NoChatFound, match="of gemini must be in .* GEMINI_API_KEY, which is not"):
        open_chat("gemini", model="m")
