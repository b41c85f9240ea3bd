"""Language models by the short names that the command line takes."""

from __future__ import annotations

from dataclasses import dataclass
import os
from pathlib import Path
from typing import TYPE_CHECKING

from .address import checked_url
from .address import is_loopback
from .chat import NoChatFound
from .client import OPENAI_KEY
from .connect import open_embedded
from .masking import mask_all
from .openai_chat import OPENAI_URL
from .openai_chat import OpenAIChat


if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Preset:
    """A server that people name rather than spell out.

    Attributes:
        base_url: Its OpenAI-compatible address.
        key_variable: Environment variable that holds its key; servers of one's own need none.
    """

    base_url: str
    key_variable: str

    @property
    def model(self) -> str | None:
        """The model that ``OPENAI_MODEL`` names, if it is about this server."""
        if self.key_variable != OPENAI_KEY:
            return None
        usual = os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
        # Any other server on this machine, the embedded model's too, lists its one model.
        if is_loopback(self.base_url) and self.base_url != checked_url(usual):
            return None
        return os.environ.get("OPENAI_MODEL") or None


PRESETS = {
    "openai": Preset(OPENAI_URL, OPENAI_KEY),
    "anthropic": Preset("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
    "gemini": Preset("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    "mistral": Preset("https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "groq": Preset("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "openrouter": Preset("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "deepseek": Preset("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    "vllm": Preset("http://127.0.0.1:8000/v1", "VLLM_API_KEY"),
    "ollama": Preset("http://127.0.0.1:11434/v1", "OLLAMA_API_KEY"),
}


def preset_of(spec: str) -> Preset | None:
    """Return the server of this name or address; ``None`` if it is neither.

    Raises:
        ChatSettingError: If the address can't be one.
    """
    if not ("://" in spec or spec.strip("'\" ").startswith(("http:", "https:"))):
        return PRESETS.get(spec)
    address = checked_url(spec)
    at_it = (preset for preset in PRESETS.values() if preset.base_url == address)
    with_key = (preset for preset in at_it if os.environ.get(preset.key_variable))
    return next(with_key, Preset(address, OPENAI_KEY))


def open_chat(
    spec: str, *, model: str | None = None, make: Callable[..., OpenAIChat] = OpenAIChat
) -> OpenAIChat:
    """Open a model by a short name.

    Args:
        spec: ``"local"`` (the embedded model), a name in ``PRESETS``, a base URL, or
            the path of a GGUF file. The key is read from the preset's environment variable, of
            another base URL from ``OPENAI_API_KEY``.
        model: Name of the model; by default `Preset.model`, else the only one that the server
            lists.
        make: Makes the connection, see ``default_chat``.

    Raises:
        NoChatFound: If the spec is none of these, the embedded model is not installed, or a
            preset's key is missing.
    """
    if spec == "local":
        return open_embedded(make=make)
    preset = preset_of(spec)
    if preset is not None:
        has_key = is_loopback(preset.base_url) or os.environ.get(preset.key_variable)
        if spec in PRESETS and not has_key:
            raise NoChatFound(
                f"The key of {spec} must be in the environment variable {preset.key_variable}, which "
                "is not set."
            )
        named = model or preset.model
        return make(named, base_url=preset.base_url, key_variable=preset.key_variable)
    if spec.endswith(".gguf"):
        return open_embedded(Path(spec), make=make)
    shown = "***" if "@" in spec else spec  # of what is no address nobody knows the password
    raise NoChatFound(
        f"A language model must be local, {', '.join(PRESETS)}, a base URL that begins with "
        f"http:// or https://, or the path of a .gguf file, but got {mask_all(shown)!r}."
    )
