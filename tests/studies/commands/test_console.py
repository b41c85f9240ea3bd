from __future__ import annotations

from collections.abc import Callable
import io
from pathlib import Path
import sys
from typing import Any

import optuna
from optuna.trial import create_trial
import pytest
from rich.live import Live
from rich.table import Table
from rich.text import Text

from studies import cli
from studies.commands.console import console
from studies.commands.console import say
from studies.commands.progress import Bar
from studies.printable import PrintableStream
from studies.storage.open import opened


ROOT = Path(__file__).parents[3]
HOSTILE = "\x1b]0;title \x1b[2J \x9b31m \u202e [bold] \ud800"
SHOWN = "\ufffd]0;title \ufffd[2J \ufffd31m \ufffd [bold] \ufffd"


def _table() -> Table:
    table = Table(HOSTILE)
    table.add_row(Text(HOSTILE, style="bold"))
    return table


@pytest.mark.parametrize("make", [lambda: HOSTILE, _table])
def test_a_terminal_obeys_nothing_of_what_it_shows_and_has_its_colours(
    make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    on_terminal = console(force_terminal=True, color_system="standard")
    with Live(make(), console=on_terminal, auto_refresh=False):
        on_terminal.print(make())
    text = out.getvalue()
    assert SHOWN[:16] in text and not set(text) & set("\x9b\u202e\ud800")
    assert "]0;title" not in text.replace("\ufffd]0;title", "")
    if make is _table:
        assert "\x1b[1m" in text  # bold


def test_a_bar_is_drawn_by_the_escapes_that_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", PrintableStream(out))  # as `cli.main` does
    with Bar() as bar:
        bar.show(1, 3, "runs 1/3")
        bar.say(HOSTILE)
    assert "\x1b[2K" in out.getvalue() and out.getvalue().count("\ufffd") == SHOWN.count("\ufffd")


@pytest.mark.parametrize("on_terminal", [True, False])
def test_words_are_whole_on_a_narrow_terminal_and_so_is_a_command(
    on_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: on_terminal)
    monkeypatch.setattr(sys, "stdout", PrintableStream(out))
    monkeypatch.setenv("COLUMNS", "30")
    command = "optuna-autoresearch revalidate --storage sqlite:///a/b/c/d/e/f.db"
    say(f"trial 3 was trained once, so that it is luck; again: {command}")
    say("short")
    say("to run it: python train.py --rate=0.1 --width 100")
    lines = out.getvalue().splitlines()
    if on_terminal:
        first = ["trial 3 was trained once, so", "that it is luck; again:", f"  {command}"]
        last = ["to run it:", "  python train.py --rate=0.1 --width 100"]
        assert lines == [*first, "short", *last]
    else:
        assert len(lines) == 3 and lines[0].endswith(f"again: {command}")


def test_everything_that_is_printed_in_tables_is_printed_so() -> None:
    makers = [
        path.name for path in (ROOT / "studies").rglob("*.py") if "Console(" in path.read_text()
    ]
    assert makers == ["console.py"]


@pytest.mark.parametrize(
    "command", [["status"], ["best"], ["report", "--out"], ["doctor"], ["revalidate"]]
)
def test_names_reasons_and_methods_of_others_are_shown_and_not_obeyed(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path}/s.db"
    name = HOSTILE.replace(" \ud800", "")
    with opened(url) as storage:
        study = optuna.create_study(storage=storage, study_name=name)
        study.set_metric_names([f"${name}"])
        study.set_user_attr("imported_from", HOSTILE)
        study.set_user_attr("method", HOSTILE)
        for status in (HOSTILE, "ok", "crash"):
            study.add_trial(
                create_trial(
                    value=0.5,
                    params={name: 0.5},
                    distributions={name: optuna.distributions.FloatDistribution(0, 1)},
                    user_attrs={"status": status, "reason": HOSTILE, "source": HOSTILE},
                )
            )
    more = [str(tmp_path / "out")] if "--out" in command else []
    monkeypatch.setattr(sys, "argv", ["optuna-autoresearch", *command, *more, "--storage", url])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert ended.value.code == 0, err
    assert not set(out + err) & set("\x1b\x9b\u202e\ud800")
    if more:
        page = (tmp_path / "out" / "report.html").read_text()
        assert "[2J" in page and not set(page) & set("\x1b\x9b\u202e\ud800")
    if command[0] in ("status", "best"):
        assert SHOWN[:20] in out
