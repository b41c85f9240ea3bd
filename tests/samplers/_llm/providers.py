"""Servers of language models, played by name as their documentation and public reports say.

Each is a function from a request, and the number of requests before it, to an answer; mishaps come
at intervals, so that a study meets them in the middle. Replies are random valid ones.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
import json
import random
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from samplers import KarpathyAgentSampler
from samplers import OpenAIChat
from samplers._llm.reply import params_schema
from samplers._llm.schema_chat import random_value

from .conftest import Answer
from .conftest import LoopbackServer
from .conftest import refusal
from .conftest import reply


Body = dict[str, Any]
Play = Callable[[Body, int], Answer]

SPACE: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-5, 1.0, log=True),
    "depth": IntDistribution(2, 200),
    "norm": CategoricalDistribution(["batch", "layer"]),
}
N_TRIALS = 30


def configuration(body: Body, n: int) -> str:
    """A valid reply: to the schema if one was sent, else a whole configuration."""
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
    return json.dumps(random_value(schema or params_schema(SPACE), random.Random(n)))


def usage(body: Body, **details: Any) -> dict[str, Any]:
    words = sum(len(message["content"].split()) for message in body["messages"])
    return {"prompt_tokens": words, "completion_tokens": 30, "total_tokens": words + 30, **details}


def sent_format(body: Body) -> Any:
    return body.get("response_format", {}).get("type")


def is_strict(body: Body) -> bool:
    return bool(body.get("response_format", {}).get("json_schema", {}).get("strict"))


def openai(body: Body, n: int) -> Answer:
    if n % 7 == 5:
        said = (
            "Rate limit reached for gpt on requests per min (RPM): Limit 3, Used 3, Requested 1."
        )
        return Answer({"error": {"message": said, "type": "requests", "code": "rate_limit_exceeded"}}, 429, {"Retry-After": "0.01"})  # fmt: skip
    cached = {"prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0}}
    return reply(configuration(body, n), refusal=None, usage=usage(body, **cached))


def openai_reasoning(body: Body, n: int) -> Answer:
    if "max_tokens" in body:
        said = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        return refusal(said, param="max_tokens", code="unsupported_parameter")
    if "temperature" in body:
        said = "Unsupported value: 'temperature' does not support 0.7 with this model. Only the default (1) value is supported."
        return refusal(said, param="temperature", code="unsupported_value")
    if body["max_completion_tokens"] < 2000:
        said = "Could not finish the message because max_tokens or model output limit was reached. Please try again with higher max_tokens."
        return refusal(said, type="invalid_request_error")
    thought = {"completion_tokens_details": {"reasoning_tokens": 900}}
    return reply(configuration(body, n), usage=usage(body, **thought))


def azure(body: Body, n: int) -> Answer:
    if is_strict(body):
        said = "Invalid schema for response_format 'reply': In context=('properties', 'lr'), 'minimum' is not permitted."
        return refusal(said, param="response_format", type="invalid_request_error")
    if n % 9 == 4:
        return Answer({"error": {"code": "429", "message": "Requests to the ChatCompletions_Create Operation have exceeded call rate limit."}}, 429, {"Retry-After": "0"})  # fmt: skip
    answer = reply(configuration(body, n), usage=usage(body))
    answer.body["choices"][0]["content_filter_results"] = {"hate": {"filtered": False}}
    return answer


def anthropic(body: Body, n: int) -> Answer:
    if body["max_tokens"] > 8192:
        said = f"max_tokens: {body['max_tokens']} > 8192, which is the maximum allowed number of output tokens for claude-x-20241022"
        return Answer({"type": "error", "error": {"type": "invalid_request_error", "message": said}}, 400)  # fmt: skip
    if n % 8 == 3:
        return Answer({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, 529)  # fmt: skip
    text = f"Here is my proposal:\n\n```json\n{configuration(body, n)}\n```\nIt is bolder."
    return reply(text, refusal=None, usage=usage(body))  # response_format is ignored


def gemini(body: Body, n: int) -> Answer:
    def error(status: int, message: str, kind: str) -> Answer:
        return Answer([{"error": {"code": status, "message": message, "status": kind}}], status)

    if "seed" in body:
        said = 'Invalid JSON payload received. Unknown name "seed": Cannot find field.'
        return error(400, said, "INVALID_ARGUMENT")
    if n % 10 == 6:
        return error(503, "The model is overloaded. Please try again later.", "UNAVAILABLE")
    if n % 10 == 8:
        return error(429, "You exceeded your current quota.", "RESOURCE_EXHAUSTED")
    if body["max_tokens"] < 2000:  # all of it is thought, which is not told
        answer = reply(None, finish_reason="length", usage=usage(body))
        del answer.body["choices"][0]["message"]["content"]
        return answer
    # The total has the thoughts, too.
    return reply(configuration(body, n), usage=usage(body, completion_tokens=1))


def mistral(body: Body, n: int) -> Answer:
    if "seed" in body:
        part = {"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted", "input": 1}  # fmt: skip
        return Answer({"object": "error", "message": {"detail": [part]}, "type": "invalid_request_error"}, 422)  # fmt: skip
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Let me see."}]}
    blocks = [thinking, {"type": "text", "text": configuration(body, n)}]
    answer = reply(None, usage=usage(body))
    answer.body["choices"][0]["message"]["content"] = blocks
    return answer


def groq(body: Body, n: int) -> Answer:
    if sent_format(body) == "json_schema":
        return refusal("This model does not support response format `json_schema`. See supported models.", param="response_format")  # fmt: skip
    if sent_format(body) == "json_object" and n % 5 == 2:
        said = "Failed to generate JSON. Please adjust your prompt. See 'failed_generation' for more details."
        return refusal(said, code="json_validate_failed", failed_generation='{"lr": 0.')
    if n % 11 == 9:
        said = "Rate limit reached for model `x` on tokens per minute (TPM): Limit 6000, Used 5900, Requested 500. Please try again in 10ms."
        return Answer({"error": {"message": said, "code": "rate_limit_exceeded"}}, 429)
    return reply(configuration(body, n), usage={**usage(body), "queue_time": 0.1})


def openrouter(body: Body, n: int) -> Answer:
    if n % 6 == 2:
        metadata = {"raw": "upstream is rate-limited", "provider_name": "x"}
        return Answer({"error": {"code": 429, "message": "Provider returned error", "metadata": metadata}})  # fmt: skip
    if n % 6 == 4:
        broken = {"error": {"code": 502, "message": "Upstream error"}, "message": {"content": ""}}
        return Answer({"id": "gen-1", "choices": [broken]})
    answer = reply(configuration(body, n), reasoning="Let me see.", usage=usage(body), model="a/b")
    return Answer("\n   \n\n" + json.dumps(answer.body), headers={"Content-Type": "application/json"})  # fmt: skip


def deepseek(body: Body, n: int) -> Answer:
    if body["max_tokens"] > 8192:
        return refusal("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", type="invalid_request_error")  # fmt: skip
    if sent_format(body) == "json_schema":
        return refusal(
            "This response_format type is unavailable now", code="invalid_request_error"
        )
    if sent_format(body) == "json_object" and "json" not in json.dumps(body["messages"]).lower():
        return refusal("Prompt must contain the word 'json' in some form to use 'response_format' of type 'json_object'.")  # fmt: skip
    cached = {"prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 9}
    if body["max_tokens"] < 2000:  # all of it is thought
        return reply("", reasoning_content="Hmm", finish_reason="length", usage=usage(body))
    text = "" if n % 9 == 7 else configuration(body, n)  # "may occasionally return empty content"
    return reply(text, reasoning_content="Let me see.", usage=usage(body, **cached))


def too_long(body: Body, limit: int) -> bool:
    return sum(len(message["content"]) for message in body["messages"]) / 3 > limit


def vllm(body: Body, n: int) -> Answer:
    if too_long(body, 4096):
        said = (
            "This model's maximum context length is 4096 tokens. However, your request has more."
        )
        return Answer({"object": "error", "message": said, "type": "BadRequestError", "code": 400}, 400)  # fmt: skip
    if n % 7 == 3 and "response_format" in body:
        return Answer({"object": "error", "message": "", "type": "InternalServerError", "code": 500}, 500)  # fmt: skip
    return reply(configuration(body, n), reasoning_content=None, usage={**usage(body), "prompt_tokens_details": None})  # fmt: skip


def llama_cpp(body: Body, n: int) -> Answer:
    if body["messages"][0]["role"] == "system":
        return refusal("Jinja Exception: System role not supported", 500, type="server_error")
    if n % 8 == 5 and "response_format" in body:
        return refusal("Failed to initialize samplers: failed to parse grammar", type="invalid_request_error")  # fmt: skip
    timings = {"cache_n": 40, "prompt_n": 9, "predicted_per_second": 30.5}
    return reply(configuration(body, n), usage=usage(body), timings=timings, model="/m/x-8b.gguf")


def ollama(body: Body, n: int) -> Answer:
    if n == 1:
        return Answer({"error": {"message": "llama runner process has terminated", "type": "api_error"}}, 500)  # fmt: skip
    return reply(
        f"<think>\nLet me see {{.\n</think>\n\n{configuration(body, n)}", usage=usage(body)
    )


def lm_studio(body: Body, n: int) -> Answer:
    if sent_format(body) == "json_object":
        return Answer({"error": "'response_format.type' must be 'json_schema' or 'text'"}, 400)
    if too_long(body, 4096):
        said = "Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens"
        return Answer({"error": said}, 400)
    # The opening tag was part of the prompt.
    return reply(f"Let me see.</think>{configuration(body, n)}", usage=usage(body), stats={})


@dataclass(frozen=True)
class Provider:
    """A server: what it does, for people, and the function that plays it."""

    behaviours: str
    play: Play
    others: Mapping[str, Any] = field(default_factory=dict)


PROVIDERS = {
    "OpenAI": Provider("strict schemas, 429 with Retry-After", openai),
    "OpenAI, reasoning": Provider("no max_tokens, no temperature, no room to think", openai_reasoning),
    "Azure OpenAI": Provider("no bounds in strict schemas, code as text, filter results", azure),
    "Anthropic": Provider("ignores schemas, prose around JSON, cap of max_tokens, 529", anthropic),
    "Gemini": Provider("errors in lists, no seed, hidden thoughts, 429, 503", gemini),
    "Mistral": Provider("422 with loc for seed, content as blocks", mistral),
    "Groq": Provider("no json_schema, failed generations, 429 without Retry-After", groq),
    "OpenRouter": Provider("errors in HTTP 200 and in choices, blank lines before JSON", openrouter),
    "DeepSeek": Provider("no json_schema, cap of max_tokens, empty contents, thoughts", deepseek),
    "vLLM": Provider("context of 4,096, /tokenize, HTTP 500 for a grammar", vllm, {"/v1/models": {"data": [{"id": "m", "max_model_len": 4096}]}, "/tokenize": {"count": 3}}),
    "llama.cpp": Provider("no system role, grammar that can't be parsed, /props", llama_cpp, {"/props": {"default_generation_settings": {"n_ctx": 8192}}}),
    "Ollama": Provider("`<think>` in the text, HTTP 500 once", ollama),
    "LM Studio": Provider("errors as text, no json_object, `</think>` without `<think>`", lm_studio),
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """A study's requests, turns, those of them that the model decided, and what it wrote in them."""

    requests: int
    turns: int
    answered: int
    tokens: int
    others: tuple[str, ...]


