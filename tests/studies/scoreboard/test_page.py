"""The page in a browser: every plot is drawn, menus and filters work, and it needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from studies.scoreboard.analysis import Board
from studies.scoreboard.report import page as page_of
from tests.studies.scoreboard.made import result


if TYPE_CHECKING:
    from playwright.sync_api import Page

HOSTILE = "</script><script>window.hacked = 1</script>"


def test_costs_are_sorted_by_their_numbers() -> None:
    rows = [
        result("bbob/f8/10d+oom", "random", trials=50, failed=14),
        result("bbob/f8/10d+oom", "tpe", trials=50, failed=1),
    ]
    page = page_of(Board(rows), [50], [])
    assert '<td data-value="0.28">28 %</td>' in page
    assert '<td data-value="0.02">2 %</td>' in page


@pytest.mark.browser
def test_every_plot_is_drawn_and_samplers_can_be_hidden(page: Page, tmp_path: Path) -> None:
    rows = [
        result(name, sampler, seed, ((1, 9.0), (5, 1.0 + place + seed)), trials=trials, asks=asks)
        for name in ("bbob/f1/2d", "hpolib/protein_structure")
        for seed in range(3)
        for place, (sampler, asks, trials) in enumerate(
            [("random", "", 200), ("tpe", "", 200), ("centaur", HOSTILE, 200), ("gp", "", 50)]
        )
    ]
    command = {"date": "d", "machine": "m", "versions": "v", "command": HOSTILE}
    file = tmp_path / "page.html"
    file.write_text(page_of(Board(rows), [50, 200], [command]), encoding="utf-8")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    figures = page.locator(".figure")
    assert figures.count() == 3
    for i in range(3):
        figures.nth(i).scroll_into_view_if_needed()
        figures.nth(i).locator(".main-svg").first.wait_for()

    def lines() -> list[str]:
        return page.evaluate("document.querySelectorAll('.figure')[1].data.map(t => t.name)")  # type: ignore[no-any-return]

    assert lines() == [f"CentaurSampler ({HOSTILE})", "GPSampler", "RandomSampler", "TPESampler"]
    page.get_by_label("Of", exact=True).select_option("all, 200 trials")
    assert "GPSampler" not in lines()
    page.locator("#methods input[value=TPESampler]").uncheck()
    assert lines() == [f"CentaurSampler ({HOSTILE})", "RandomSampler"]
    assert page.locator("tr[data-method=TPESampler]:visible").count() == 0
    assert page.evaluate("window.hacked") is None
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
