"""The pictures in packages' READMEs: ``make pictures``.

A sampler's and the benchmark's are drawn from stored results: the mean normalized regret of some samplers over all problems of a scoreboard, against
trials; one panel, small enough for the registry, where a scoreboard's own picture has a panel for
each suite. The plot's is its example's figure, seen in a headless Chromium.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
import shutil

import optuna

from studies.best_so_far import plot_best_so_far
from studies.publish.build import BENCHMARK
from studies.publish.build import ROOT
from studies.publish.build import VISUALIZATION
from studies.report.drawing import Drawing
from studies.report.drawing import Marks
from studies.report.drawing import Plot
from studies.report.style import styles
from studies.scoreboard.analysis import Board
from studies.scoreboard.runs import read


NAME = "images/regret"  # in a package's folder


@dataclass(frozen=True)
class Picture:
    """Mean regrets for a package's README.

    Attributes:
        folder: The package's source, from the project's root.
        results: A scoreboard's folder in ``studies/results``.
        samplers: Drawn, as METHODS names them.
        trials: How many are drawn.
    """

    folder: str
    results: str
    samplers: tuple[str, ...]
    trials: int


_OTHERS = ("tpe", "cma-es", "random")
PICTURES = (
    Picture(
        "samplers/centaur",
        "scoreboard_critic",
        ("centaur-no-llm", "tpe", "cma-es", "registry:catcmawm"),
        100,
    ),
    Picture("samplers/karpathy_agent", "scoreboard", ("karpathy-hp", *_OTHERS), 200),
    Picture("samplers/llambo_paper", "scoreboard", ("llambo-paper", *_OTHERS), 50),
    Picture("samplers/smac", "scoreboard", ("smac", *_OTHERS), 50),
    Picture(BENCHMARK, "scoreboard_surrogate", ("gp", *_OTHERS), 50),
)


def regrets(board: Board, trials: int) -> Plot:
    """Plot mean normalized regrets over all problems that the samplers share."""
    samplers, blocks = board.ranked(board.problems, trials)
    looks, x = styles(samplers), range(1, trials + 1)
    return Plot(
        [
            Marks("steps", name, x, board.curve(name, board.problems, blocks, trials), looks[name])
            for name in samplers
        ],
        x="trials",
        y="mean normalized regret",
        log=True,
    )


def draw(root: Path = ROOT) -> list[Path]:
    """Draw all of `PICTURES` and return their paths; the same results give the same bytes."""
    from studies.report.static import save  # matplotlib is slow to import

    drawn: dict[str, list[Drawing]] = {}
    for each in PICTURES:
        results = read(root / "studies/results" / each.results / "runs.csv")
        board = Board([result for result in results if result.sampler in each.samplers])
        (root / each.folder / NAME).parent.mkdir(exist_ok=True)
        drawn[f"{each.folder}/{NAME}"] = [regrets(board, each.trials)]
    return save(drawn, root, "png")


def photograph(path: Path) -> None:
    """Write a picture of the plot's example as a browser shows it."""
    from playwright.sync_api import sync_playwright

    from studies.best_so_far.example import run_studies

    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    figure = plot_best_so_far(
        run_studies(), against="training_seconds", interval="bootstrap", x_name="Training time (s)"
    )
    figure.update_yaxes(type="log")
    figure.update_layout(width=760, height=420, margin={"t": 30, "b": 60, "l": 70, "r": 20})
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    path.parent.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 780, "height": 440})
        page.set_content(figure.to_html())
        page.locator(".main-svg").first.wait_for()
        page.screenshot(path=path)
        browser.close()


if __name__ == "__main__":
    photograph(ROOT / VISUALIZATION / "images/best_so_far.png")
    for path in draw():
        print(path.relative_to(ROOT), path.stat().st_size)
