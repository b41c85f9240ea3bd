"""Static pictures: there is one of everything that can be drawn, and the same input is the same."""

from __future__ import annotations

from collections.abc import Sequence
import math
from pathlib import Path
import re
from statistics import fmean

from optuna.storages import InMemoryStorage
from optuna.trial import create_trial
import pytest

from studies.report import interactive
from studies.report import page_tables
from studies.report.content import Report
from studies.report.drawing import Drawing
from studies.report.drawing import HeatMap
from studies.report.drawing import Marks
from studies.report.drawing import Plot
from studies.report.plots import pictures
from studies.report.plots import traces
from studies.report.static import draw
from studies.report.static import save
from studies.report.style import styles
from studies.report.tables import comparisons
from studies.report.tables import method_rows
from tests.studies.report.synthetic import add_library_study
from tests.studies.report.synthetic import add_repetitions
from tests.studies.report.synthetic import add_study
from tests.studies.report.synthetic import runs_of


def drawings_of(
    storage: InMemoryStorage, reference: str = "random"
) -> dict[str, Sequence[Drawing]]:
    runs = runs_of(storage)
    return pictures(runs, Report(runs, reference).plots)


def test_every_plot_has_a_picture(memory: InMemoryStorage) -> None:
    for ratio in (0.1, 0.3):
        for model in ("big", "small"):
            name = f"{ratio}{model}"
            study = add_study(memory, "centaur", 0, name=name, llm_ratio=ratio, model=model)
            add_repetitions(memory, study, [1.0, 1.1])
    add_study(memory, "random", 0)
    drawn = {name: draw(drawings) for name, drawings in drawings_of(memory).items()}
    assert set(drawn) == {
        "time", "trials", "runs", "traces", "failures", "failure-map", "sources", "ratios",
        "models", "llm", "importance",
    }  # fmt: skip
    legend = drawn["time"].axes[0].get_legend()
    assert legend is not None
    labels = [text.get_text() for text in legend.get_texts()]
    assert (
        any(re.fullmatch(r"random: 1\.\d{4} \(n=1\)", label) for label in labels)
        and len(labels) == 5
    )
    assert len([axes for axes in drawn["traces"].axes if axes.get_visible()]) == 5


def test_a_storage_without_success_has_only_pictures_of_its_failures(
    memory: InMemoryStorage,
) -> None:
    add_study(memory, "random", 0, failed_share=1.0)
    assert set(drawings_of(memory)) == {"failures", "failure-map"}


def test_a_pruned_trial_is_not_drawn_as_a_failed_one(memory: InMemoryStorage) -> None:
    add_library_study(memory)
    (plot,) = traces(runs_of(memory))
    drawn = {marks.label: len(marks.x) for marks in plot.marks if marks.in_legend}
    assert drawn == {"trial": 7, "failed trial": 1, "pruned trial": 4, "best so far": 8}


def test_a_map_of_failures_names_the_choice_none(memory: InMemoryStorage) -> None:
    add_library_study(memory)
    drawing, *_ = drawings_of(memory, "alone")["failure-map"]
    assert isinstance(drawing, HeatMap)
    depth = drawing.rows.index("depth")
    assert list(drawing.texts[depth][:3]) == ["None 0", "5 25", "10 0"]
    assert drawing.said[depth][0] == "depth None: 0 of 4 failed"


def test_without_times_trials_are_drawn_against_their_number(memory: InMemoryStorage) -> None:
    add_study(memory, "random", 0, seconds=0.0, imported_from="results.tsv")
    drawn = drawings_of(memory)
    assert "trials" in drawn and "time" not in drawn
    (plot,) = drawn["traces"]
    assert isinstance(plot, Plot) and plot.x == "trials that ended"
    assert sorted(x for m in plot.marks if "trial" in m.label for x in m.x) == [*range(1, 31)]


