"""A study in optuna-dashboard, as a person sees it in a browser.

``AUTORESEARCH_PICTURE=sqlite:////path/demo.db`` browses that storage instead of a small one made
here, and writes what is seen to docs/images/dashboard.png.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING
from urllib.request import urlopen

import optuna
from optuna.artifacts import get_all_artifact_meta
import pytest

from studies.commands.work.dashboard import without_failures
from tests.studies.conftest import Cli


if TYPE_CHECKING:
    from playwright.sync_api import Page


PICTURE = Path(__file__).parents[2] / "docs" / "images" / "dashboard.png"


@pytest.mark.browser
def test_a_study_can_be_browsed_without_an_error(cli: Cli, testbed: Path, page: Page) -> None:
    given = os.environ.get("AUTORESEARCH_PICTURE")
    if given is None:
        done = cli("run", "--method", "random", "--testbed", testbed, "--trials", 4)
        assert done.returncode == 0, done.stderr
    storage = given or cli.storage
    name = optuna.get_all_study_names(storage)[0]
    study = optuna.load_study(study_name=name, storage=storage)
    trial = study.best_trial
    address = cli.dashboard(storage)
    home = f"{address}/dashboard/studies/{study._study_id}"

    page.goto(home)
    drawn = [t for t in study.trials if t.intermediate_values]
    _wait_for(page, "#plot-history .scatterlayer .point", len(drawn))
    _wait_for(page, "#graph-intermediate-values .scatterlayer .trace", len(drawn))
    if given is not None:
        page.screenshot(path=PICTURE, clip={"x": 0, "y": 0, "width": 1280, "height": 1130})

    page.goto(f"{home}/smartSelection")
    _wait_for(page, "#plot-parallel-coordinate .parcoords .y-axis", len(trial.params) + 1)

    page.goto(f"{home}/trials?numbers={trial.number}")
    for text in ("Artifacts", "train.py", "train.log", "val_bpb"):
        page.get_by_text(text).first.wait_for()

    (script,) = [
        meta
        for meta in get_all_artifact_meta(trial, storage=study._storage)
        if meta.filename == "train.py"
    ]
    url = f"{address}/artifacts/{study._study_id}/{trial._trial_id}/{script.artifact_id}"
    with urlopen(url) as response:
        source = response.read().decode()
    assert f"\nDEPTH = {trial.params['DEPTH']}" in source


def _wait_for(page: Page, selector: str, count: int) -> None:
    """Wait until at least so many elements are there."""
    assert count > 0
    page.wait_for_function(
        "([selector, count]) => document.querySelectorAll(selector).length >= count",
        arg=[selector, count],
    )


def test_importances_are_of_what_was_measured(tmp_path: Path) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/s.db")
    unit = optuna.distributions.FloatDistribution(0, 1)
    trials = []
    for i in range(64):
        x, y = i % 8 / 8, i // 8 / 8
        failed = x > 0.3  # what was measured depends on y alone
        trials.append(
            optuna.trial.create_trial(
                params={"x": x, "y": y},
                distributions={"x": unit, "y": unit},
                value=9.0 if failed else y,
                user_attrs={"status": "oom" if failed else "ok"},
                system_attrs={"constraints": [1.0 if failed else -1.0]},
            )
        )
    asked: list[str] = []

    def own(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        asked.append(environ["PATH_INFO"])
        return [b"{}"]

    def answer(path: str) -> Any:
        app = without_failures(own, storage)
        start: Any = lambda status, headers: None  # noqa: E731
        return json.loads(b"".join(app({"PATH_INFO": path}, start)))

    paths = []
    for name, some in (("both", trials), ("good", [t for t in trials if t.value != 9.0])):
        study = optuna.create_study(storage=storage, study_name=name)
        study.add_trials(some)
        paths.append(f"/api/studies/{study._study_id}/param_importances")
    ((first, second),) = answer(paths[0])["param_importances"]
    assert (first["name"], second["name"]) == ("y", "x")
    assert first["importance"] > 0.9 and first["distribution"] == "FloatDistribution"
    others = [paths[1], "/api/studies/77/param_importances", "/api/studies"]
    assert [answer(path) for path in others] == [{}] * 3 and asked == others
