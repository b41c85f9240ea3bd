"""A plot as a description: `interactive` draws it with plotly, `static` with matplotlib."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import Literal

from studies.report.style import Style


Kind = Literal["points", "line", "steps", "bars"]


@dataclass(frozen=True)
class Marks:
    """Marks of one look: n of them.

    Attributes:
        kind: ``points``, a ``line`` through them, ``steps`` that hold to the next one, or ``bars``
            upon those that came before at the same place.
        label: In the legend; marks with the same one belong together.
        x: Where they are, numbers or some of the plot's categories, (n,).
        y: Their values, (n,).
        style: Their look.
        low: Lower ends of the values' intervals, (n,) with NaN where there is none, or empty.
        high: Upper ends.
        said: Labels that show where the pointer is, (n,) or empty.
        methods: The method of each, (n,), or the one of all of them, (1,): by it they are hidden.
        part: Marks of another part of the same category stand beside these.
        faint: Drawn translucently.
        in_legend: Whether these are what the legend shows of their label.
    """

    kind: Kind
    label: str
    x: Sequence[Any]
    y: Sequence[float]
    style: Style
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    said: Sequence[str] = ()
    methods: Sequence[str] = ()
    part: str = ""
    faint: bool = False
    in_legend: bool = True


@dataclass(frozen=True)
class Plot:
    """Marks and their axes.

    Attributes:
        marks: The later ones above.
        x: Title of the horizontal axis.
        y: Title of the vertical axis.
        note: What else must be known of the values, in parentheses after their title.
        title: What sets it apart from others of a row.
        categories: Places on the horizontal axis, if these are no numbers.
        across: Draw categories as lines, from above, and values from left to right.
        log: Whether the values' axis is logarithmic.
        limits: Of the values' axis.
        zero: Whether the values' axis shows where 0 is.
    """

    marks: Sequence[Marks]
    x: str = ""
    y: str = ""
    note: str = ""
    title: str = ""
    categories: Sequence[str] = ()
    across: bool = False
    log: bool = False
    limits: tuple[float, float] | None = None
    zero: bool = False

    @property
    def values(self) -> str:
        """Title of the values' axis with its note."""
        return f"{self.y} ({self.note})" if self.note else self.y


@dataclass(frozen=True)
class HeatMap:
    """Percentages as colours, (n_rows, n_columns).

    Attributes:
        rows: Their names, the first above.
        shares: Percentages, None where there is none.
        texts: In the cells.
        said: Labels that show where the pointer is.
        x: Title of the columns, which have no names.
        y: Title of the colours.
        title: What sets it apart from others of a row.
    """

    rows: Sequence[str]
    shares: Sequence[Sequence[float | None]]
    texts: Sequence[Sequence[str]]
    said: Sequence[Sequence[str]]
    x: str
    y: str
    title: str = ""


Drawing = Plot | HeatMap


def limits_without_worst(
    values: Sequence[float], cost: Callable[[float], float], room: float = 0.08
) -> tuple[float, float]:
    """Return limits of an axis for values without the worst tenth, which would flatten all else.

    Args:
        values: Of a metric, at least one, none of them NaN.
        cost: Makes a value of the metric one of which lower is better.
        room: Beyond the best and the worst of those, as a share of what lies between.
    """
    ranked = sorted(values, key=cost)
    best, worst = ranked[0], ranked[int(0.9 * (len(ranked) - 1))]
    more = room * (worst - best or cost(1.0))
    limits = best - more, worst + more
    return min(limits), max(limits)
