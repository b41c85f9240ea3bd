"""The objective's own rule: from suggested values to the ones that a script is run with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from functools import cached_property
import math
from typing import Any

from graphlib import TopologicalSorter


@dataclass(frozen=True)
class Rule:
    """A function from suggested to effective values, as the samplers' ``rule`` argument takes it.

    Names without a rule pass unchanged, and names that were not suggested are not added. Those that
    a value depends on count as they are run, not as they were suggested. With the paper's table
    HEAD_DIM, DEVICE_BATCH_SIZE and TOTAL_BATCH_SIZE are powers of two, and TOTAL_BATCH_SIZE >=
    DEVICE_BATCH_SIZE * MAX_SEQ_LEN.

    Attributes:
        powers_of_two: Integer parameters that become the nearest power of two (linear distance,
            ties down).
        at_least: Integer parameters that are then raised to the product of others, if it is
            larger: names of parameters or of constants.
        constants: Values of the factors and of the conditions' parameters that are not among the
            suggested ones, and the defaults.
        only_when: Parameters that count only if others have one of the given values; else they
            are run at their default, so that configurations that differ in nothing else are one.
    """

    powers_of_two: tuple[str, ...] = ()
    at_least: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    only_when: Mapping[str, Mapping[str, tuple[Any, ...]]] = field(default_factory=dict)

    def __call__(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the effective values of these suggested ones, which stay as they are."""
        # Samplers leave parameters of a single value out of what they ask about.
        known = {**self.constants, **params}
        for name in self.order:
            if name not in known:
                continue
            conditions = self.only_when.get(name, {})
            if not all(known.get(other) in allowed for other, allowed in conditions.items()):
                known[name] = self.constants[name]
            if name in self.powers_of_two:
                known[name] = nearest_power_of_two(known[name])
            if factors := self.at_least.get(name):
                known[name] = max(known[name], math.prod(known[factor] for factor in factors))
        return {name: known[name] for name in params}

    @cached_property
    def order(self) -> list[str]:
        """The parameters that have a rule, each behind those that its own depends on.

        Raises:
            graphlib.CycleError: If one depends on itself.
        """
        ruled = dict.fromkeys((*self.powers_of_two, *self.at_least, *self.only_when))
        graph = {n: (*self.at_least.get(n, ()), *self.only_when.get(n, ())) for n in ruled}
        return [name for name in TopologicalSorter(graph).static_order() if name in ruled]

    @classmethod
    def from_rows(
        cls, rows: Mapping[str, Mapping[str, Any]], constants: Mapping[str, Any]
    ) -> Rule:
        """Make a rule from ``power_of_two``, ``at_least`` and ``when`` of parameters, if any."""
        return cls(
            tuple(name for name, row in rows.items() if row.get("power_of_two")),
            {name: tuple(row["at_least"]) for name, row in rows.items() if row.get("at_least")},
            constants,
            {
                name: {other: tuple(values) for other, values in row["when"].items()}
                for name, row in rows.items()
                if row.get("when")
            },
        )

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return what :meth:`from_rows` takes, as JSON can hold it."""
        return {
            name: {
                "power_of_two": name in self.powers_of_two,
                "at_least": list(self.at_least.get(name, ())),
                **({"when": dict(self.only_when[name])} if name in self.only_when else {}),
            }
            for name in self.order
        }


def nearest_power_of_two(value: int) -> int:
    """Return the power of two at the smallest distance, the lower of two: 48 -> 32, 49 -> 64."""
    if value <= 1:
        return 1
    below = 1 << (int(value).bit_length() - 1)
    return below if value - below <= 2 * below - value else 2 * below
