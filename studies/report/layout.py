"""A page's frame: sections, menus and places of plots in one HTML file that needs no network."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import gzip
from html import escape
from importlib.resources import files
import json
import re
from string import Template
from typing import Any

from plotly.offline import get_plotlyjs

from studies.report.script import page_script


@dataclass(frozen=True)
class Section:
    """A heading, what it shows and how to read it.

    Attributes:
        name: Short, for the link at the top.
        title: The heading.
        text: Plain sentences under it, see `prose`.
        body: HTML of tables, controls and plots.
    """

    name: str
    title: str
    text: str
    body: str

    @property
    def place(self) -> str:
        """The identifier that a link to it has."""
        return "s-" + self.name.lower().replace(" ", "-")

    @property
    def html(self) -> str:
        text = f"<p>{prose(self.text)}</p>" if self.text else ""
        return (
            f'<section id="{self.place}" aria-label="{escape(self.title)}"><h2>{escape(self.title)}</h2>'
            f"{text}{self.body}</section>"
        )


def render(
    title: str,
    subtitle: str,
    sections: Sequence[Section],
    data: Mapping[str, Any],
    made: str = "",
) -> str:
    """Return a page with everything in it that it needs.

    Args:
        title: Its heading.
        subtitle: What stands under it.
        sections: In their order.
        data: What its script draws from: ``figures`` (plotly's, by the key that ``data-figure``
            refers to) and the ``template`` of all of them, ``trials`` (see `page_data.page_trials`) and ``transcripts`` (see
            `page_data.page_transcripts`).
        made: When and how it was made.
    """
    frame = files("studies.report").joinpath("page.html").read_text("utf-8")
    return Template(frame).substitute(
        title=escape(title),
        subtitle=escape(subtitle),
        nav="".join(f'<a href="#{s.place}">{escape(s.name)}</a>' for s in sections),
        sections="\n".join(section.html for section in sections),
        made=escape(made),
        # A third of its size, and parsed only when the first plot is drawn.
        plotly=base64.b64encode(gzip.compress(get_plotlyjs().encode(), 6, mtime=0)).decode(),
        script=page_script(),
        **{name: _script_json(value) for name, value in data.items()},
    )


def menu(label: str, options: Sequence[tuple[Any, str]], attributes: str = "") -> str:
    """Return the HTML of a menu of values with their names."""
    items = "".join(f'<option value="{escape(str(v))}">{escape(t)}</option>' for v, t in options)
    return f'<label>{label} <select aria-label="{label}" {attributes}>{items}</select></label>'


def setting(name: str) -> str:
    """Return the attribute of a control that sets what ``data-view`` draws."""
    return f'data-setting="{name}"'


def figure(title: str, keys: Mapping[str, str], label: str = "") -> str:
    """Return the HTML of the place of several figures, of which a menu chooses one.

    Args:
        title: What it is called to screen readers.
        keys: Of the figures, to their names in the menu.
        label: Of the menu.
    """
    controls = menu(label, list(keys.items()), "data-chooses") if len(keys) > 1 else ""
    return plot(title, f'data-figure="{next(iter(keys))}"', controls)


def plot(title: str, source: str, controls: str = "", *, steps: bool = True) -> str:
    """Return the HTML of a plot's place.

    Args:
        title: What it is called to screen readers.
        source: Says which plot by ``data-figure`` or ``data-view``.
        controls: HTML of what stands above it.
        steps: Whether arrow keys step through its points; its label says so.
    """
    above = f'<div class="controls">{controls}</div>' if controls else ""
    keys = " Arrow keys step through its points." if steps else ""
    return (
        f'{above}<div class="figure" {source} tabindex="0" role="group" '
        f'aria-label="Plot: {escape(title)}.{keys}"></div>'
    )


def bullets(sentences: Sequence[str]) -> str:
    """Return the HTML of a list of sentences."""
    return f"<ul>{''.join(f'<li>{prose(sentence)}</li>' for sentence in sentences)}</ul>"


def prose(text: str) -> str:
    """Return the HTML of plain sentences, in which commands stand between backticks."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _script_json(value: Any) -> str:
    """Return JSON that can stand in a script element: no text in it can end the element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")