def test_three_runs_are_shown_singly_and_four_by_their_interval(memory: InMemoryStorage) -> None:
    for seed in range(4):
        add_study(memory, "random", seed)
        if seed < 3:
            add_study(memory, "tpe", seed)
    (plot,) = drawings_of(memory)["trials"]
    assert isinstance(plot, Plot)
    of = {m: [marks for marks in plot.marks if marks.methods == [m]] for m in ("random", "tpe")}
    assert [marks.faint for marks in of["tpe"]] == [True, True, True, False]
    assert [bool(marks.low) for marks in of["random"]] == [True]
    assert not any(marks.low for marks in of["tpe"])


def test_beginnings_far_off_flatten_no_plot(memory: InMemoryStorage) -> None:
    for seed in range(2):
        study = add_study(memory, "random", seed, trials=0)
        for value in (9.0, *(1 - i / 1000 for i in range(40))):
            attrs = {"status": "ok", "val_bpb": value}
            study.add_trial(create_trial(value=value, user_attrs=attrs))
    (plot,) = drawings_of(memory)["trials"]
    assert isinstance(plot, Plot) and plot.limits is not None
    assert 0.9 < plot.limits[0] < 0.961 and 0.99 < plot.limits[1] < 1.1


def add_values(storage: InMemoryStorage, method: str, values: Sequence[float]) -> None:
    study = add_study(storage, method, 0, trials=0)
    for value in values:
        attrs = {"status": "ok", "val_bpb": value}
        study.add_trial(create_trial(value=value, user_attrs=attrs))


def test_a_short_runs_end_is_inside_the_plot(memory: InMemoryStorage) -> None:
    add_values(memory, "tpe", [9.0, *(2.6 - i / 3000 for i in range(199))])
    add_values(memory, "centaur", [9.0] * 11 + [2.95])
    (plot,) = drawings_of(memory, "tpe")["trials"]
    assert isinstance(plot, Plot) and plot.limits is not None
    assert plot.limits[0] < 2.54 and 2.95 < plot.limits[1] < 4


def test_values_that_all_come_to_zero_leave_the_axis_its_height(memory: InMemoryStorage) -> None:
    add_values(memory, "tpe", [49.0, *[0.0] * 39])
    (plot,) = drawings_of(memory, "tpe")["trials"]
    assert isinstance(plot, Plot) and plot.limits is None


def test_pairs_are_shown_seed_by_seed_and_by_their_difference(memory: InMemoryStorage) -> None:
    for seed in range(4):
        add_study(memory, "random", seed)
        add_study(memory, "tpe", seed, gap=0.5)
    drawn = drawings_of(memory)
    (seeds,), (differences,) = drawn["seeds"], drawn["differences"]
    assert isinstance(seeds, Plot) and isinstance(differences, Plot)
    assert [marks.label for marks in seeds.marks] == [f"seed {seed}" for seed in range(4)]
    assert all(list(marks.x) == ["random", "tpe"] for marks in seeds.marks)
    (marks,) = differences.marks
    assert marks.x == ["tpe"] and marks.low[0] < marks.y[0] < marks.high[0]
    assert marks.y[0] == pytest.approx(0.5, abs=0.05)


