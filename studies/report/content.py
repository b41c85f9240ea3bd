"""What a report says, each thing computed once for the page, the pictures, the files and the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from studies.report import tables
from studies.report.drawing import Drawing
from studies.report.notes import notes
from studies.report.plots import comparison_plots
from studies.report.runs import Run
from studies.report.series import all_series
from studies.report.series import Record
from studies.report.statistics import Comparison


@dataclass(frozen=True)
class Report:
    """The report of a comparison.

    Attributes:
        runs: At least one.
        reference: The method that the others are compared with.
        title: Heading of the page.
        unstarted: Studies in which no trial has ended.
        prices: Of the language model's tokens.
        said: Transcripts, see `transcripts.load_transcripts`.
    """

    runs: Sequence[Run]
    reference: str
    title: str = "Comparison of methods"
    unstarted: Sequence[str] = ()
    prices: tables.Prices = tables.Prices()
    said: Sequence[Mapping[str, Any]] = ()

    @cached_property
    def methods(self) -> list[Record]:
        """See `tables.method_rows`."""
        return tables.method_rows(self.runs, self.prices)

    @cached_property
    def tests(self) -> dict[str, list[Comparison]]:
        """See `tables.all_comparisons`."""
        return tables.all_comparisons(self.runs, self.reference)

    @cached_property
    def notes(self) -> list[str]:
        """See `notes.notes`."""
        return notes(self.runs, self.tests["best"], self.unstarted)

    @cached_property
    def series(self) -> dict[str, list[Record]]:
        """See `series.all_series`."""
        return all_series(self.runs, self.methods)

    @cached_property
    def plots(self) -> dict[str, Sequence[Drawing]]:
        """See `plots.comparison_plots`."""
        return comparison_plots(self.runs, self.series)
