"""The reading of a chat completion: what isn't as it should be is left out, here and once."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import json
from pathlib import PurePosixPath
import re
from typing import Any

from .chat import ChatError
from .chat import Completion
from .failures import shorten
from .tokens import as_tokens


# Thoughts that a server leaves in the text; of Mistral's models in brackets, of Kimi
# in triangles.
_TAG = re.compile(
    r"<(/?)(?:think|thinking|thought|reasoning|reflection)>|\[(/?)THINK\]|\u25c1(/?)think\u25b7"
)
_MOST_NAME_CHARS = 200


def read_completion(
    answer: Mapping[str, Any], asked: str, clean: Callable[[str], str]
) -> Completion:
    """Read an answer.

    Args:
        answer: The body of an answer with choices.
        asked: The model that was asked, for answers without a name.
        clean: Function that makes a server's text fit to be stored.

    Raises:
        ChatError: If the model refuses to answer, or a filter took the answer out.
    """
    choice = (records(answer, "choices") or [{}])[0]
    message = _mapping(choice.get("message"))
    text, reasoning = _split_reasoning(message)
    text = text or _elsewhere(choice, message)
    usage = _mapping(answer.get("usage"))
    prompt_tokens = as_tokens(usage.get("prompt_tokens"))
    cached = (
        as_tokens(
            _mapping(usage.get("prompt_tokens_details")).get("cached_tokens")
        )  # most servers
        or as_tokens(usage.get("prompt_cache_hit_tokens"))  # DeepSeek
        or as_tokens(_mapping(answer.get("timings")).get("cache_n"))  # older llama.cpp
    )
    details = _mapping(usage.get("completion_tokens_details"))
    reasoning_tokens = as_tokens(details.get("reasoning_tokens"))
    # Gemini and some gateways leave the thoughts out, which are charged all the same.
    rest = as_tokens(usage.get("total_tokens")) - prompt_tokens if prompt_tokens else 0
    written = max(as_tokens(usage.get("completion_tokens")), rest, reasoning_tokens)
    model = answer.get("model")
    name = model_name(model, clean) if isinstance(model, str) else ""
    completion = Completion(
        clean(text),
        clean(reasoning),
        # llama.cpp gives a path where it was not told a name.
        model=name or asked,
        prompt_tokens=prompt_tokens,
        cached_tokens=min(cached, prompt_tokens) if prompt_tokens else cached,
        completion_tokens=written,
        reasoning_tokens=reasoning_tokens,
        truncated=choice.get("finish_reason") == "length",
    )
    error = None
    if not text and isinstance(message.get("refusal"), str) and message["refusal"]:
        said = shorten(" ".join(clean(message["refusal"]).split()))
        error = ChatError(f"The model refuses to answer: {said}")
    elif not text and choice.get("finish_reason") == "content_filter":
        error = ChatError("The server's filter for contents took the answer out.")
    if error is not None:
        error.completion = completion
        raise error
    return completion


def records(answer: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the objects of a list in an answer."""
    values = answer.get(name)
    return [v for v in values if isinstance(v, dict)] if isinstance(values, list) else []


def model_name(name: str, clean: Callable[[str], str]) -> str:
    """Return a model's name, of a path the last part, in one line."""
    # Half a key at the end would not be found, so more is cleaned than is shown. But not all: a name
    # of megabytes takes seconds.
    name = " ".join(clean(name[: 10 * _MOST_NAME_CHARS]).split())
    last = PurePosixPath(name).name if name.endswith(".gguf") else name
    return last[:_MOST_NAME_CHARS].strip()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _split_reasoning(message: Mapping[str, Any]) -> tuple[str, str]:
    """Split a message into its text and the reasoning before it.

    Servers have a field or blocks for the reasoning, leave it in the text within tags, or do so with
    the opening tag left out because it was part of the prompt. A model that was held to a schema
    while it was thinking has its reply in the field of the reasoning, and no text.
    """
    content, thoughts = _blocks(message.get("content"))
    text, tagged = _untag(content)
    told = message.get("reasoning_content") or message.get("reasoning")
    said = [told if isinstance(told, str) else "", *thoughts, *tagged]
    reasoning = "\n".join(filter(None, said)).strip()
    if not text and reasoning.startswith("{") and reasoning.endswith("}"):
        text = reasoning
    return text, reasoning


def _blocks(content: Any) -> tuple[str, list[str]]:
    """Return the text and the thoughts of a message's content: a text, or a list of blocks."""
    if isinstance(content, dict):
        content = [content] if content.keys() & {"type", "text"} else _as_text(content)
    if not isinstance(content, list):
        return (content if isinstance(content, str) else ""), []
    texts, thoughts = [], []
    for block in content:
        if isinstance(block, str):
            texts.append(block)
        elif isinstance(block, dict):
            kind = str(block.get("type", "text"))
            if "thinking" in kind or "reasoning" in kind:
                inner = block.get("thinking") or block.get("reasoning") or block.get("text")
                if isinstance(inner, list):
                    inner = _blocks(inner)[0] if all(map(_is_plain, inner)) else ""
                thoughts.append(inner if isinstance(inner, str) else "")
            elif isinstance(block.get("text"), str):
                texts.append(block["text"])
    return "".join(texts), thoughts


def _elsewhere(choice: Mapping[str, Any], message: Mapping[str, Any]) -> str:
    """Return a reply that stands beside the message's content.

    Gateways to a model without schemas make it call a function, whose arguments are the reply; the
    text of a choice without a message is that of the older interface.
    """
    calls = [_mapping(call.get("function")) for call in records(message, "tool_calls")]
    calls.append(_mapping(message.get("function_call")))
    said = [_as_text(call.get("arguments")) for call in calls]
    return next(filter(None, [*said, _as_text(choice.get("text"))]), "")


def _as_text(value: Any) -> str:
    """Return a text, or an object as the JSON that it was before a gateway read it."""
    if not isinstance(value, dict):
        return value if isinstance(value, str) else ""
    try:
        return json.dumps(value)
    except RecursionError:
        return ""


def _is_plain(block: Any) -> bool:
    """Whether a block has no blocks of its own, of which there might be any number."""
    return not (isinstance(block, dict) and isinstance(block.get("thinking"), list))


def _untag(text: str) -> tuple[str, list[str]]:
    """Return a text without what stands within tags, and that. Each character is read once."""
    outside: list[str] = []
    thoughts: list[str] = []
    thinking = False
    start = 0
    for tag in _TAG.finditer(text):
        closing = bool(tag[1] or tag[2] or tag[3])
        if thinking and not closing:  # within a thought an opening tag is but text
            continue
        piece = text[start : tag.start()]
        if closing and not thinking:  # its opening tag was part of the prompt
            thoughts += [*outside, piece]
            outside = []
        else:
            (thoughts if thinking else outside).append(piece)
        thinking, start = not closing, tag.end()
    (thoughts if thinking else outside).append(text[start:])  # cut off while thinking
    return "".join(outside).strip(), [thought.strip() for thought in thoughts]
