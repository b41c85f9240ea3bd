"""Pictures of what a browser shows, for READMEs and docs: ``make pictures``.

The plot of the package `studies.best_so_far` by its example, and docs/images: the report and the
dashboard of the gallery's stored study, and the report of the comparison that docs/gallery.md tells.
Those of the code agent's study are of a study that isn't stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
import shlex
import shutil
import subprocess
import sys
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import optuna
from PIL import Image
from playwright.sync_api import sync_playwright

from studies.best_so_far import plot_best_so_far
from studies.best_so_far.example import run_studies
from studies.publish.build import ROOT
from studies.publish.build import VISUALIZATION
from studies.publish.gallery import STORED


if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from playwright.sync_api import Page

IMAGES = ROOT / "docs/images"
COMPARISON = "compare --surrogate --methods random,tpe,centaur-no-llm --seeds 0-4 --trials 40"
TITLE = "Centaur on the embedded testbed"  # of the gallery, as the Makefile has it
_DESKTOP, _PHONE = (1000, 1470), (390, 900)  # pixels
_BEST = 14  # trial of the stored study


def photograph_plot(browser: Browser, path: Path) -> None:
    """Write a picture of the plot's example."""
    figure = plot_best_so_far(
        run_studies(), against="training_seconds", interval="bootstrap", x_name="Training time (s)"
    )
    figure.update_yaxes(type="log")
    figure.update_layout(width=760, height=420, margin={"t": 30, "b": 60, "l": 70, "r": 20})
    path.parent.mkdir(exist_ok=True)
    with _opened(browser, (780, 440)) as page:
        page.set_content(figure.to_html())
        page.locator(".main-svg").first.wait_for()
        page.screenshot(path=path)


def photograph_study(browser: Browser, folder: Path) -> None:
    """Write pictures of the stored study: its report, on a phone too, and its dashboard."""
    with TemporaryDirectory() as place:
        stored = Path(place, STORED.name)
        stored.write_bytes(STORED.read_bytes())
        report = _report(stored, f"--title={TITLE}")
        _photograph_report(browser, report, _DESKTOP, folder / "report.png")
        _photograph_report(browser, report, _PHONE, folder / "report_phone.png", dark=True)
        photograph_dashboard(browser, stored, folder)


def photograph_comparison(browser: Browser, folder: Path) -> None:
    """Run the comparison, which takes minutes, and write a picture of its report."""
    with TemporaryDirectory() as place:
        compared = Path(place, "comparison.db")
        _run(*shlex.split(COMPARISON), f"--storage=sqlite:///{compared}")
        report = _report(compared)
        _photograph_report(browser, report, _DESKTOP, folder / "comparison.png", "#s-trials")


def _photograph_report(
    browser: Browser,
    report: Path,
    size: tuple[int, int],
    path: Path,
    section: str = "body",
    *,
    dark: bool = False,
) -> None:
    """Write a picture of a report from a section on."""
    with _opened(browser, size, dark=dark) as page:
        page.goto(report.as_uri())
        page.add_style_tag(
            content="html { scroll-padding: 0 } .bar { position: static !important }"
        )
        page.locator(section).evaluate("section => section.scrollIntoView()")
        page.wait_for_function(
            "[...document.querySelectorAll('.figure')].every(div => 'drawn' in div.dataset || "
            "div.getBoundingClientRect().top > innerHeight || div.getBoundingClientRect().bottom < 0)"
        )
        page.locator(section).evaluate("section => section.scrollIntoView()")
        _save(page, path)


def photograph_dashboard(browser: Browser, database: Path, folder: Path) -> None:
    """Write pictures of a study's page and of the page of its best trial, with the note on it."""
    command = _command("dashboard", "--port=0", f"--storage=sqlite:///{database}")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            address = f"{server.stdout.readline().split()[0]}/studies/1"
            with _opened(browser, (1280, 1130)) as page:
                page.goto(address)
                page.locator(".barlayer .trace").nth(3).wait_for()  # of the timeline, the last
                _save(page, folder / "dashboard.png")
            with _opened(browser, (1280, 760)) as page:
                page.goto(f"{address}/trials?numbers={_BEST}")
                page.get_by_text("the best so far").wait_for()
                _save(page, folder / "dashboard_trial.png")
        finally:
            server.terminate()


@contextmanager
def _opened(browser: Browser, size: tuple[int, int], *, dark: bool = False) -> Iterator[Page]:
    page = browser.new_page(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    yield page
    page.close()


def _save(page: Page, path: Path) -> None:
    """Write a picture of a page with 256 colours, which takes a third of the place."""
    page.wait_for_timeout(1000)  # what moves when it comes has come
    picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def _report(database: Path, *more: str) -> Path:
    folder = database.with_suffix("")
    _run("report", f"--storage=sqlite:///{database}", f"--out={folder}", *more)
    return folder / "report.html"


def _run(*arguments: str) -> None:
    subprocess.run(_command(*arguments), check=True)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "studies", *arguments]


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        photograph_plot(browser, ROOT / VISUALIZATION / "images/best_so_far.png")
        photograph_study(browser, IMAGES)
        photograph_comparison(browser, IMAGES)
        browser.close()
