"""What the report says of storages whose answers are known."""

from __future__ import annotations

import math
from pathlib import Path
import re
import subprocess
import sys
import time

import optuna
import pytest

from studies.report.page import build_page
from studies.report.plots import best_so_far
from studies.report.runs import load_runs
from studies.report.tables import comparisons
from studies.report.tables import method_rows
from tests.studies.report.synthetic import add_study


@pytest.fixture
def memory() -> optuna.storages.InMemoryStorage:
    return optuna.storages.InMemoryStorage()


def test_a_method_that_is_better_by_a_known_amount_is_found(
    memory: optuna.storages.InMemoryStorage,
) -> None:
    for seed in range(8):
        add_study(memory, "random", seed)
        add_study(memory, "tpe", seed, gap=-0.03)
    runs = load_runs(memory)
    (row,) = comparisons(runs, "random")
    assert row.difference == pytest.approx(-0.03, abs=0.005)
    assert "tpe is better than random" in row.sentence
    assert [r["method"] for r in method_rows(runs)] == ["tpe", "random"]


def test_equal_methods_and_three_seeds_support_no_claim(
    memory: optuna.storages.InMemoryStorage,
) -> None:
    for seed in range(3):
        add_study(memory, "random", seed)
        add_study(memory, "tpe", seed, gap=-0.03)
    assert "can't support a claim" in comparisons(load_runs(memory), "random")[0].sentence


def test_a_method_whose_trials_all_failed_has_no_best_and_comes_last(
    memory: optuna.storages.InMemoryStorage,
) -> None:
    add_study(memory, "a", 0, failed_share=1.0)
    add_study(memory, "b", 0)
    runs = load_runs(memory)
    rows = method_rows(runs)
    assert [r["method"] for r in rows] == ["b", "a"]
    assert math.isnan(rows[1]["best_mean"]) and rows[1]["failed_share"] == 1.0
    assert "share no finished seed" in comparisons(runs, "b")[0].sentence
    assert "<td>0/1</td>" in build_page(runs, "b", "t")


def test_failure_values_are_never_a_best_and_failures_are_charged_their_whole_run(
    memory: optuna.storages.InMemoryStorage,
) -> None:
    add_study(memory, "a", 1, trials=10, seconds=360.0)
    (run,) = load_runs(memory)
    failed = sum(not row.ok for row in run.rows)
    assert 0 < failed < 10
    assert run.hours == pytest.approx(((10 - failed) * 360 + failed * 72) / 3600)
    assert all(row.value < 2 for row in run.incumbents)


def test_effective_values_are_what_is_reported(memory: optuna.storages.InMemoryStorage) -> None:
    add_study(memory, "a", 0, trials=10)
    (run,) = load_runs(memory)
    assert run.rows[3].params["WIDTH"] == 0.5


def test_curves_are_true_steps_and_begin_when_every_run_has_a_value(
    memory: optuna.storages.InMemoryStorage,
) -> None:
    for seed in range(3):
        add_study(memory, "a", seed)
    runs = load_runs(memory)
    line = best_so_far(runs, against="trials").data[-1]
    assert line.line.shape == "hv"
    assert line.x[0] == 1 and line.x[-1] == 30
    assert line.y[-1] == pytest.approx(sum(run.best() for run in runs) / 3)


def test_a_value_is_not_shown_before_its_trial_has_ended(
    memory: optuna.storages.InMemoryStorage,
) -> None:
    add_study(memory, "a", 0)
    (run,) = load_runs(memory)
    line = best_so_far([run], against="hours").data[-1]
    for row in run.incumbents:
        assert all(y >= row.value for x, y in zip(line.x, line.y) if x < row.hours)
        assert run.best(row.hours) == row.value


@pytest.mark.browser
def test_the_page_works_without_a_network_and_opens_quickly_with_200_studies(
    chromium: str, tmp_path: Path
) -> None:
    from playwright.sync_api import sync_playwright

    memory = optuna.storages.InMemoryStorage()
    for method in ("random", "tpe", "cma-es", "centaur", "smac"):
        for seed in range(40):
            add_study(memory, method, seed)
    page_file = tmp_path / "report.html"
    page_file.write_text(build_page(load_runs(memory), "random", "Comparison"), encoding="utf-8")
    errors: list[str] = []
    requests: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.on("request", lambda r: requests.append(r.url))
        start = time.monotonic()
        page.goto(page_file.as_uri())
        page.wait_for_selector("table")
        print(f"opened in {time.monotonic() - start:.2f} s")
        sections = page.locator("section")
        for i in range(sections.count()):
            sections.nth(i).scroll_into_view_if_needed()
            if sections.nth(i).locator(".figure").count():
                sections.nth(i).locator(".js-plotly-plot .main-svg").first.wait_for()
        first = page.locator("tbody").first.locator("tr").first
        before = first.inner_text()
        page.locator("th button").first.focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        assert first.inner_text() != before
        page.locator("select").first.select_option(index=2)
        browser.close()
    assert errors == []
    assert [url for url in requests if not re.match(r"file:|data:|blob:", url)] == []


def test_the_command_writes_the_page_and_every_table(tmp_path: Path) -> None:
    storage = optuna.storages.get_storage(f"sqlite:///{tmp_path}/s.db")
    add_study(storage, "random", 0, trials=4)
    add_study(storage, "tpe", 0, trials=4)
    command = [
        sys.executable,
        "-m",
        "studies",
        "report",
        "--storage",
        f"sqlite:///{tmp_path}/s.db",
    ]
    done = subprocess.run(
        [*command, "--out", f"{tmp_path}/out"], capture_output=True, text=True, check=True
    )
    assert "2 runs, 8 trials" in done.stdout
    assert len((tmp_path / "out" / "trials.csv").read_text().splitlines()) == 9
    refused = subprocess.run([*command, "--reference", "x"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert refused.stderr == "error: --reference must be one of random, tpe, but got 'x'.\n"
