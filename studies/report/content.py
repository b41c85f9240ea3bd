"""The contents of a report, computed once for page, pictures, files and terminal."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import TYPE_CHECKING

from studies.report import tables
from studies.report.notes import notes
from studies.report.plots import comparison_plots
from studies.report.runs import Run
from studies.report.series import all_series
from studies.report.time_to_target import times_to_target


if TYPE_CHECKING:
    from studies.best import Winner


class Report:
    """The report of a comparison.

    It has ``methods``, ``run_rows``, ``tests``, ``times`` (to the reference's final value), ``notes``,
    ``series`` and ``plots``.

    Args:
        runs: At least one.
        reference: The method that the others are compared with.
        title: Heading of the page.
        unstarted: Studies in which no trial has ended.
        prices: Of the language model's tokens.
        said: Transcripts, see `transcripts.load_transcripts`.
        winner: Of the study with the best value, if the report is to begin with it.
        made: When and how the report was made.
        artifacts: Address of the folder of artifacts, as the page links to it; empty if there is
            none.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        reference: str,
        title: str = "Comparison of methods",
        unstarted: Sequence[str] = (),
        prices: tables.Prices = tables.Prices(),
        said: Sequence[Mapping[str, Any]] = (),
        winner: Winner | None = None,
        made: str = "",
        artifacts: str = "",
    ) -> None:
        self.winner, self.made, self.artifacts = winner, made, artifacts
        self.runs, self.reference, self.title, self.said = runs, reference, title, said
        self.methods = tables.method_rows(runs, prices)
        self.run_rows = tables.run_rows(runs)
        self.tests = tables.all_comparisons(runs, reference)
        self.times = times_to_target(runs, reference)
        self.notes = notes(runs, self.tests["best"], unstarted)
        self.series = all_series(runs, self.methods, self.run_rows, self.tests)
        self.plots = comparison_plots(runs, self.series)
