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
    from .dialect import Request


@dataclass(frozen=True)
class Prices:
    """Prices of a million tokens, in any currency.

    Attributes:
        prompt: Price of prompt tokens.
        completion: Price of the reply's tokens, reasoning included.
    """

    prompt: float
    completion: float

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Cost of so many tokens."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


class CappedChat(OpenAIChat):
    """An ``OpenAIChat`` that counts what it uses, and sends no request that might exceed a cap.

    That is as far as tokens can be counted beforehand; they are counted afterwards where the server
    doesn't tell them. Requests that got no answer are not counted.

    Args:
        *args: As for ``OpenAIChat``.
        prices: Needed for ``max_cost``; without them every request costs 0.
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
        self._used = 0, 0.0  # tokens and cost
        self._elsewhere = 0, 0.0

    def _set_up(self) -> None:
        super()._set_up()
        self._reserved = 0, 0.0

    @property
    def spent(self) -> tuple[int, float]:
        """Tokens and cost so far, with what requests that are under way may take."""
        with self._lock:
            parts = self._used, self._elsewhere, self._reserved
            return sum(tokens for tokens, _ in parts), sum(cost for _, cost in parts)

    def charge(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Count so many tokens in all against the caps: with those that others have used."""
        tokens = prompt_tokens + completion_tokens
        cost = self._prices.cost(prompt_tokens, completion_tokens)
        with self._lock:
            own, paid = self._used
            self._elsewhere = max(0, tokens - own), max(0.0, cost - paid)

    def _ask(self, body: Mapping[str, Any], max_tokens: int, request: Request) -> Completion:
        with self._within_caps(body, max_tokens):
            try:
                completion = super()._ask(body, max_tokens, request)
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
        cost = self._prices.cost(prompt, max_tokens)
        with self._lock:
            spent, paid = self.spent
            if self._max_total_tokens is not None and spent + tokens > self._max_total_tokens:
                raise BudgetExhausted(
                    f"The language model may use {self._max_total_tokens} tokens; {spent} are "
                    f"used, and the next request may take {tokens}."
                )
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
        prompt, written = completion.prompt_tokens, completion.completion_tokens
        cost = self._prices.cost(prompt, written)
        with self._lock:
            self._used = self._used[0] + prompt + written, self._used[1] + cost
