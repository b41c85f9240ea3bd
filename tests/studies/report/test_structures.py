"""A report shows the tree of a code agent's edits."""

from __future__ import annotations

import optuna
from optuna.trial import create_trial
from optuna.trial import TrialState

from studies.methods import CODE_AGENT
from studies.report.runs import load_contents
from studies.report.structures import structure_sections


def add(study: optuna.Study, value: float | None, **attrs: object) -> None:
    status = "ok" if value is not None else "crash"
    study.add_trial(
        create_trial(
            value=value,
            state=TrialState.FAIL if value is None else TrialState.COMPLETE,
            user_attrs={"status": status, **attrs},
        )
    )


def test_each_structure_is_a_row_with_its_gains() -> None:
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="code")
    study.set_user_attr("testbed_hash", "0")
    study.set_user_attr("method", CODE_AGENT)
    add(study, 1.0, source="startup")
    add(study, 0.9, source="llm", parent=0, description="a <wider> model")
    add(study, 0.8, source="tuner", parent=1, description="RATE 0.1 -> 0.2")
    add(study, None, source="llm", parent=2, description="a bug")
    (contents,) = load_contents(storage, print).values()
    (section,) = structure_sections(contents.runs)
    rows = section.body.split("<tbody>")[1].split("</tr>")[:-1]
    assert len(rows) == 3
    assert "\u00b7 a &lt;wider&gt; model" in rows[1] and "kept \u2605" in rows[1]
    assert rows[1].count(">0.1000<") == 2  # by the edit and by tuning
    assert "\u00b7 \u00b7 a bug" in rows[2] and "crash" in rows[2]


def test_a_report_of_other_methods_has_no_tree() -> None:
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="other")
    study.set_user_attr("testbed_hash", "0")
    study.set_user_attr("method", "tpe")
    add(study, 1.0)
    (contents,) = load_contents(storage, print).values()
    assert list(structure_sections(contents.runs)) == []
