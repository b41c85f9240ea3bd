"""The trials as rows of a table: which of them a prompt shows, in which order, and what of each.

Before the last cut come the best, the best first and each with its near-copies, then the others that
tell most: failures, and successes far from all of these. Since then come all, the oldest first. The
first part changes only when the second is cut back and the second grows at its end, so that a
server's prefix cache holds the table from turn to turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from optuna.distributions import CategoricalDistribution

from .._trials.history import effective_params
from .._trials.history import finished_trials
from .._trials.history import is_failure
from .._trials.history import latest_failures
from .._trials.history import number
from .._trials.history import ranked
from .._trials.history import sign_of
from .._trials.history import violation
from .prompt import csv_field
from .prompt import format_header
from .prompt import format_row
from .prompt import grown
from .prompt import label
from .prompt import window_start
from .record import proposer_of
from .reply import configuration_key
from .values import format_number
from .values import format_value
from .values import pooled_sd
from .values import position
from .values import value_digits


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from .._trials.history import Derived
    from .._trials.history import Rule
    from .prompt import Extent

# Two configurations are near-copies if no number differs by more than this share of its range.
_NEAR = 0.03
# The best trials that are grouped, those among which far ones are looked for, and the earlier ones
# that a trial may have been made from.
_N_GROUPED = 60
_N_FAR_AMONG = 200
_N_EARLIER = 200
# Changes and copies that are named.
_MOST_NAMED = 4
# Successes among which repetitions are looked for.
_N_REPEATED = 200
# Columns of side data: a script may print any number of numbers.
_MOST_SIDE_DATA = 8
# A column whose values are closer than this share of the largest tells nothing.
_VARIES = 0.01
_MISSING = object()  # no choice of any parameter


class Table:
    """The finished trials of a study, to be shown at any extent.

    Args:
        study: The study.
        space: The parameters.
        rule: The objective's own rule.
        derived: Further numbers that follow from the parameters, as columns.
        side_data: Names of trials' attributes that are numbers, as columns, or whether one is.
        noise: Standard deviation of the value on repetition, for the digits that are shown; by
            default that of the trials that repeat one another.
    """

    def __init__(
        self,
        study: Study,
        space: Mapping[str, BaseDistribution],
        *,
        rule: Rule | None = None,
        derived: Derived | None = None,
        side_data: Sequence[str] | Callable[[str], bool] = (),
        noise: float | None = None,
    ) -> None:
        self._study, self._space, self._rule, self._derived = study, space, rule, derived
        self._side_data = side_data
        self._sign = sign_of(study.direction)
        self.finished = finished_trials(study)
        self.best = ranked(study, self.finished)
        # Values of each configuration among the best that was run more than once.
        self.repeated = self._repetitions()
        # As it was told, else as it was measured; 0 if nobody knows.
        self.noise = noise or pooled_sd(self.repeated)
        self.digits = value_digits([t.values[0] for t in self.best], self.noise)
        # By trial; a table is written at several extents until one fits.
        self._texts: dict[int, dict[str, str]] = {}
        self._points: dict[int, np.ndarray] = {}
        self._origins: dict[int, tuple[FrozenTrial, list[str]] | None] = {}

    def key(self, trial: FrozenTrial) -> tuple[str, ...]:
        """What is equal for trials that ran the same configuration."""
        space = {n: d for n, d in self._space.items() if n in trial.params}
        others = (f"{name} {text}" for name, text in sorted(self._others(trial).items()))
        return (*configuration_key(trial.params, space, self._rule), *others)

    def _others(self, trial: FrozenTrial) -> dict[str, str]:
        """A trial's parameters that are no columns since not all trials have them, as text."""
        return {
            name: format_value(trial.params[name], distribution)
            for name, distribution in trial.distributions.items()
            if name not in self._space and not distribution.single()
        }

    def shows_all_of(self, trial: FrozenTrial) -> bool:
        """Whether the columns are what a trial ran: it has them all, and no others."""
        return trial.params.keys() >= self._space.keys() and not self._others(trial)

    def _repetitions(self) -> list[list[float]]:
        groups: dict[tuple[str, ...], list[float]] = {}
        for trial in self.best[:_N_REPEATED]:
            if trial.params:
                groups.setdefault(self.key(trial), []).append(trial.values[0])
        return [values for values in groups.values() if len(values) > 1]

    def lines(self, extent: Extent, fullest: bool = False) -> list[str]:
        """Write the header and the rows; with ``fullest`` as many as there will be, see ``fit``."""
        start = window_start(len(self.finished), extent)
        older, since = self.finished[:start], self.finished[start:]
        if not extent.details:
            best = sorted(ranked(self._study, older)[: extent.best], key=lambda t: t.number)
            rows = [self.row(t) for t in [*best, *since]]
            return [
                format_header(self._space),
                *(grown(rows, extent.most_rows + extent.best) if fullest else rows),
            ]
        groups = self.groups(older)[: extent.best]
        scored = {t.number for t in ranked(self._study, older)}
        failed = [t for t in older if t.number not in scored]
        others = latest_failures(failed, extent.others)
        others += self._far(older, [t for group in groups for t in group], extent.others)
        leaders = [group[0] for group in groups]
        columns = self._columns([*leaders, *others, *since])

        def row(trial: FrozenTrial, copies: Sequence[FrozenTrial] = ()) -> str:
            return self._detailed_row(trial, columns, copies)

        tables = [
            (
                f"The best of trials 0 to {older[-1].number}, the best first:" if older else "",
                [row(group[0], group[1:]) for group in groups],
            ),
            (
                "Others of them, failed or far from the best:",
                [row(t) for t in sorted(others, key=lambda t: t.number)],
            ),
            ("Since then, the oldest first:" if older else "", [row(t) for t in since]),
        ]
        if fullest:
            rows = [line for _, part in tables for line in part]
            longer = grown(rows, extent.most_rows + extent.best + 2 * extent.others)
            tables[-1][1].extend(longer[len(rows) :])
        titled = [[title, *part] if title else part for title, part in tables if part]
        header = format_header(self._space, [*columns[0]], [*columns[1], "note"])
        return [header, *(line for part in titled for line in part)]

    def row(self, trial: FrozenTrial) -> str:
        """Write a trial's parameters and its value, as in the table without details."""
        return format_row(trial, self._space, self._rule, self.digits)

    def groups(self, trials: Sequence[FrozenTrial]) -> list[list[FrozenTrial]]:
        """Group the best of the trials with their near-copies, the best of each and of all first."""
        groups: list[list[FrozenTrial]] = []
        for trial in ranked(self._study, trials)[:_N_GROUPED]:
            x = self._point(trial)
            for group in groups:
                is_near = np.max(np.abs(x - self._point(group[0])), initial=0.0) <= _NEAR
                if is_near and self._others(trial) == self._others(group[0]):
                    group.append(trial)
                    break
            else:
                groups.append([trial])
        return groups

    def origin(self, trial: FrozenTrial) -> tuple[FrozenTrial, list[str]] | None:
        """Return the earlier trial that one differs least from, and in which parameters.

        Whoever proposed it most likely changed that one. ``None`` if it differs from all in too
        many to say so.
        """
        if trial.number not in self._origins:
            self._origins[trial.number] = self._find_origin(trial)
        return self._origins[trial.number]

    def _find_origin(self, trial: FrozenTrial) -> tuple[FrozenTrial, list[str]] | None:
        own = self._text(trial)
        most = max(1, len(self._space) // 2)
        found = None
        for other in [t for t in self.finished if t.number < trial.number][-_N_EARLIER:]:
            text = self._text(other)
            names = {**dict.fromkeys(self._space), **text, **own}
            changed = [name for name in names if own.get(name) != text.get(name)]
            is_bad = is_failure(other) or not other.values or violation(other)
            loss = np.inf if is_bad else other.values[0] * self._sign
            key = (len(changed), loss)
            if len(changed) <= most and (found is None or key <= found[0]):
                found = (key, other, changed)
        return None if found is None else found[1:]

    def _far(
        self, older: Sequence[FrozenTrial], known: Sequence[FrozenTrial], n: int
    ) -> list[FrozenTrial]:
        """The successes that are farthest from the known ones and from each other."""
        numbers = {t.number for t in known}
        others = ranked(self._study, older)[:_N_FAR_AMONG]
        others = [t for t in others if t.number not in numbers]
        if not others or not known:
            return []
        points = np.array([self._point(t) for t in others])  # (n_others, d)
        near = np.array([self._point(t) for t in known])  # (n_known, d)
        distances = np.abs(points[:, None] - near[None]).mean(axis=2).min(axis=1)  # (n_others,)
        far = []
        for _ in range(min(n, len(others))):
            farthest = int(np.argmax(distances))
            if distances[farthest] <= _NEAR:
                break
            far.append(others[farthest])
            new = np.abs(points - points[farthest]).mean(axis=1)
            distances = np.minimum(distances, new)
        return far

    def _point(self, trial: FrozenTrial) -> np.ndarray:
        """A configuration in the unit cube, (d,); what it lacks is at -1, choices 1 apart."""
        if trial.number not in self._points:
            params = effective_params(trial, self._rule)
            x: list[float] = []
            for name, distribution in self._space.items():
                if isinstance(distribution, CategoricalDistribution):
                    value = params.get(name, _MISSING)
                    x += [float(value is c or value == c) for c in distribution.choices]
                else:
                    x.append(position(params[name], distribution) if name in params else -1.0)
            self._points[trial.number] = np.array(x)
        return self._points[trial.number]

    def _text(self, trial: FrozenTrial) -> dict[str, str]:
        if trial.number not in self._texts:
            params = effective_params(trial, self._rule)
            self._texts[trial.number] = {
                n: format_value(params[n], d) for n, d in self._space.items() if n in params
            } | self._others(trial)
        return self._texts[trial.number]

    def _numbers(self, trial: FrozenTrial) -> tuple[dict[str, float], dict[str, float]]:
        """A trial's derived values, and its side data."""
        derived: dict[str, float] = {}
        if self._derived is not None and trial.params.keys() >= self._space.keys():
            found = self._derived(effective_params(trial, self._rule))
            derived = {name: float(value) for name, value in found.items()}
        attributes = trial.user_attrs
        wanted = self._side_data
        side = {
            name: number(attributes[name])
            for name in (sorted(filter(wanted, attributes)) if callable(wanted) else wanted)
            if isinstance(attributes.get(name), (int, float))
        }
        return derived, side

    def _columns(self, trials: Sequence[FrozenTrial]) -> tuple[list[str], list[str]]:
        """The derived values and the side data that vary among the trials."""
        numbers = [self._numbers(t) for t in trials]
        derived, side = ([pair[i] for pair in numbers] for i in (0, 1))
        return _varying(derived), _varying(side)[:_MOST_SIDE_DATA]

    def _detailed_row(
        self,
        trial: FrozenTrial,
        columns: tuple[Sequence[str], Sequence[str]],
        copies: Sequence[FrozenTrial],
    ) -> str:
        derived, side = self._numbers(trial)
        before = [format_number(derived[n]) if n in derived else "" for n in columns[0]]
        after = [format_number(side[n]) if n in side else "" for n in columns[1]]
        notes = [proposer_of(trial)]
        if (origin := self.origin(trial)) is not None:
            notes.append(f"#{origin[0].number} with other {_few([*map(label, origin[1])])}")
        if copies:
            named = [f"#{t.number} {t.values[0]:.{self.digits}g}" for t in copies]
            notes.append(f"near-copies {_few(named)}")
        note = csv_field("; ".join(filter(None, notes)))
        return format_row(
            trial, self._space, self._rule, self.digits, before=before, after=[*after, note]
        )


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return " ".join(names[:_MOST_NAMED]) + more


def _varying(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """The names whose values differ, in the order in which they come."""
    names = dict.fromkeys(name for row in rows for name in row)
    varying = []
    for name in names:
        values = [row[name] for row in rows if name in row and np.isfinite(row[name])]
        if values and max(values) - min(values) > _VARIES * max(map(abs, values)):
            varying.append(name)
    return varying
