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


def test_the_environment_names_the_model_of_servers_with_openais_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_MODEL", "mine")
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, "key-of-tests")
    for spec in ("openai", "https://example.org/v1"):
        assert "'mine'" in repr(open_chat(spec))
        assert "'another'" in repr(open_chat(spec, model="another"))
    here = "http://127.0.0.1:9/v1"  # where the embedded model is shared, too
    assert not any("mine" in repr(open_chat(spec)) for spec in ("anthropic", "ollama", here))
    monkeypatch.setenv("OPENAI_BASE_URL", f"{here}/")
    assert "'mine'" in repr(open_chat(here))


def test_an_address_of_a_preset_gets_the_presets_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-openai")
    for address in (
        "https://openrouter.ai/api/v1",
        "https://openrouter.ai/api/v1/chat/completions/",
    ):
        monkeypatch.setenv("OPENROUTER_API_KEY", "key-of-openrouter")
        assert open_chat(address, model="m")._client.key() == "key-of-openrouter"
        monkeypatch.delenv("OPENROUTER_API_KEY")  # who has set one key only means that
        assert open_chat(address, model="m")._client.key() == "key-of-openai"


def test_a_preset_without_its_key_is_refused_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    with pytest.raises(NoChatFound, match="of gemini must be in .* GEMINI_API_KEY, which is not"):
        open_chat("gemini", model="m")
