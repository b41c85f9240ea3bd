"""What a page does in a browser, a file an idea: one script, since a page is a single file."""

from __future__ import annotations

from importlib.resources import files


# In the order in which they are run.
PARTS = (
    "start",
    "comparison",
    "runs",
    "drawing",
    "keyboard",
    "tables",
    "trials",
    "address",
    "transcripts",
)


def page_script() -> str:
    """Return the JavaScript of a page."""
    folder = files(__name__)
    return "\n".join(folder.joinpath(f"{part}.js").read_text("utf-8") for part in PARTS)