def test_no_plot_and_no_table_shows_an_interval_of_three_seeds(memory: InMemoryStorage) -> None:
    for seed in range(4):
        add_study(memory, "random", seed)
        add_study(memory, "tpe", seed, gap=0.5)
        if seed < 3:
            add_repetitions(memory, add_study(memory, "smac", seed, gap=0.5), [1.5 + seed / 1000])
    drawn = drawings_of(memory)
    (differences,), (runs,) = drawn["differences"], drawn["runs"]
    assert isinstance(differences, Plot) and isinstance(runs, Plot)
    means = [m for m in (*differences.marks, *runs.marks) if m.low]
    shown = {(m.label, x): math.isfinite(low) for m in means for x, low in zip(m.x, m.low)}
    assert shown == {
        ("difference", "tpe"): True, ("difference", "smac"): False, ("best", "random"): True,
        ("best", "tpe"): True, ("best", "smac"): False, ("revalidated", "smac"): False,
    }  # fmt: skip
    singles, mean = differences.marks
    assert list(singles.x) == ["smac"] * 3 and singles.faint and differences.note.endswith("seeds")
    assert fmean(singles.y) == pytest.approx(dict(zip(mean.x, mean.y))["smac"])
    assert any(re.fullmatch(r"smac: \+0\.\d+ on 3 seeds", said) for said in mean.said)
    few = [run for run in runs_of(memory) if run.seed < 3]
    drawn = pictures(few, Report(few, "random").plots)
    plots = [plot for name in ("differences", "runs") for plot in drawn[name]]
    notes = {plot.note for plot in plots if isinstance(plot, Plot)}
    assert notes == {"mean", "mean; pale: single seeds"}
    tests = page_tables.tests_table(comparisons(few, "random"), "best")
    assert " to " not in page_tables.values_table(method_rows(few)) + tests
    assert " to " in page_tables.values_table(method_rows(runs_of(memory)))


@pytest.mark.parametrize("kind", ["svg", "pdf", "png"])
def test_the_same_runs_give_the_same_file(
    memory: InMemoryStorage, tmp_path: Path, kind: str
) -> None:
    add_study(memory, "random", 0, failed_share=1.0)
    drawings = drawings_of(memory)
    files = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        files.append({p.name: p.read_bytes() for p in save(drawings, folder, kind)})
    assert files[0] == files[1] and f"failures.{kind}" in files[0]


@pytest.mark.parametrize("across", [False, True])
def test_both_ways_of_drawing_show_what_a_description_says(across: bool) -> None:
    looks = styles(["a", "b"])
    marks = [
        Marks("points", name, [name], [value], looks[name], [value / 2], [value * 2], part=name)
        for name, value in (("a", 1.0), ("b", 10.0))
    ]
    plot = Plot(marks, "place", "value", "note", "", ["a", "b"], across, True, (0.1, 100.0))
    (axes,) = draw([plot]).axes
    values, places = ("x", "y") if across else ("y", "x")
    static = {
        "places": [text.get_text() for text in getattr(axes, f"get_{places}ticklabels")()],
        "limits": list(getattr(axes, f"get_{values}lim")()),
        "scale": getattr(axes, f"get_{values}scale")(),
        "title": getattr(axes, f"get_{values}label")().replace("\n", " "),
    }
    figure = interactive.draw(plot).to_dict()
    layout = {key: figure["layout"][f"{key}axis"] for key in "xy"}
    assert static == {
        "places": list(layout[places]["categoryarray"]),
        "limits": [10**end for end in layout[values]["range"]],
        "scale": layout[values]["type"],
        "title": layout[values]["title"]["text"],
    }
    for trace, mark in zip(figure["data"], marks):
        assert (list(trace[values]), list(trace[places])) == (mark.y, mark.x)
        error = trace[f"error_{values}"]
        assert (error["arrayminus"], error["array"]) == ([mark.y[0] / 2], mark.y)


def test_differences_are_of_repetitions_where_every_run_has_them(memory: InMemoryStorage) -> None:
    for seed in range(2):
        for method, value in (("random", 1.5), ("tpe", 1.25)):
            add_repetitions(memory, add_study(memory, method, seed), [value + seed])
    (plot,) = drawings_of(memory)["differences"]
    assert isinstance(plot, Plot) and plot.y.startswith("revalidated best val_bpb, minus")
    singles, mean = plot.marks
    assert list(singles.y) == [-0.25, -0.25] and list(mean.y) == [-0.25]
    assert "error_x" not in interactive.draw(plot).data[1].to_plotly_json()
    add_study(memory, "tpe", 2)
    (plot,) = drawings_of(memory)["differences"]
    assert isinstance(plot, Plot) and plot.y.startswith("best val_bpb, minus")
