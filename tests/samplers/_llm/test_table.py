"""Which trials a prompt shows, in which order, and what of each."""

from __future__ import annotations

from collections.abc import Mapping
import csv
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import create_trial

from samplers._llm.prompt import DETAILED
from samplers._llm.prompt import Extent
from samplers._llm.prompt import EXTENTS
from samplers._llm.prompt import window_start
from samplers._llm.table import Table

from .test_prompt import anew
from .test_prompt import grow
from .test_prompt import SPACE


SMALL: dict[str, BaseDistribution] = {
    "depth": IntDistribution(1, 12),
    "lr": FloatDistribution(1e-4, 1, log=True),
    "shape": CategoricalDistribution(["S", "L"]),
}
BASE = {"depth": 6, "lr": 0.01, "shape": "S"}


def add(
    study: optuna.Study,
    value: float,
    attributes: Mapping[str, Any] = {},
    constraint: float = 0.0,
    **params: Any,
) -> None:
    study.add_trial(
        create_trial(
            params={**BASE, **params},
            distributions=SMALL,
            value=value,
            user_attrs=dict(attributes),
            constraints={"c": constraint},
        )
    )


def rows(table: Table, extent: Extent) -> list[dict[str, str]]:
    header, *lines = table.lines(extent)
    return list(csv.DictReader([header, *(line for line in lines if not line.endswith(":"))]))


def test_between_cuts_a_table_begins_with_the_one_before() -> None:
    for extent in (Extent(recent=20, step=10), DETAILED[2]):
        study = optuna.create_study()
        grow(study, SPACE, 40)
        kept = 0
        for _ in range(20):
            before = "\n".join(Table(anew(study), SPACE).lines(extent))
            grow(study, SPACE, 1)
            kept += "\n".join(Table(anew(study), SPACE).lines(extent)).startswith(before)
        assert kept == 18


def test_the_best_are_in_the_table_however_old() -> None:
    study = optuna.create_study()
    for _ in range(2):
        grow(study, SPACE, 50)
    for extent in (EXTENTS[0], DETAILED[0]):
        table = Table(study, SPACE)
        shown = {row["trial"] for row in rows(table, extent)}
        assert {str(t.number) for t in table.best[: extent.best]} <= shown
        assert {str(n) for n in range(window_start(100, extent), 100)} <= shown


def test_the_best_come_first_and_near_copies_stand_with_the_better_one() -> None:
    study = optuna.create_study()
    add(study, 2.0, lr=0.1)
    add(study, 1.0)
    add(study, 1.5, lr=0.0101)
    add(study, 1.2, shape="L")
    for i in range(12):  # the latest, by which the first four are no longer among them
        add(study, 3.0 + i, depth=12, lr=0.9 - 0.05 * i)
    extent = Extent(recent=4, step=4, best=3, others=2, details=True)
    lines = Table(study, SMALL).lines(extent)
    assert lines[0] == "trial,depth,lr,shape,value,note"
    assert lines[1] == "The best of trials 0 to 11, the best first:"
    assert lines[2] == "1,6,0.01,S,1,#0 with other lr; near-copies #2 1.5"
    assert [line.split(",")[0] for line in lines[3:5]] == ["3", "0"]
    far = [line.split(",")[0] for line in lines[6:8]]
    assert lines[5] == "Others of them, failed or far from the best:" and "4" in far


def test_old_failures_are_kept_the_latest_of_each_class_first() -> None:
    study = optuna.create_study()
    for status in ("oom", "nan", "oom", "oom"):
        add(study, 100.0, {"status": status}, depth=len(study.trials) + 1)
    for i in range(20):
        add(study, 1.0 + i / 100, lr=0.001 * (i + 1))
    extent = Extent(recent=4, step=4, best=2, others=2, details=True)
    failed = [
        r["trial"] for r in rows(Table(study, SMALL), extent) if r["value"] in ("oom", "nan")
    ]
    assert failed == ["1", "3"]


def test_old_infeasible_trials_are_none_of_the_best_but_are_kept_as_failures_are() -> None:
    study = optuna.create_study()
    for constraint in (0.5, 0.1):
        add(study, 1.0, constraint=constraint, depth=len(study.trials) + 1)
    for i in range(20):
        add(study, 9.0 + i / 100, lr=0.001 * (i + 1))
    table = Table(study, SMALL)
    lines = table.lines(Extent(recent=4, step=4, best=2, others=1, details=True))
    others = lines.index("Others of them, failed or far from the best:")
    assert not any("(infeasible)" in line for line in lines[:others])
    assert lines[others + 1].startswith("1,2,0.01,S,1 (infeasible),")
    small = table.lines(Extent(recent=4, step=4, best=2))
    assert [line.split(",")[0] for line in small[1:3]] == ["2", "3"]


