"""A model run by OpenVINO GenAI, whose requests advance together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field
import os
from pathlib import Path
import threading
import time
from typing import Any
from typing import TYPE_CHECKING

from .schema_regex import schema_regex


if TYPE_CHECKING:
    import openvino_genai

# Contexts whose keys and values fit into memory: what requests need at the same time, and the
# prefixes that later ones begin with.
_CONTEXTS_KEPT = 3
_STEP_TOKENS = 1024  # at most in a step; a prompt in the default steps of 256 takes a sixth longer
_BLOCK_TOKENS = 32  # in one of the blocks that OpenVINO divides that memory into on a CPU
_BREAK_SECONDS = 0.001


@dataclass
class Request:
    handle: Any
    has_schema: bool
    done: threading.Event = field(default_factory=threading.Event)
    failure: str | None = None
    bad_schema: bool = False  # which is why it failed


class TooLong(Exception):
    def __init__(self, n_tokens: int) -> None:
        self.n_tokens = n_tokens


class Model:
    """One model, whose requests advance together, a token each at a time."""

    def __init__(self, path: Path, n_threads: int, context_tokens: int) -> None:
        self.name = path.stem
        self.context_tokens = context_tokens
        self._path = path
        self._n_threads = n_threads
        self._next_id = 0
        self._requests: list[Request] = []
        self._n_talking = 0
        self._changed = threading.Condition()
        self._load()
        # OpenVINO sets up its arrays at the first look into one: one thread holds Python's lock and
        # waits for the other, which does so and waits for the lock, if two are the first.
        self.tokens("a")
        threading.Thread(target=self._work, daemon=True).start()

    def _load(self) -> None:
        import openvino_genai

        scheduling = openvino_genai.SchedulerConfig()
        scheduling.enable_prefix_caching = True
        scheduling.max_num_batched_tokens = _STEP_TOKENS
        scheduling.num_kv_blocks = _CONTEXTS_KEPT * self.context_tokens // _BLOCK_TOKENS
        settings = {
            "INFERENCE_NUM_THREADS": self._n_threads,
            # The default of 8 bits writes a fifth slower, and rounds.
            "KV_CACHE_PRECISION": "f16",
        }
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            str(self._path), scheduling, "CPU", settings
        )
        self._tokenizer = self._pipeline.get_tokenizer()

    @contextmanager
    def talking(self) -> Iterator[None]:
        """Let the model wait while a client is talked to, which takes a few milliseconds.

        Each step holds Python's lock, and a thread has to get it back after every bit that it reads
        or writes: beside a long prompt a count of tokens took 0.4 s in the mean, and takes 0.2.
        """
        with self._changed:
            self._n_talking += 1
        try:
            yield
        finally:
            with self._changed:
                self._n_talking -= 1
                self._changed.notify_all()

    @property
    def n_requests(self) -> int:
        """Number of requests that wait for their replies."""
        return len(self._requests)

    def tokens(self, text: str) -> list[int]:
        ids = self._tokenizer.encode(text, add_special_tokens=False).input_ids
        return [int(token) for token in ids.data[0]]

    def ask(self, body: dict[str, Any]) -> tuple[Request, int]:
        """Put a request among those that advance: it and the tokens of its prompt."""
        messages = [{"role": m["role"], "content": m["content"]} for m in body["messages"]]
        prompt = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        ids = self._tokenizer.encode(prompt, add_special_tokens=False).input_ids
        n_tokens = int(ids.shape[1])
        if n_tokens >= self.context_tokens:
            raise TooLong(n_tokens)
        settings = _settings(body, self.context_tokens - n_tokens)
        with self._changed:
            self._next_id += 1
            handle = self._pipeline.add_request(self._next_id, ids, settings)
            request = Request(handle, "response_format" in body)
            self._requests.append(request)
            self._changed.notify_all()
        return request, n_tokens

    def reply(self, request: Request) -> tuple[str, int, bool]:
        """Return a finished request's text, its tokens, and whether it was cut off."""
        from openvino_genai import GenerationFinishReason

        [output] = request.handle.read_all()
        ids = list(output.generated_ids)
        return (
            self._tokenizer.decode(ids),
            len(ids),
            output.finish_reason == GenerationFinishReason.LENGTH,
        )

    def _work(self) -> None:
        try:
            self._advance()
        finally:  # not even a new start helped: the next request finds the process gone
            os._exit(1)

    def _advance(self) -> None:
        from openvino_genai import GenerationStatus

        while True:
            time.sleep(_BREAK_SECONDS)  # for others to get Python's lock, and to say so
            with self._changed:
                self._changed.wait_for(lambda: self._requests and not self._n_talking)
            try:
                self._pipeline.step()
            except RuntimeError as error:
                self._start_anew(str(error))
                continue
            with self._changed:
                finished = [
                    r for r in self._requests if r.handle.get_status() != GenerationStatus.RUNNING
                ]
                self._requests = [r for r in self._requests if r not in finished]
            for request in finished:
                if request.handle.get_status() == GenerationStatus.IGNORED:
                    request.failure = "other requests have all of the model's memory"
                request.done.set()

    def _start_anew(self, failure: str) -> None:
        """Start anew: after an error, as of an impossible schema, each further step fails too."""
        with self._changed:
            failed, self._requests = self._requests, []
            self._load()
        for request in failed:
            request.failure = failure
            # Of several it may be another one's. Asked again it is the only one, or succeeds.
            request.bad_schema = request.has_schema and len(failed) == 1
            request.done.set()


def _settings(body: dict[str, Any], room: int) -> openvino_genai.GenerationConfig:
    import openvino_genai

    settings = openvino_genai.GenerationConfig()
    asked = body.get("max_tokens") or body.get("max_completion_tokens") or room
    settings.max_new_tokens = min(int(asked), room)
    temperature = float(body.get("temperature", 1.0))
    settings.do_sample = temperature > 0
    if settings.do_sample:
        # All but the temperature as llama.cpp's server has it by default, so that a model answers
        # alike in both.
        settings.temperature = temperature
        settings.top_k, settings.top_p, settings.min_p = 40, 0.95, 0.05
        seed = body.get("seed")
        settings.rng_seed = int.from_bytes(os.urandom(4), "big") if seed is None else int(seed)
    form = body.get("response_format")
    if form is not None:
        try:
            # OpenVINO's own handling of schemas allows any whitespace between the parts, which a
            # small model does not stop to write, and numbers that are no JSON, such as 05.
            regex = schema_regex(form["json_schema"]["schema"])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"this schema can't be followed: {error}") from error
        settings.structured_output_config = openvino_genai.StructuredOutputConfig(regex=regex)
    return settings
