"""Mean best-so-far curves of groups of studies, as points and as a figure."""

from __future__ import annotations

from datetime import datetime
from datetime import timedelta
import math
from typing import Any
from typing import Literal

import numpy as np
import optuna
from optuna.trial import create_trial
from optuna.trial import TrialState
import plotly.graph_objects as go
import pytest
from scipy import stats

from studies.best_so_far import plot_best_so_far
from studies.best_so_far.curves import bootstrap_interval
from studies.best_so_far.curves import mean_curve
from studies.best_so_far.curves import Steps
from studies.best_so_far.curves import t_interval


START = datetime(2026, 1, 1)


def study_of(
    values: list[float | None],
    *,
    direction: Literal["minimize", "maximize"] = "minimize",
    ends: list[float] | None = None,
    **attrs: list[Any],
) -> optuna.Study:
    """A study of trials with these values (``None`` is a failure) and user attributes.

    Args:
        values: By number.
        direction: Of the study.
        ends: Seconds after the start at which the trials ended. By default in their order.
        attrs: Attribute to its values; ``None`` is a trial without it.
    """
    study = optuna.create_study(direction=direction)
    for i, value in enumerate(values):
        trial = create_trial(
            state=TrialState.FAIL if value is None else TrialState.COMPLETE,
            value=value,
            user_attrs={k: v[i] for k, v in attrs.items() if v[i] is not None},
        )
        trial.datetime_start = START
        trial.datetime_complete = START + timedelta(seconds=ends[i] if ends else i)
        study.add_trial(trial)
    return study


def drawn(figure: go.Figure) -> dict[str, list[tuple[float, float]]]:
    """The points of the mean curves by their names."""
    return {t.name: list(zip(t.x, t.y)) for t in figure.data if t.name}


def test_a_value_holds_from_its_trials_end_until_it_is_beaten() -> None:
    figure = plot_best_so_far(study_of([5.0, 7.0, 3.0, 4.0]))
    assert drawn(figure) == {"(n=1)": [(1, 5.0), (3, 3.0), (4, 3.0)]}
    assert all(trace.line.shape == "hv" for trace in figure.data)


def test_trials_count_in_the_order_in_which_they_ended() -> None:
    figure = plot_best_so_far(study_of([3.0, 5.0, 4.0], ends=[9, 1, 2]))
    assert drawn(figure) == {"(n=1)": [(1, 5.0), (2, 4.0), (3, 3.0)]}


def test_a_mean_is_of_the_same_studies_from_where_all_have_a_value_to_where_the_first_ends() -> (
    None
):
    studies = [study_of([9.0, 5.0, 1.0]), study_of([None, 7.0]), study_of([None, None, None])]
    assert drawn(plot_best_so_far(studies)) == {"(n=2)": [(2, 6.0)] * 2}


def test_each_group_has_a_curve_and_where_it_has_several_studies_an_interval() -> None:
    figure = plot_best_so_far(
        {"a": [study_of([1.0, 0.0]), study_of([3.0, 2.0])], "b": [study_of([4.0, 4.0])]}
    )
    assert drawn(figure) == {"a (n=2)": [(1, 2.0), (2, 1.0)], "b (n=1)": [(1, 4.0), (2, 4.0)]}
    assert len(figure.data) == 4
    high, low = figure.data[0], figure.data[1]
    assert low.fill == "tonexty"
    assert (low.y[0], high.y[0]) == pytest.approx(
        stats.t.interval(0.95, 1, loc=2.0, scale=stats.sem([1.0, 3.0]))
    )


