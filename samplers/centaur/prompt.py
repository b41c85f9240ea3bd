"""What the prompt of the model's turn has of Centaur's own: CMA-ES's state and the question."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING

import numpy as np

from .._llm import warm_start
from .._llm.prompt import fill
from .._llm.values import format_value


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution

    from .state import CmaState
    from .state import UnitCube

# Correlations that are told, and those too weak to be told. With 13 parameters they stay below
# 0.25 for hundreds of trials, and a full matrix of them is noise that costs a thousand tokens.
_N_CORRELATIONS = 3
_WEAK_CORRELATION = 0.15

_NEAR_THE_MEAN = (
    "Use what you know of the task and what the trials show: stay near the best or CMA-ES's mean "
    "where the step size is small, explore where little was tried."
)


def template(name: str) -> str:
    """Read a template file that lies beside this module."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8").strip()


def question(
    *,
    reply_format: str,
    number: int,
    left: str,
    moment: str,
    base: str,
    fixed: Mapping[str, Any],
    reason: str,
    n_first: int,
    n_trials: int | None,
) -> str:
    """The prompt's last part: it asks for a whole configuration, or for changes to ``base``.

    Args:
        reply_format: ``"full"`` or another.
        number: The trial's.
        left: The trials that are left, in words.
        moment: The kind of trial that is wanted now; ``""`` for models that get no such advice.
        base: The configuration to change, in words.
        fixed: Values that are decided already.
        reason: Key of the reason in the reply; ``""`` if none is wanted.
        n_first: Configurations that a warm start asks for; 1 or less is none.
        n_trials: Trials planned in all, if that is known.
    """
    told = f" These values are fixed: {json.dumps(fixed, default=str)}." if fixed else ""
    if n_first > 1:
        return warm_start.question(n_first, told, reason, n_trials)
    values = {
        "number": number,
        "left": left,
        "fixed": told,
        "reason": f' first "{reason}", why in a sentence, then' if reason else "",
    }
    if reply_format == "full":
        return fill(template("ask_full.txt"), advice=moment or _NEAR_THE_MEAN, **values)
    return fill(
        template("ask_changes.txt"), base=base, advice=f" {moment}" if moment else "", **values
    )


def describe_state(
    states: Sequence[CmaState],
    cube: UnitCube,
    space: Mapping[str, BaseDistribution],
    *,
    evaluated: int,
    proposal: Mapping[str, Any],
) -> str:
    """Describe CMA-ES's state in a few lines, its mean in the parameters' own units.

    Args:
        states: CMA-ES's states, the latest last; earlier ones tell the trend of the step size.
        cube: The numerical parameters.
        space: All parameters, in the order of the table of trials.
        evaluated: Trials of the current generation that are finished.
        proposal: CMA-ES's own proposal for this trial, if it is what else would be run.
    """
    now = states[-1]
    mean = cube.values(np.clip(now.mean, 0, 1))
    # Shares of the ranges with two digits are half as long as values to either side of the mean.
    sd = {n: f"{share:.2g}" for n, share in zip(cube.space, now.standard_deviations)}
    steps = ", ".join(f"{state.sigma:.2g}" for state in states)
    also = ", and its proposal" if proposal else ""
    lines = [
        f"Generation {now.generation}, {evaluated} of {now.population_size} trials done. "
        f"Step size, as a share of the ranges, until now: {steps}.",
        "Its mean and the standard deviations as shares of the ranges (log where the parameter "
        f"is){also}; columns as in the table:",
        _row("mean", {n: format_value(v, space[n]) for n, v in mean.items()}, space),
        _row("sd", sd, space),
    ]
    if proposal:
        values = {n: format_value(v, space[n]) for n, v in proposal.items()}
        lines.append(_row("proposal", values, space))
    if strongest := _strongest(now.correlations, list(cube.space)):
        lines.append(f"Strongest correlations: {strongest}")
    return "\n".join(lines)


def _row(label: str, fields: Mapping[str, str], space: Mapping[str, BaseDistribution]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([label, *(fields.get(n, "") for n in space)])
    return text.getvalue()


def _strongest(correlations: np.ndarray, names: Sequence[str]) -> str:
    pairs = [
        (float(correlations[i, j]), names[i], names[j])
        for i in range(len(names))
        for j in range(i)
        if abs(correlations[i, j]) >= _WEAK_CORRELATION
    ]
    pairs.sort(key=lambda pair: -abs(pair[0]))
    told = [f"{a} and {b} {r:+.2f}" for r, a, b in pairs[:_N_CORRELATIONS]]
    return ", ".join(told)
