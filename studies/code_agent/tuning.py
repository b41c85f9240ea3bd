"""The tuner: between the model's edits, the constants of what stands are tuned.

A language model changes what a script does; which numbers suit it is found better, and for less, by
Centaur's critic. Two scripts that differ only in the values of their constants have the same
*structure*. The tuner takes the trials of a structure, makes steps from the best of them, and runs
the one that the critic thinks most of.

What was learned of a structure helps its children: trials of the parent count for the child, with
the difference that the edit made at the parent's constants added. Constants that the child has no
more are left out, new ones are as the child began with them.

Everything is a function of the stored trials, so that a resumed study tunes as it would have.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from typing import TYPE_CHECKING

import numpy as np

from objective.testbed.inference import inferred
from objective.testbed.inference import widened
from objective.testbed.source import TestbedError
from samplers._critic.critic import Judge
from samplers._critic.space import Space
from samplers._critic.trials import Trials
from samplers._trials.internals import first_number
from samplers._trials.seeds import derive_seed
from studies.code_agent.files import constants_of
from studies.code_agent.files import with_constants
from studies.code_agent.history import DOUBTED
from studies.code_agent.history import is_baseline
from studies.code_agent.history import is_tuned
from studies.code_agent.history import KEPT
from studies.code_agent.history import OVERTIME
from studies.code_agent.history import parent_number
from studies.code_agent.history import PROPOSAL
from studies.code_agent.history import REJECTED
from studies.code_agent.history import REVERTED
from studies.code_agent.history import TUNER
from studies.code_agent.ideas import words
from studies.code_agent.validator import fingerprint


if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from objective import Testbed
    from objective.testbed.source import Value
    from studies.code_agent.history import CodeHistory
    from studies.code_agent.history import Step
    from studies.code_agent.sources import Sources


# The latest turns, of which the shares are kept.
_WINDOW = 12
# An edit that is worse than the best by no more than so many times what a gain must be may be better
# with constants of its own.
_REACH = 2.0
_N_STEPS = 500
# Measured trials of a structure or its parents from which on the critic chooses among steps.
_N_KNOWN = 4
_ATTEMPTS = 20


@dataclass(frozen=True)
class Tuned:
    """A script to be run.

    Attributes:
        source: The script.
        parent: The trial whose constants were changed.
        description: The change in one line.
    """

    source: str
    parent: FrozenTrial
    description: str


@dataclass(frozen=True)
class _NearMiss:
    """An edit that was nearly better: its structure, and the constants in the lines it changed."""

    structure: str
    constants: frozenset[str]


@dataclass(frozen=True)
class _Script:
    structure: str
    values: dict[str, Value]


class Tuner:
    """Proposes constants.

    Args:
        testbed: Its search space and rule hold for the constants that it names, and what it leaves
            out is left alone; for new ones ranges are inferred from the values that they came with.
        sources: Where the scripts are.
        seed: The study's.
        share: Share of the trials after the baselines that are the tuner's, from 0 (none) to below
            1, at first. It moves by up to a factor of two towards whoever gains more.
        edit_trials: Trials for the constants in the lines of an edit that came close to the best.
    """

    def __init__(
        self, testbed: Testbed, sources: Sources, *, seed: int, share: float, edit_trials: int
    ) -> None:
        if not 0 <= share < 1:
            raise ValueError(f"`share` must be from 0 to below 1, but got {share}.")
        self._testbed = testbed
        self._sources = sources
        self._seed = seed
        self._share = share
        self._edit_trials = edit_trials
        self._scripts: dict[str, _Script | None] = {}

    def is_turn(self, history: CodeHistory) -> bool:
        """Return whether the next trial is the tuner's: a function of the trials so far."""
        if self._share == 0:
            return False
        if self._near_miss(history) is not None:
            return True
        turns = [step.trial for step in history.steps if step.outcome != "baseline"]
        latest = sorted([*turns, *history.pending], key=lambda t: t.number)[-_WINDOW:]
        mine = sum(map(is_tuned, latest))
        return (mine + 1) / (len(latest) + 1) <= self.share(history)

    def share(self, history: CodeHistory) -> float:
        """Return the tuner's share of the next trials: more where its trials gained more.

        The gain of a trial is what it made the best better by. One gain that just counts is taken
        for granted on both sides, so that without gains the share is as it was set.
        """
        latest = [
            s for s in history.steps if s.trial.user_attrs.get("source") in (TUNER, PROPOSAL)
        ]
        weight = {}
        for source in (TUNER, PROPOSAL):
            steps = [s for s in latest[-_WINDOW:] if s.trial.user_attrs["source"] == source]
            gained = sum(s.gain for s in steps if s.outcome == KEPT)
            weight[source] = (gained + (history.min_gain or 1e-12)) / (len(steps) + 1)
        mine, others = self._share * weight[TUNER], (1 - self._share) * weight[PROPOSAL]
        return float(np.clip(mine / (mine + others), self._share / 2, (1 + self._share) / 2))

    def propose(self, history: CodeHistory, number: int) -> Tuned | None:
        """Return constants for the best script, or for an edit that nearly was better.

        Args:
            history: The study so far, with a best.
            number: The trials so far, of which the proposal is a function.

        Returns:
            What to run; None if the script has no constants to tune, or none that are new.
        """
        near_miss = self._near_miss(history)
        base = history.best if near_miss is None else self._best_of(history, near_miss.structure)
        assert base is not None
        script = self._script(base)
        if script is None:
            return None
        judge, enough = self._judge(history, script.structure)
        if judge is None:
            return None
        source = self._sources.load(base.user_attrs["source_sha256"])
        rng = np.random.default_rng(derive_seed(self._seed, number, TUNER))
        known = {str(s.trial.user_attrs.get("fingerprint")) for s in history.steps}
        known |= {str(t.user_attrs.get("fingerprint")) for t in history.pending}
        for _ in range(_ATTEMPTS):
            steps = judge.steps(_N_STEPS, rng)
            if near_miss is not None:
                as_it_is = {name: script.values[name] for name in steps[0]}
                steps = [
                    as_it_is | {name: step[name] for name in near_miss.constants} for step in steps
                ]
            index = judge.choose(steps) if enough else judge.first_safe(steps)
            if index is None:
                continue
            values = self._testbed.rule(steps[index])
            was = script.values
            # A value that comes back from its logarithm may differ in the last digit.
            changed = {n: v for n, v in values.items() if _brief(v) != _brief(was[n])}
            tuned = with_constants(source, changed)
            if changed and fingerprint(tuned) not in known:
                said = ", ".join(f"{n} {_brief(was[n])} -> {_brief(changed[n])}" for n in changed)
                return Tuned(tuned, base, said)
            judge.exclude([steps[index]])
        return None

    def found(self, history: CodeHistory) -> dict[str, tuple[Value, Value]]:
        """Return what the tuner changed in the best script since an edit was kept: old and new."""
        line = history.lineage()
        first = next((trial for trial in reversed(line) if not is_tuned(trial)), line[0])
        old, new = self._script(first), self._script(line[-1])
        if old is None or new is None:
            return {}
        both = sorted(old.values.keys() & new.values.keys())
        pairs = {name: (old.values[name], new.values[name]) for name in both}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    def untuned(self, history: CodeHistory) -> list[str]:
        """Return the constants of the best script that may matter and have no range to tune in."""
        script = None if history.best is None else self._script(history.best)
        if script is None:
            return []
        space, testbed = self._space(history, script.structure), self._testbed
        settings = testbed.left_out.keys() - testbed.fixed.keys()
        return [name for name in script.values if name not in space and name not in settings]

    def sensitivities(self, history: CodeHistory) -> dict[str, float]:
        """Return how much each constant of the best script matters, by the critic, as a share.

        The one that matters most comes first; none as long as too little was run to tell.
        """
        script = None if history.best is None else self._script(history.best)
        if script is None:
            return {}
        judge, enough = self._judge(history, script.structure)
        return judge.sensitivities(script.values) if judge is not None and enough else {}

    def _judge(self, history: CodeHistory, structure: str) -> tuple[Judge | None, bool]:
        """Return the critic of a structure's constants, None if it has none to tune; and whether it
        knows enough trials to choose."""
        space = Space(self._space(history, structure))
        if not space.names:
            return None, False
        trials = self._trials(history, structure, space.names)
        enough = bool(np.isfinite(trials.values).sum() >= _N_KNOWN)
        judge = Judge(space, trials, rule=self._testbed.rule, derived=self._testbed.derived)
        return judge, enough

    def _near_miss(self, history: CodeHistory) -> _NearMiss | None:
        """Return the model's latest edit, if its constants are to be tuned before the best's.

        Those are the ones in the lines that it changed: what others gain, the best may gain as well,
        and would speak for an edit that is worse.
        """
        edits = [s for s in history.proposals if s.value is not None]
        if not edits or edits[-1].outcome != REVERTED:
            return None
        edit = edits[-1]
        assert history.best is not None
        script, best = self._script(edit.trial), self._script(history.best)
        if script is None or best is None or script.structure == best.structure:
            return None
        if edit.gain < -_REACH * history.min_gain:
            return None
        done = [s.trial for s in self._steps(history, script.structure)]
        waiting = [t for t in history.pending if self._structure(t) == script.structure]
        if sum(map(is_tuned, [*done, *waiting])) >= self._edit_trials:
            return None
        changed = words(self._sources.change(edit.trial))
        constants = self._space(history, script.structure).keys() & changed
        return _NearMiss(script.structure, frozenset(constants)) if constants else None

    def _space(self, history: CodeHistory, structure: str) -> dict[str, BaseDistribution]:
        """Return the ranges of a structure's constants, with room for all values that it ran with.

        What the testbed leaves out of its own constants is left alone here, too.
        """
        space: dict[str, BaseDistribution] = {}
        for step in self._measured(history, structure):
            script = self._script(step.trial)
            assert script is not None
            for name, value in script.values.items():
                if name in space:
                    space[name] = widened(space[name], value) or space[name]
                elif name not in self._testbed.left_out:
                    given = widened(self._testbed.space.get(name), value) or inferred(name, value)
                    if given is not None:
                        space[name] = given
        return space

    def _trials(self, history: CodeHistory, structure: str, names: Sequence[str]) -> Trials:
        """Return what is known of a structure's constants: its own trials, and its parents'.

        A trial that trained for longer than it may has failed, however good its value is, and of
        one whose gain is doubted nothing is known before it was trained again.
        """
        first = self._script(self._measured(history, structure)[0].trial)
        assert first is not None
        begun = {name: first.values[name] for name in names}
        finished: list[tuple[dict[str, Any], float]] = []
        running: list[dict[str, Any]] = []
        for step, offset in self._with_ancestors(history, structure):
            script = self._script(step.trial)
            assert script is not None
            configuration = _restricted(begun, script.values)
            if step.outcome == DOUBTED and step.again is None:
                running.append(configuration)
            elif step.outcome != REJECTED:
                value = _value(step)
                cost = np.nan if value is None else history.metric.cost(value) + offset
                finished.append((configuration, cost))
        for trial in history.pending:
            if self._structure(trial) == structure and (script := self._script(trial)):
                running.append(_restricted(begun, script.values))
        costs = np.array([cost for _, cost in finished] + [np.nan] * len(running))
        is_running = np.arange(len(costs)) >= len(finished)
        return Trials(
            [configuration for configuration, _ in finished] + running,
            costs,
            np.isnan(costs) & ~is_running,
            is_running,
            np.empty((len(costs), 0)),
        )

    def _with_ancestors(
        self, history: CodeHistory, structure: str
    ) -> Iterator[tuple[Step, float]]:
        """Yield the steps of a structure and of those that it was made from.

        With each what to add to its cost, to make it one of ``structure``.
        """
        by_number: dict[int | None, Step] = {
            first_number(step.trial): step for step in history.steps
        }
        offset, seen = 0.0, set()
        while structure not in seen:
            seen.add(structure)
            yield from ((step, offset) for step in self._steps(history, structure))
            for step in self._measured(history, structure):
                parent = by_number.get(parent_number(step.trial))
                above = "" if parent is None else self._structure(parent.trial)
                if parent is not None and above != structure:
                    break
            else:
                return
            before = history.baseline if is_baseline(parent.trial) else _value(parent)
            after = _value(step)
            if before is None or after is None:
                return
            offset += history.metric.cost(after) - history.metric.cost(before)
            structure = above

    def _steps(self, history: CodeHistory, structure: str) -> list[Step]:
        return [step for step in history.steps if self._structure(step.trial) == structure]

    def _measured(self, history: CodeHistory, structure: str) -> list[Step]:
        return [s for s in self._steps(history, structure) if _value(s) is not None]

    def _best_of(self, history: CodeHistory, structure: str) -> FrozenTrial:
        """Return a structure's best trial: the best of the study depends on when each finished."""

        def cost(step: Step) -> tuple[float, int]:
            return history.metric.cost(_value(step) or 0.0), step.trial.number

        return min(self._measured(history, structure), key=cost).trial

    def _structure(self, trial: FrozenTrial) -> str:
        script = self._script(trial)
        return "" if script is None else script.structure

    def _script(self, trial: FrozenTrial) -> _Script | None:
        """Return the structure and the constants of a trial's script; None of what can't be read."""
        sha = trial.user_attrs.get("source_sha256", "")
        if sha not in self._scripts:
            self._scripts[sha] = _read(self._sources.load(sha)) if sha else None
        return self._scripts[sha]


def structure_of(source: str) -> str:
    """Return the fingerprint (64 hex digits) of a script without the values of its constants.

    Raises:
        TestbedError: If it is not valid Python.
    """
    return fingerprint(with_constants(source, dict.fromkeys(constants_of(source), 0)))


def _read(source: str) -> _Script | None:
    try:
        values = {name: constant.value for name, constant in constants_of(source).items()}
        known = {name: value for name, value in values.items() if value is not None}
        return _Script(structure_of(source), known)
    except TestbedError:
        return None


def _value(step: Step) -> float | None:
    """Return what a step's constants are worth; None if they can't be kept whatever it came to."""
    return None if step.outcome == OVERTIME else step.value


def _restricted(begun: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values.get(name, value) for name, value in begun.items()}


def _brief(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
