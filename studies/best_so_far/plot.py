"""Best value so far, as plotly figures."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
import math
from numbers import Real
import sys
from typing import Any
from typing import Literal
from typing import TYPE_CHECKING

from optuna.study import Study
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from .curves import bootstrap_interval
from .curves import mean_curve
from .curves import Steps
from .curves import t_interval


if TYPE_CHECKING:
    import plotly.graph_objects as go

_INTERVALS = {"t": t_interval, "bootstrap": bootstrap_interval}

# Okabe and Ito's, which people with any colour vision can tell apart, and lines that repeat what
# they say.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MOST = sys.float_info.max  # an integer may have more digits
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")


def plot_best_so_far(
    studies: Mapping[str, Sequence[Study]] | Sequence[Study] | Study,
    *,
    against: str | Callable[[FrozenTrial], float] | None = None,
    counts: Callable[[FrozenTrial], bool] | None = None,
    interval: Literal["t", "bootstrap"] = "t",
    x_name: str | None = None,
    y_name: str = "Best value so far",
) -> go.Figure:
    """Plot the mean best value of groups of studies, each with a 95 % interval of the mean.

    A value counts from the moment that its trial has ended. A curve begins where every study of
    its group has a value and ends where the first of them ends, so that it is the mean of the same
    studies everywhere; studies in which nothing succeeded are left out, and the legend says how
    many were not.

    Args:
        studies: Groups by name, each of studies that repeat one another, such as one method with
            several seeds. A sequence or a single study is one group.
        against: What the horizontal axis counts: by default the trials that have ended; or the
            sum over them of a user attribute by this name, such as seconds of training (a trial
            without it counts nothing); or of what a function says of a trial.
        counts: Whether the value of a trial that is COMPLETE, finite and feasible may be a best
            one, such as ``lambda t: t.user_attrs["status"] == "ok"`` where failures have a value,
            too. What it rejects still moves the study along the axis.
        interval: ``"t"``, Student's, or ``"bootstrap"``, the percentiles of means of studies that
            were drawn anew.
        x_name: Title of the horizontal axis. By default what it counts.
        y_name: Title of the vertical axis.

    Raises:
        ValueError: If a study has several objectives, or not all have one direction.
    """
    import plotly.graph_objects as go

    if interval not in _INTERVALS:
        raise ValueError(f"`interval` must be one of {tuple(_INTERVALS)}, but got {interval!r}.")
    groups = _groups(studies)
    direction = _direction([study for group in groups.values() for study in group])
    figure = go.Figure()
    for i, (name, group) in enumerate(groups.items()):
        steps = [_steps(study, direction, against, counts) for study in group]
        found = [each for each in steps if each is not None]
        label = f"{name} (n={len(found)})".strip()
        curve = mean_curve(found, _INTERVALS[interval])
        if curve is None:  # no value, or no place where all have one: the legend tells of it
            figure.add_trace(go.Scatter(x=[None], y=[None], name=label))
        else:
            add_mean_curve(
                figure,
                curve.x,
                curve.mean,
                (curve.low, curve.high),
                name=label,
                color=_COLORS[i % len(_COLORS)],
                dash=_DASHES[i % len(_DASHES)],
            )
    if x_name is None:
        x_name = against if isinstance(against, str) else ("" if against else "Trials that ended")
    figure.update_layout(template="simple_white", hovermode="x unified", showlegend=True)
    figure.update_xaxes(title_text=x_name)
    figure.update_yaxes(title_text=f"{y_name} (mean, 95 % interval)", showgrid=True)
    return figure


def add_mean_curve(
    figure: go.Figure,
    x: Iterable[float],
    mean: Iterable[float],
    interval: tuple[Iterable[float], Iterable[float]],
    *,
    name: str,
    color: str,
    dash: str,
    **options: Any,
) -> None:
    """Draw a mean as steps, and the interval behind it.

    Args:
        figure: What is drawn on.
        x: Where the mean changes, (m,).
        mean: From there on, (m,).
        interval: Lower and upper ends, (m,) each; NaN is none.
        name: In the legend.
        color: As ``#0072B2``.
        dash: plotly's name of a line style.
        options: For every trace.
    """
    low, high = map(list, interval)
    options = {"x": list(x), "mode": "lines", "legendgroup": name, **options}
    if not math.isnan(low[0]):
        # Two edges and not one outline: the way back along an outline would be steps that show
        # a bound before it was reached.
        edge = {"width": 0, "shape": "hv", "color": color}
        hidden = {**options, "line": edge, "hoverinfo": "skip", "showlegend": False}
        figure.add_scatter(**hidden, y=high)
        figure.add_scatter(**hidden, y=low, fill="tonexty", fillcolor=_translucent(color))
    figure.add_scatter(
        **options,
        y=list(mean),
        name=name,
        line={"color": color, "dash": dash, "width": 2.5, "shape": "hv"},
        customdata=[[_number(a), _number(b)] for a, b in zip(low, high)],
        hovertemplate="%{y:.5~g} (%{customdata[0]} to %{customdata[1]})",
    )


def _groups(
    studies: Mapping[str, Sequence[Study]] | Sequence[Study] | Study,
) -> Mapping[str, Sequence[Study]]:
    if isinstance(studies, Study):
        return {"": [studies]}
    return studies if isinstance(studies, Mapping) else {"": studies}


def _direction(studies: Sequence[Study]) -> StudyDirection:
    directions = {tuple(study.directions) for study in studies}
    if len(directions) != 1 or len(next(iter(directions))) != 1:
        found = sorted([d.name for d in each] for each in directions)
        raise ValueError(
            f"The studies must have one objective and the same direction, but got {found}."
        )
    return studies[0].direction


def _steps(
    study: Study,
    direction: StudyDirection,
    against: str | Callable[[FrozenTrial], float] | None,
    counts: Callable[[FrozenTrial], bool] | None,
) -> Steps | None:
    """Return a study's records, ``None`` if it has none."""
    sign = -1.0 if direction == StudyDirection.MAXIMIZE else 1.0
    ended = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
    ended.sort(key=lambda t: (t.datetime_complete or datetime.max, t.number))
    x: list[float] = []
    best: list[float] = []
    now = 0.0
    for trial in ended:
        now += _cost(trial, against)
        if _has_value(trial) and (counts is None or counts(trial)):
            value = trial.values[0]
            if not best or sign * value < sign * best[-1]:
                x.append(now)
                best.append(value)
    return Steps(x, best, now) if x else None


def _cost(trial: FrozenTrial, against: str | Callable[[FrozenTrial], float] | None) -> float:
    if against is None:
        return 1.0
    cost: Any = trial.user_attrs.get(against) if isinstance(against, str) else against(trial)
    is_number = isinstance(cost, Real)
    return float(cost) if is_number and abs(cost) <= _MOST else 0.0


def _has_value(trial: FrozenTrial) -> bool:
    return (
        trial.state == TrialState.COMPLETE
        and math.isfinite(trial.values[0])
        and all(isinstance(c, Real) and c <= 0 for c in trial.constraints.values())
    )


def _translucent(color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.5g}"
