"""A study in optuna-dashboard, as a person sees it in a browser.

``AUTORESEARCH_PICTURE=sqlite:////path/demo.db`` browses that storage instead of a small one made
here, and writes what is seen to docs/images/dashboard.png.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import optuna
from optuna.artifacts import get_all_artifact_meta
import pytest

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