def run_study(provider: Provider, n_trials: int = N_TRIALS) -> Outcome:
    """Run a study of which every trial but the first is the model's."""
    server = LoopbackServer()
    server.passes_checks = False
    server.others = {path: Answer(body) for path, body in provider.others.items()}
    server.answers = lambda body: provider.play(body, len(server.requests) - 1)
    try:
        chat = OpenAIChat("m", base_url=server.url, api_key="0123456789abcdef")
        sampler = KarpathyAgentSampler(chat=chat, reply="full", seed=0)
        study = optuna.create_study(sampler=sampler)
        study.optimize(_objective, n_trials=n_trials)
    finally:
        server.close()
    sources = [trial.user_attrs["source"] for trial in study.trials]
    turns = [trial for trial in study.trials if trial.user_attrs["source"].startswith("llm")]
    others = tuple(
        t.user_attrs.get("llm_reason", "") for t in turns if t.user_attrs["source"] != "llm"
    )
    tokens = sum(trial.user_attrs.get("llm_completion_tokens", 0) for trial in turns)
    return Outcome(len(server.requests), len(turns), sources.count("llm"), tokens, others)


def _objective(trial: optuna.Trial) -> float:
    lr = trial.suggest_float("lr", 1e-5, 1.0, log=True)
    depth = trial.suggest_int("depth", 2, 200)
    return (
        lr + abs(depth - 20) + (trial.suggest_categorical("norm", ["batch", "layer"]) == "batch")
    )
