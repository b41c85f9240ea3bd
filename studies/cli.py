"""The command line: a module per command, and one place where errors become one line.

A command's module holds its options and their help, and imports what does its work when it is
called: ``--help`` waits neither for Optuna nor for torch.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stderr
from contextlib import redirect_stdout
from functools import wraps
from importlib import import_module
from importlib.metadata import version
import io
import os
import signal
import sys
import traceback
from typing import Annotated
from typing import Any
from typing import NoReturn

import typer
from typer.exceptions import TyperException

from studies.errors import explain
from studies.errors import masked
from studies.printable import PrintableStream
from studies.stopping import acknowledge
from studies.stopping import exit_status
from studies.stopping import is_stop


# Command -> module and function. Only the one that is called is imported.
COMMANDS = {
    "run": "studies.commands.run:run",
    "agent": "studies.commands.agent:agent",
    "best": "studies.commands.best:best",
    "compare": "studies.commands.compare:compare",
    "revalidate": "studies.commands.revalidate:revalidate",
    "space": "studies.commands.space:space",
    "status": "studies.commands.status:status",
    "doctor": "studies.commands.doctor:doctor",
    "import": "studies.commands.import_:import_",
    "surrogate": "studies.commands.surrogate:surrogate",
    "report": "studies.commands.report:report",
    "dashboard": "studies.commands.dashboard:dashboard",
    "publish": "studies.commands.publish:publish",
    "scoreboard": "studies.commands.scoreboard:scoreboard",
    "serve-llm": "studies.commands.serve:serve_llm",
    "serve-storage": "studies.commands.serve:serve_storage",
}


def make_app(names: list[str]) -> typer.Typer:
    """Build the command line with the commands of these names."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

    @app.callback(invoke_without_command=True)
    def overview(
        context: typer.Context,
        show_version: Annotated[
            bool, typer.Option("--version", help="Print the version and exit.")
        ] = False,
    ) -> None:
        """Tune one expensive training script by classical methods, language models, or both."""
        if show_version:
            print(version("optuna-autoresearch"))
            raise typer.Exit
        if context.invoked_subcommand is None:
            print(context.get_help())

    for name in names:
        module, _, function = COMMANDS[name].partition(":")
        app.command(name)(_quiet(getattr(import_module(module), function)))
    return app


def _quiet(command: Callable[..., None]) -> Callable[..., None]:
    """Wrap a command so that Optuna leaves the terminal to it, and Typer signals to us."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        from studies.workers.processes import quiet_optuna

        quiet_optuna()
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt as stop:  # of which Typer's versions make different things
            raise typer.Abort from stop

    return run


def main() -> NoReturn:
    """Run the command that the arguments name.

    Exit status: 0 done, 1 failed, 2 misuse, 128 + n stopped by signal n: 130 Ctrl-C, 143 SIGTERM.
    """
    for stream in (sys.stdout, sys.stderr):  # a name or reason may hold what a locale doesn't
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() != "utf-8":
            stream.reconfigure(encoding="utf-8")
    shown: Any = PrintableStream(sys.stdout)
    complained: Any = PrintableStream(sys.stderr)
    with redirect_stdout(shown), redirect_stderr(complained):
        status = _run()
    if status == 128 + signal.SIGINT:
        # Python ends by the signal then: after a mere 130 the loop of a bash script goes on.
        sys.excepthook = lambda *error: None
        raise KeyboardInterrupt
    sys.exit(status)


def _run() -> int:
    called = [name for name in sys.argv[1:2] if name in COMMANDS]
    try:
        status = make_app(called or list(COMMANDS))(standalone_mode=False)
    except TyperException as error:
        print(f"error: {error.format_message().rstrip('.')}. See --help.", file=sys.stderr)
        status = error.exit_code
    except (KeyboardInterrupt, typer.Abort) as error:
        acknowledge()
        status = exit_status() if is_stop(error) else 1  # which is no answer to a question
    except BrokenPipeError:
        # The reader (head, say) has seen enough; Python would complain when it flushes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except Exception as error:
        try:
            message, status = explain(error)
        except Exception:  # nobody foresaw it: its traceback is what helps
            print(masked(traceback.format_exc()), file=sys.stderr, end="")
            return 1
        from studies.commands.console import say

        say(f"error: {message}", stderr=True)
    return status or 0
