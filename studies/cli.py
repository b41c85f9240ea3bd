"""The command line: a module per command, and one place where errors become one line."""

from __future__ import annotations

from collections.abc import Callable
import os
import sys
from typing import NoReturn

import typer
from typer.exceptions import TyperException

from studies.agent import agent
from studies.dashboard import dashboard
from studies.errors import explain
from studies.report.command import report
from studies.run import run
from studies.serve_llm import serve_llm
from studies.space import space
from studies.status import status
from studies.study import quiet_optuna


COMMANDS: dict[str, Callable[..., None]] = {
    "run": run,
    "agent": agent,
    "space": space,
    "status": status,
    "report": report,
    "dashboard": dashboard,
    "serve-llm": serve_llm,
}

app = typer.Typer(
    help="Tune one expensive training script by classical methods, language models, or both.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for name, function in COMMANDS.items():
    app.command(name)(function)


def main() -> NoReturn:
    """Run the command that the arguments name; exit status 0 done, 1 failed, 2 misuse."""
    quiet_optuna()
    try:
        status = app(standalone_mode=False)
    except TyperException as error:
        print(f"error: {error.format_message().rstrip('.')}. See --help.", file=sys.stderr)
        status = error.exit_code
    except typer.Abort:
        status = 1
    except BrokenPipeError:
        # The reader (head, say) has seen enough; Python would complain when it flushes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except Exception as error:
        message, status = explain(error)
        print(f"error: {message}", file=sys.stderr)
    sys.exit(status or 0)
