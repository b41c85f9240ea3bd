"""The prompt for one trial's parameters, of the same parts for every sampler that asks.

What stays the same comes first (task, parameters, older trials), what changes comes last (the best,
failures, what else is known, the question), so that a server's prefix cache serves most of it.
A section without anything to say is left out. Small models get the table and the question alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property
import math
from typing import Any
from typing import TYPE_CHECKING

from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState

from .._trials.announced import values_so_far
from .._trials.history import effective_params
from .._trials.history import tolerant
from .._trials.internals import cached_trials
from .prompt import describe_search_space
from .prompt import DETAILED
from .prompt import EXTENTS
from .prompt import format_failures
from .prompt import format_outcome
from .prompt import format_params
from .prompt import label
from .prompt import message
from .prompt import shorten
from .record import LLM
from .record import source_of
from .table import Table
from .values import fit_value
from .values import format_value
from .values import pooled_sd
from .values import ValueRefused


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from .._trials.history import Derived
    from .._trials.history import Rule
    from .chat import Message
    from .prompt import Extent

_DEFAULT_TASK = "The parameters' names are all that is known of it."

# Groups of the best for what is at a bound.
_N_AT_BOUND = 5
_N_BEST = 10
_N_RUNNING = 6
_N_REASONS = 3

# Trials without a better one before the search counts as stuck; and the part of the plan, and the
# model's own trials, that are left when it is to end.
_STUCK = 15
_END = 0.1
_LAST_TURNS = 2
_FEW = 6

_LEGEND = (
    "The note says who proposed a trial (given: the user; steps: small steps from the best) and which "
    "earlier trial it differs least from."
)
_START = (
    "Little is known yet: try what you believe in from what is known of such experiments. Change "
    "what matters most (structure, sizes, batch, schedule) before fine constants."
)
_MIDDLE = (
    "Choose the change that could gain most, several parameters together where they belong "
    "together; structure and sizes before fine constants."
)
_STUCK_ASK = (
    "The search is stuck: small steps from the best no longer pay. Leave its neighbourhood in a "
    "direction that the trials leave open, or combine what helped in different trials."
)
_END_ASK = (
    "The end is near: exploit now. Combine what helped, or take a small step from the best; no "
    "experiment whose result can't be used any more."
)


@dataclass(frozen=True)
class Knowledge:
    """What a sampler was told of the experiment; its arguments of the same names.

    Attributes:
        task: What is tuned, in words.
        noise: Standard deviation of the value on repetition, if it is known.
        n_trials: Trials planned in all.
        rule: The objective's own rule.
        derived: Further numbers that follow from the parameters.
        side_data: Names of trials' attributes that are numbers worth showing, or whether one is.
    """

    task: str = ""
    noise: float | None = None
    n_trials: int | None = None
    rule: Rule | None = None
    derived: Derived | None = None
    side_data: Sequence[str] | Callable[[str], bool] = ()


class TrialPrompt:
    """Builds the request for one trial at any extent, as ``build`` of ``propose``.

    Args:
        study: The study.
        trial: The running trial.
        space: The parameters that are asked for.
        knowledge: What the sampler was told.
        intro: Who the model is, and who else proposes.
        is_mine: Whether a trial of a number is the model's.
        details: Whether the model is large enough to read more than the table.
    """

    def __init__(
        self,
        study: Study,
        trial: FrozenTrial,
        space: Mapping[str, BaseDistribution],
        knowledge: Knowledge,
        *,
        intro: str,
        is_mine: Callable[[int], bool],
        details: bool,
    ) -> None:
        self._study, self._trial, self._space = study, trial, space
        knowledge = replace(
            knowledge,
            rule=tolerant(knowledge.rule, study, "rule"),
            derived=tolerant(knowledge.derived, study, "derived"),
        )
        self._knowledge, self._intro, self._is_mine = knowledge, intro, is_mine
        self._details = details
        self.table = Table(
            study,
            space,
            rule=knowledge.rule,
            derived=knowledge.derived,
            side_data=knowledge.side_data,
            noise=knowledge.noise,
        )

    @property
    def extents(self) -> Sequence[Extent]:
        """The extents to choose from, for ``fit``."""
        return (*DETAILED, *EXTENTS) if self._details else EXTENTS

    def build(self, extent: Extent, fullest: bool, *, ask: str, state: str = "") -> list[Message]:
        """Build the messages.

        Args:
            extent: Amount of detail.
            fullest: Make the table as long as it will become, see ``fit``.
            ask: The question.
            state: Text of CMA-ES's state.
        """
        knowledge, best = self._knowledge, self.table.best
        direction = "maximized" if self._maximizes else "minimized"
        noise = (
            ""
            if knowledge.noise is None
            else f" Its standard deviation on repetition is {knowledge.noise:.3g}."
        )
        task = shorten(knowledge.task, extent.task_characters) or _DEFAULT_TASK
        rows = self.table.lines(extent, fullest) if self.table.finished else []
        if rows and extent.details:
            rows.insert(0, _LEGEND)
        sections = {
            "Task": f"{task}\nThe value is to be {direction}.{noise}",
            "Parameters": describe_search_space(self._space, extent.choices),
            "Trials: the best and the most recent": "\n".join(rows),
            "Best first": ", ".join(
                self._named(t, extent.details) for t in best[: min(extent.best, _N_BEST)]
            ),
            "Failures": format_failures(self.table.finished),
            "What else is known": self._facts if extent.details else "",
            "CMA-ES": state,
            "Your turn": ask,
        }
        parts = [f"# {title}\n{text}" for title, text in sections.items() if text]
        return [message("user", "\n\n".join([self._intro, *parts]))]

    def start(self, trial: FrozenTrial) -> dict[str, Any]:
        """The values of a trial to change: as they were run, which is how the table shows them.

        Those that the objective's rule takes out of their range stay as they were suggested.
        """
        run = effective_params(trial, self._knowledge.rule)
        return {
            name: _allowed(run[name], distribution, trial.params[name])
            for name, distribution in self._space.items()
        }

    def moment(self) -> str:
        """Write what kind of trial is wanted now: a start, structure, a way out, or an end."""
        if not self._details:
            return ""
        if self.table.best and self._is_end():
            return _END_ASK
        turns = [t for t in self.table.finished if source_of(t) == LLM]
        if len(self.table.best) < _FEW or len(turns) < 2:
            return _START
        return _STUCK_ASK if self.trials_since_best() >= _STUCK else _MIDDLE

    def left(self) -> str:
        """Write how many trials are left, this one included, and how many are the model's."""
        planned = self._knowledge.n_trials
        # None is left of the plan if trials were killed and repeated.
        if planned is None or planned <= self._trial.number:
            return ""
        left = planned - self._trial.number
        mine = self._turns_left()
        if left == 1:
            return " (the last one)"
        if not self._details:
            return f" ({left} are left)"
        if mine == left:
            return f" ({left} are left, this one included)"
        return f" ({left} are left, {mine} of them yours, this one included)"

    def trials_since_best(self) -> int:
        """Count the finished trials after the one that was last better than all before it."""
        sign = -1.0 if self._maximizes else 1.0
        least, since = math.inf, 0
        margin = self.table.noise or 0.0
        successes = {t.number for t in self.table.best}
        for trial in self.table.finished:
            since += 1
            if trial.number in successes and sign * trial.values[0] < least - margin:
                least, since = sign * trial.values[0], 0
        return since

    def repeatable(self) -> frozenset[int]:
        """The best trial's number, if its value is uncertain and it was measured only once."""
        if not self._details or not self.table.noise or len(self.table.best) < _FEW:
            return frozenset()
        best = self.table.best[0]
        if not self.table.shows_all_of(best):
            return frozenset()
        same = [t for t in self.table.best if self.table.key(t) == self.table.key(best)]
        return frozenset({best.number} if len(same) == 1 else ())

    @property
    def _maximizes(self) -> bool:
        return self._study.direction == StudyDirection.MAXIMIZE

    def _turns_left(self) -> int:
        planned = self._knowledge.n_trials or 0
        return sum(map(self._is_mine, range(self._trial.number, planned)))

    def _is_end(self) -> bool:
        planned = self._knowledge.n_trials
        if planned is None:
            return False
        left = planned - self._trial.number
        return left <= _END * planned or self._turns_left() <= _LAST_TURNS

    def _named(self, trial: FrozenTrial, with_value: bool) -> str:
        if not with_value:
            return f"trial {trial.number}"
        return f"#{trial.number} {format_outcome(trial, self.table.digits)}"

    @cached_property
    def _facts(self) -> str:
        """What the table doesn't show at a glance, a line each."""
        lines = [
            *self._noise(),
            *self._at_bounds(),
            *self._gains(),
            *self._reasons(),
            *self._running(),
        ]
        if self.table.finished and (since := self.trials_since_best()) >= _FEW:
            noise = " by more than the noise" if self.table.noise else ""
            lines.append(f"No trial of the last {since} was better than the best before{noise}.")
        if self.repeatable():
            lines.append(
                f"The best value may be luck: you may, as an exception, have "
                f"#{self.table.best[0].number} run once more, by giving its values again."
            )
        return "\n".join(lines)

    def _noise(self) -> list[str]:
        """The spread of equal configurations' values, where there are any."""
        repeated = self.table.repeated
        if not repeated:
            return []
        n = sum(map(len, repeated))
        return [
            f"Repetitions ({n} runs of {len(repeated)}) have a standard deviation of "
            f"{pooled_sd(repeated):.2g}."
        ]

    def _at_bounds(self) -> list[str]:
        """Parameters that most of the best configurations have at an end of their ranges."""
        leaders = [group[0] for group in self.table.groups(self.table.finished)[:_N_AT_BOUND]]
        params = [effective_params(t, self._knowledge.rule) for t in leaders]
        found = []
        for name, distribution in self._space.items():
            if not isinstance(distribution, (FloatDistribution, IntDistribution)):
                continue
            # What the table shows as another value isn't at the bound, however near it is.
            shown = [format_value(p[name], distribution) for p in params if name in p]
            for which, bound in (("lowest", distribution.low), ("highest", distribution.high)):
                text = format_value(bound, distribution)
                if (n := shown.count(text)) >= 3:
                    found.append(f"{label(name)} at its {which} {text} in {n}")
        return [f"Of the {len(leaders)} best, " + "; ".join(found) + "."] if found else []

    def _gains(self) -> list[str]:
        """How often the model's own trials and the others' were better than all before."""
        sign = -1.0 if self._maximizes else 1.0
        successes = {t.number for t in self.table.best}
        least = math.inf
        n, gains = {True: 0, False: 0}, {True: 0, False: 0}
        for trial in self.table.finished:
            mine = source_of(trial) == LLM
            n[mine] += 1
            if trial.number in successes and sign * trial.values[0] < least:
                gains[mine] += least < math.inf
                least = sign * trial.values[0]
        if not n[True]:
            return []
        text = f"Of your trials so far ({n[True]}) {gains[True]} gave a new best"
        return [f"{text}, of the others ({n[False]}) {gains[False]}."]

    def _reasons(self) -> list[str]:
        """Why the model proposed its latest trials, and what of it had to be repaired."""
        mine = [t for t in self.table.finished if source_of(t) == LLM]
        told = [(t.number, t.user_attrs.get("llm_reason")) for t in mine[-_N_REASONS:]]
        return [
            f"You proposed #{n} because: {label(why)}" for n, why in told if isinstance(why, str)
        ]

    def _running(self) -> list[str]:
        """What other workers run at this moment."""
        others = [
            t
            for t in cached_trials(self._study)
            if t.state == TrialState.RUNNING and t.number != self._trial.number
        ]
        known = [values_so_far(t, self._space) for t in others]
        shown = [
            format_params(params, self._space)
            for params in known
            if params.keys() >= self._space.keys()
        ]
        return [f"Being run by others now: {text}" for text in shown[-_N_RUNNING:]]


def _allowed(value: Any, distribution: BaseDistribution, otherwise: Any) -> Any:
    """A value if a distribution contains it."""
    try:
        fitted, repair = fit_value(value, distribution)
    except ValueRefused:
        return otherwise
    return otherwise if repair else fitted
