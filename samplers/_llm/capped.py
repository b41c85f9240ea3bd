"""A language model that may take so many tokens, or cost so much, and no more."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import replace
from typing import Any
from typing import TYPE_CHECKING

from .chat import BudgetExhausted
from .chat import ChatError
from .openai_chat import OpenAIChat


if TYPE_CHECKING:
    from collections.abc import Iterator

    from .chat import Completion


@dataclass(frozen=True)
class Prices:
    """Prices of a million tokens, in any currency.

    Attributes:
        prompt: Price of prompt tokens.
        completion: Price of the reply's tokens, reasoning included.
        cached: Price of prompt tokens from the cache; by default that of the others.
    """

    prompt: float
    completion: float
    cached: float | None = None

    def cost(self, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> float:
        """Cost of one request."""
        cached = self.prompt if self.cached is None else self.cached
        total = (prompt_tokens - cached_tokens) * self.prompt + cached_tokens * cached
        return (total + completion_tokens * self.completion) / 1e6


@dataclass(frozen=True)
class Usage:
    """Sums over a chat's answered requests."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0

    @property
    def tokens(self) -> int:
        """Tokens of prompts and replies together."""
        return self.prompt_tokens + self.completion_tokens


class CappedChat(OpenAIChat):
    """An ``OpenAIChat`` that counts what it uses, and sends no request that might exceed a cap.

    That is as far as tokens can be counted beforehand; they are counted afterwards where the server
    doesn't tell them. Requests that got no answer are not counted.

    Args:
        *args: As for ``OpenAIChat``.
        prices: Needed for ``usage.cost`` and ``max_cost``; without them every request costs 0.
        max_total_tokens: Cap on the tokens of all requests of this object, and of others that
            ``charge`` tells of; by default none.
        max_cost: Cap on their cost; by default none.
        **options: As for ``OpenAIChat``.

    Raises:
        ValueError: If there is a cap on the cost without prices.
    """

    def __init__(
        self,
        *args: Any,
        prices: Prices | None = None,
        max_total_tokens: int | None = None,
        max_cost: float | None = None,
        **options: Any,
    ) -> None:
        if max_cost is not None and prices is None:
            raise ValueError("`max_cost` needs `prices`, but got none.")
        super().__init__(*args, **options)
        self._prices = prices or Prices(0.0, 0.0)
        self._max_total_tokens = max_total_tokens
        self._max_cost = max_cost
        self._usage = Usage()
        self._elsewhere = 0, 0.0  # tokens and cost

    def _set_up(self) -> None:
        super()._set_up()
        self._reserved = 0, 0.0  # tokens and cost

    @property
    def usage(self) -> Usage:
        """Sums over all requests so far; those of other processes are not in it."""
        with self._lock:
            return self._usage

    def charge(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Count so many tokens in all against the caps: with those that others have used."""
        tokens = prompt_tokens + completion_tokens
        cost = self._prices.cost(prompt_tokens, 0, completion_tokens)
        with self._lock:
            own = self._usage
            self._elsewhere = max(0, tokens - own.tokens), max(0.0, cost - own.cost)

    def _ask(
        self, body: Mapping[str, Any], max_tokens: int, deadline: float, attempts: list[float]
    ) -> Completion:
        with self._within_caps(body, max_tokens):
            try:
                completion = super()._ask(body, max_tokens, deadline, attempts)
            except ChatError as error:
                if error.completion is not None:
                    error.completion = self._with_tokens(error.completion, body)
                    self._add(error.completion)
                raise
            completion = self._with_tokens(completion, body)
            self._add(completion)
        return completion

    def _with_tokens(self, completion: Completion, body: Mapping[str, Any]) -> Completion:
        """Count those tokens of a completion that its server doesn't tell."""
        written = completion.reasoning + completion.text
        return replace(
            completion,
            prompt_tokens=completion.prompt_tokens or self._count(body),
            completion_tokens=completion.completion_tokens or self.count_tokens(written),
        )

    def _count(self, body: Mapping[str, Any]) -> int:
        return sum(self.count_tokens(m["content"]) for m in body["messages"])

    @contextmanager
    def _within_caps(self, body: Mapping[str, Any], max_tokens: int) -> Iterator[None]:
        """Set aside what a request takes at most, so that threads together keep the caps."""
        if self._max_total_tokens is None and self._max_cost is None:
            yield
            return
        prompt = self._count(body)
        tokens = prompt + max_tokens
        cost = self._prices.cost(prompt, 0, max_tokens)
        with self._lock:
            spent = self._usage.tokens + self._elsewhere[0] + self._reserved[0]
            if self._max_total_tokens is not None and spent + tokens > self._max_total_tokens:
                raise BudgetExhausted(
                    f"The language model may use {self._max_total_tokens} tokens; {spent} are "
                    f"used, and the next request may take {tokens}."
                )
            paid = self._usage.cost + self._elsewhere[1] + self._reserved[1]
            if self._max_cost is not None and paid + cost > self._max_cost:
                raise BudgetExhausted(
                    f"The language model may cost {self._max_cost:g}; {paid:.6g} is spent, "
                    f"and the next request may cost {cost:.6g}."
                )
            self._reserve(tokens, cost)
        try:
            yield
        finally:
            with self._lock:
                self._reserve(-tokens, -cost)

    def _reserve(self, tokens: int, cost: float) -> None:
        self._reserved = self._reserved[0] + tokens, self._reserved[1] + cost

    def _add(self, completion: Completion) -> None:
        prompt, cached = completion.prompt_tokens, completion.cached_tokens
        written = completion.completion_tokens
        with self._lock:
            used = self._usage
            self._usage = Usage(
                used.requests + 1,
                used.prompt_tokens + prompt,
                used.cached_tokens + cached,
                used.completion_tokens + written,
                used.cost + self._prices.cost(prompt, cached, written),
            )
