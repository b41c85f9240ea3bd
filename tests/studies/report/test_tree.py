"""The plot of a code agent's tree joins each trial to the one whose script was changed."""

from __future__ import annotations

import json
import math

import optuna
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects
import pytest

from studies.commands.work.report import pin_plots
from studies.methods import CODE_AGENT
from studies.report import interactive
from studies.report.content import Report
from studies.report.drawing import Marks
from studies.report.page import build_page
from studies.report.runs import load_contents
from studies.report.runs import Run
from studies.report.static import draw
from studies.report.tree import tree_plots
from tests.studies.report.test_structures import add


@pytest.fixture
def runs() -> list[Run]:
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="code")
    study.set_user_attr("testbed_hash", "0")
    study.set_user_attr("method", CODE_AGENT)
    add(study, 1.0, source="startup")
    add(study, 0.9, source="llm", parent=0, description="a <b>wider</b> model")
    add(study, 0.95, source="tuner", parent=1, description="RATE 0.1 -> 0.3")
    add(study, 0.8, source="tuner", parent=1, description="RATE 0.1 -> 0.2")
    add(study, 9.0, source="llm", parent=3, description="a bad idea")
    add(study, None, source="llm", parent=3, description="a bug")
    (contents,) = load_contents(storage, print).values()
    return list(contents.runs)


def pairs(marks: Marks) -> list[tuple[int, int]]:
    """Lines come as first end, second end, gap."""
    assert all(math.isnan(y) for y in marks.y[2::3])
    return list(zip(marks.x[::3], marks.x[1::3]))


def test_trials_with_a_value_are_joined_to_their_parents_and_the_best_to_the_unedited(
    runs: list[Run],
) -> None:
    (plot,) = tree_plots(runs)
    marks = {m.label: m for m in plot.marks}
    assert pairs(marks["way to the best"]) == [(0, 1), (1, 3)]
    assert pairs(marks["made from"]) == [(1, 2), (3, 4)]
    points = {label: list(m.x) for label, m in marks.items() if m.kind == "points"}
    assert points == {
        "unedited": [0],
        "edit, kept": [1],
        "edit, not kept": [4],
        "constants, kept": [3],
        "constants, not kept": [2],
    }
    assert "a &lt;b&gt;wider&lt;/b&gt; model" in marks["edit, kept"].said[0]


def test_a_very_bad_idea_does_not_flatten_the_way_to_the_best(runs: list[Run]) -> None:
    (plot,) = tree_plots(runs)
    assert plot.limits is not None
    low, high = plot.limits
    assert low < 0.8 and 1.0 <= high < 9.0


def test_the_plot_is_on_the_page_and_among_the_pictures(runs: list[Run]) -> None:
    report = Report(runs, CODE_AGENT)
    assert 'data-figure="structures-0"' in build_page(report)
    figure = json.loads(interactive.draw(report.plots["structures"][0]).to_json())
    assert {trace["name"] for trace in figure["data"]} >= {"way to the best", "constants, kept"}
    assert draw(report.plots["structures"]).axes[0].get_xlabel() == "trial"


def test_the_dashboard_shows_the_tree_of_the_study_itself(runs: list[Run]) -> None:
    storage = optuna.storages.InMemoryStorage()
    for name in ("code", "other"):
        study = optuna.create_study(storage=storage, study_name=name)
        pin_plots(Report(runs, CODE_AGENT), study, "")
        pinned = get_plotly_graph_objects(storage.get_study_system_attrs(study._study_id))
        assert ("report-structures" in pinned) == (name == "code")


def test_a_study_in_which_nothing_was_measured_has_a_plot_without_marks() -> None:
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="code")
    study.set_user_attr("testbed_hash", "0")
    study.set_user_attr("method", CODE_AGENT)
    add(study, None, source="startup")
    add(study, None, source="llm", parent=0, description="a bug")
    (contents,) = load_contents(storage, print).values()
    (plot,) = tree_plots(contents.runs)
    assert not plot.marks and plot.limits is None
