"""The prompt of the model's turn: the trials, CMA-ES's state, and the question.

What stays the same from turn to turn comes first, so that a server's prefix cache serves most of
the prompt: task and parameters never change, the table of trials grows at its end, and CMA-ES's
state and the question come last.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from optuna.study import StudyDirection

from .._llm.prompt import describe_search_space
from .._llm.prompt import fill
from .._llm.prompt import format_failures
from .._llm.prompt import format_header
from .._llm.prompt import format_row
from .._llm.prompt import grown
from .._llm.prompt import message
from .._llm.prompt import shorten
from .._llm.prompt import window_start
from .._llm.values import format_value
from .._trials.history import finished_trials
from .._trials.history import ranked


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution
    from optuna.study import Study

    from .._llm.chat import Message
    from .._llm.prompt import Extent
    from .._trials.history import Rule
    from .state import CmaState
    from .state import UnitCube

# Correlations that are told, and those too weak to be told. With 13 parameters they stay below
# 0.25 for hundreds of trials, and a full matrix of them is noise that costs a thousand tokens.
_N_CORRELATIONS = 3
_WEAK_CORRELATION = 0.15

_DEFAULT_TASK = "The parameters' names are all that is known of it."


def template(name: str) -> str:
    """Read a template file that lies beside this module."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8").strip()


def build_messages(
    study: Study,
    space: Mapping[str, BaseDistribution],
    extent: Extent,
    fullest: bool,
    *,
    task: str,
    noise: float | None,
    rule: Rule | None,
    state: str,
    ask: str,
) -> list[Message]:
    """Build the messages of a request, as the argument ``build`` of ``propose``.

    Args:
        study: The study.
        space: The parameters.
        extent: Amount of detail.
        fullest: Make the table as long as it will become, see ``fit``.
        task: The task's text.
        noise: Standard deviation of the value on repetition, if known.
        rule: The objective's own rule.
        state: CMA-ES's state as text.
        ask: The question.
    """
    finished = finished_trials(study)
    start = window_start(len(finished), extent)
    # Of the trials before the window, so that until it moves rows are only added, at the end: a
    # server's cache serves a prompt up to the first token that is new.
    best_before = ranked(study, finished[:start])[: extent.best]
    table = sorted(best_before, key=lambda t: t.number) + finished[start:]
    rows = [format_row(t, space, rule) for t in table]
    if fullest:
        rows = grown(rows, extent.most_rows + extent.best)
    text = fill(
        template("prompt.txt"),
        task=shorten(task, extent.task_characters) or _DEFAULT_TASK,
        direction="maximized" if study.direction == StudyDirection.MAXIMIZE else "minimized",
        noise="" if noise is None else f" Its standard deviation on repetition is {noise:.3g}.",
        space=describe_search_space(space, extent.choices),
        trials="\n".join([format_header(space), *rows]),
        best=", ".join(f"trial {t.number}" for t in ranked(study, finished)[: extent.best])
        or "none yet",
        failures=format_failures(finished),
        state=state,
        ask=ask,
    )
    return [message("user", text)]


def question(
    *,
    reply_format: str,
    number: int,
    trials_left: int | None,
    base: str,
    fixed: Mapping[str, Any],
) -> str:
    """The prompt's last part: it asks for a whole configuration, or for changes to ``base``."""
    values = {
        "number": number,
        # None is left of the plan if trials were killed and repeated.
        "left": f" ({trials_left} are left)" if trials_left and trials_left > 0 else "",
        "fixed": f" These values are fixed: {json.dumps(fixed, default=str)}." if fixed else "",
    }
    if reply_format == "full":
        return fill(template("ask_full.txt"), **values)
    return fill(template("ask_changes.txt"), base=base, **values)


def describe_state(
    states: Sequence[CmaState],
    cube: UnitCube,
    space: Mapping[str, BaseDistribution],
    *,
    evaluated: int,
    proposal: Mapping[str, Any],
    show_covariance: bool,
) -> str:
    """Describe CMA-ES's state in a few lines, its mean in the parameters' own units.

    Args:
        states: CMA-ES's states, the latest last; earlier ones tell the trend of the step size.
        cube: The numerical parameters.
        space: All parameters, in the order of the table of trials.
        evaluated: Trials of the current generation that are finished.
        proposal: CMA-ES's own proposal for this trial.
        show_covariance: Whether to tell all correlations.
    """
    now = states[-1]
    mean = cube.values(np.clip(now.mean, 0, 1))
    # Shares of the ranges with two digits are half as long as values to either side of the mean.
    sd = {n: f"{share:.2g}" for n, share in zip(cube.space, now.standard_deviations)}
    steps = ", ".join(f"{state.sigma:.2g}" for state in states)
    lines = [
        f"Generation {now.generation}, {evaluated} of {now.population_size} trials done. "
        f"Step size, as a share of the ranges, until now: {steps}.",
        "Its mean, the standard deviations as shares of the ranges (log where the parameter is), "
        "and its proposal; columns as in the table:",
        _row("mean", {n: format_value(v, space[n]) for n, v in mean.items()}, space),
        _row("sd", sd, space),
        _row("proposal", {n: format_value(v, space[n]) for n, v in proposal.items()}, space),
    ]
    names = list(cube.space)
    if show_covariance:
        lines += ["Correlations, in this order: " + ",".join(names)]
        lines += [",".join(f"{r:.2f}" for r in row) for row in now.correlations]
    else:
        lines.append("Strongest correlations: " + _strongest(now.correlations, names))
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
    return ", ".join(told) or "none so far"
