"""Where and with what a script runs, as a user says it, and which of it a crash points at."""

from __future__ import annotations

from dataclasses import dataclass
import os
import re


_NO_FILE = re.compile(r"No such file|FileNotFoundError|MissingConfigException")
_NO_REPOSITORY = re.compile(r"not a git repository|InvalidGitRepositoryError|\['git',")
_NO_VARIABLE = re.compile(r"KeyError|nvironment variable")  # Python's, and Hydra's beside it
_NO_KEY = re.compile(r"api.?key", re.IGNORECASE)


@dataclass(frozen=True)
class Runtime:
    """What a user says of the surroundings of a script, in plain values.

    Attributes:
        python: Program or command that starts Python, such as ``uv run python``; None finds it by
            itself (`objective.run.interpreter`).
        env: Environment variables beyond the usual (`objective.run.environment`): ``NAME=VALUE``,
            or ``NAME`` with its value here.
        copy: Files, folders or patterns that a trial needs beyond the usual
            (`objective.testbed.files`), seen from the testbed's folder.
        cwd: Working directory, seen from the testbed's folder; None is that folder.
    """

    python: str | None = None
    env: tuple[str, ...] = ()
    copy: tuple[str, ...] = ()
    cwd: str | None = None


def option_for(reason: str) -> str:
    """Return the option that mends a crash which comes of where the script ran; "" if none does."""
    if _NO_FILE.search(reason):
        return (
            "a file that is there where you run the script needs --copy PATH (git may ignore it), or"
            " --cwd FOLDER if its path is seen from there"
        )
    if _NO_REPOSITORY.search(reason):
        return (
            "it runs in a copy, which is no repository: add"
            " --env GIT_DIR=$(git rev-parse --absolute-git-dir)"
        )
    if _NO_VARIABLE.search(reason):
        quoted = re.findall(r"'(\w+)'", reason)
        return next((f"add --env {name}" for name in quoted if name in os.environ), "")
    if _NO_KEY.search(reason):
        return "a key that is set here needs --env NAME"
    return ""