def test_failures_cost_and_do_not_count() -> None:
    study = study_of(
        [None, 5.0, 100.0, 0.0, 4.0],
        seconds=[10, 20, 5, 30, None],
        status=["crash", "ok", "oom", "oom", "ok"],
    )

    def succeeded(trial: optuna.trial.FrozenTrial) -> bool:
        return bool(trial.user_attrs["status"] == "ok")

    figure = plot_best_so_far(study, against="seconds", counts=succeeded)
    assert drawn(figure) == {"(n=1)": [(30, 5.0), (65, 4.0)]}
    assert figure.layout.xaxis.title.text == "seconds"
    doubled = plot_best_so_far(
        study, against=lambda t: 2 * t.user_attrs.get("seconds", 0), counts=succeeded
    )
    assert [x for x, _ in drawn(doubled)["(n=1)"]] == [60, 130]


def test_an_unknown_cost_is_none_and_a_group_without_a_value_is_in_the_legend() -> None:
    costs = (10, math.nan, "soon", 10**400, 5)
    groups = {"a": [study_of([5.0, 4.0, 3.0, 2.0, 1.0])], "b": [study_of([None])]}
    figure = plot_best_so_far(groups, against=lambda t: costs[t.number])  # type: ignore[arg-type, return-value]
    assert drawn(figure)["a (n=1)"] == [(10, 2.0), (15, 1.0)]
    assert [trace.name for trace in figure.data if trace.showlegend is not False][-1] == "b (n=0)"


def test_what_is_pruned_infeasible_or_no_number_is_not_the_best() -> None:
    study = optuna.create_study(direction="maximize")

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_float("x", 0, 1)
        if trial.number == 1:
            trial.set_constraint("memory", 0.5)
        if trial.number == 2:
            raise optuna.TrialPruned
        return [1.0, 9.0, 9.0, math.inf, 2.0][trial.number]

    study.optimize(objective, n_trials=5)
    assert drawn(plot_best_so_far(study)) == {"(n=1)": [(1, 1.0), (5, 2.0)]}


def test_the_intervals_are_those_of_the_mean() -> None:
    values = np.random.default_rng(0).lognormal(size=(20, 3))
    low, high = t_interval(values)
    for i in range(3):
        expected = stats.ttest_1samp(values[:, i], 0).confidence_interval()
        assert (low[i], high[i]) == pytest.approx(tuple(expected))
    low, high = bootstrap_interval(values)
    drawn_anew = stats.bootstrap(
        (values,), np.mean, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert low == pytest.approx(drawn_anew.low, rel=0.05)
    assert high == pytest.approx(drawn_anew.high, rel=0.05)


@pytest.mark.parametrize("interval", [t_interval, bootstrap_interval])
def test_a_single_run_has_no_interval(interval: Any) -> None:
    curve = mean_curve([Steps([1, 2], [3.0, 2.0], 4)], interval)
    assert curve is not None
    assert np.isnan(curve.low).all() and np.isnan(curve.high).all()


def test_thinned_to_fewer_points_no_value_is_shown_before_it_was_reached() -> None:
    rng = np.random.default_rng(0)
    runs = []
    for _ in range(4):
        x = np.sort(rng.uniform(0, 1000, size=400))
        runs.append(Steps(x.tolist(), np.linspace(400, 1, 400).tolist(), 1000.0))
    curve = mean_curve(runs)
    assert curve is not None and len(curve.x) <= 250
    for x, mean in zip(curve.x, curve.mean):
        known = [min(b for at, b in zip(run.x, run.best) if at <= x) for run in runs]
        assert mean == pytest.approx(np.mean(known))


def test_studies_that_cannot_be_averaged_are_refused() -> None:
    with pytest.raises(ValueError, match="the same direction, but got .*MAXIMIZE"):
        plot_best_so_far([study_of([1.0]), study_of([1.0], direction="maximize")])
    several = optuna.create_study(directions=["minimize", "maximize"])
    with pytest.raises(ValueError, match="one objective"):
        plot_best_so_far([several])
    with pytest.raises(ValueError, match=r"`interval` must be one of .* but got 'sd'"):
        plot_best_so_far([study_of([1.0])], interval="sd")  # type: ignore[arg-type]
