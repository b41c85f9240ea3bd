"""The pictures in the READMEs of samplers and of the benchmark: ``make pictures``.

They are drawn from stored results: the mean normalized regret of some samplers over all problems of
a scoreboard, against trials; one panel, small enough for the registry, where a scoreboard's own
picture has a panel for each suite.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from studies.publish.build import BENCHMARK
from studies.publish.build import ROOT
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
        ("centaur-no-llm", "tpe", "cma-es"),
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
        board = Board(results, each.samplers)
        (root / each.folder / NAME).parent.mkdir(exist_ok=True)
        drawn[f"{each.folder}/{NAME}"] = [regrets(board, each.trials)]
    return save(drawn, root, "png")


if __name__ == "__main__":
    for path in draw():
        print(path.relative_to(ROOT), path.stat().st_size)