def test_columns_are_shown_where_they_vary() -> None:
    study = optuna.create_study()
    for depth, steps in ((4, 10424), (8, 50), (2, 10**400)):
        attributes = {"steps": steps, "memory": 1000 + depth / 10, "host": "a", "odd": [1]}
        add(study, 1.0 / depth, attributes, depth=depth)
    table = Table(
        study,
        SMALL,
        derived=lambda p: {"width": 64 * p["depth"], "heads": 4},
        side_data=["steps", "memory", "host", "odd", "missing"],
    )
    first, second, huge = rows(table, DETAILED[0])
    assert huge["steps"] == "nan"
    assert list(first) == ["trial", *SMALL, "width", "value", "steps", "note"]
    assert (first["width"], second["width"]) == ("256", "512")
    assert (first["steps"], second["steps"]) == ("10424", "50")


def test_a_function_chooses_the_columns_of_which_there_are_not_too_many() -> None:
    study = optuna.create_study()
    for i in range(2):
        printed = {f"loss_{n}": 1.0 + i for n in reversed(range(20))}
        add(study, 1.0 + i, {**printed, "odd": i}, depth=4 + i)
    table = Table(study, SMALL, side_data=lambda name: name != "odd")
    shown = [name for name in rows(table, DETAILED[0])[0] if name.startswith("loss")]
    assert len(shown) == 8 and shown == sorted(shown)  # whatever order a storage has them in
    assert "odd" not in rows(table, DETAILED[0])[0]


def test_rows_say_who_proposed_what_and_from_which_trial() -> None:
    study = optuna.create_study()
    add(study, 3.0, {"source": "enqueued"})
    add(study, 2.0, {"source": "llm"}, lr=0.5)
    add(study, 1.0, {"source": "base", "proposer": "steps"}, lr=0.5, shape="L")
    add(study, 1.0, {"source": "mine", "proposer": ["x"]}, depth=1, lr=1e-4, shape="L")
    notes = [row["note"] for row in rows(Table(study, SMALL), DETAILED[0])]
    assert notes == ["given", "you; #0 with other lr", "steps; #1 with other shape", ""]


def test_trials_that_differ_in_what_is_no_column_are_no_repetitions() -> None:
    space: dict[str, BaseDistribution] = {"model": CategoricalDistribution(["forest", "svm"])}
    distributions = {**space, "trees": IntDistribution(1, 500), "seed": IntDistribution(1, 1)}
    study = optuna.create_study()
    for trees, value in ((10, 1.0), (20, 2.0), (20, 2.2)):
        params = {"model": "forest", "trees": trees, "seed": 1}
        study.add_trial(create_trial(params=params, distributions=distributions, value=value))
    for value in (0.1, 0.9):
        study.add_trial(create_trial(value=value))  # nothing is known of what was run
    table = Table(study, space)
    assert table.repeated == [[2.0, 2.2]]
    ran = table.finished[:3]
    assert [[t.number for t in group] for group in table.groups(ran)] == [[0], [1, 2]]
    assert table.origin(ran[1]) == (ran[0], ["trees"])
    assert table.origin(ran[2]) == (ran[1], [])


def test_values_have_the_digits_that_the_noise_allows() -> None:
    study = optuna.create_study()
    for i, value in enumerate((0.973512345, 0.981, 0.99)):
        add(study, value, depth=1 + i)
    for noise, shown in ((None, "0.97351"), (4e-4, "0.97351"), (0.02, "0.974"), (0.5, "0.97")):
        table = Table(study, SMALL, noise=noise)
        assert rows(table, DETAILED[0])[0]["value"] == shown
    repeated = optuna.create_study()
    for value in (0.973512345, 0.993):
        add(repeated, value, depth=1)
    assert rows(Table(repeated, SMALL), DETAILED[0])[0]["value"] == "0.974"
    large = optuna.create_study()
    for i in range(8):
        add(large, 1_000_000.0 + i, depth=1 + i)
    assert [r["value"] for r in rows(Table(large, SMALL), EXTENTS[0])][:2] == [
        "1000000",
        "1000001",
    ]
