"""Where and with what a script runs, as a user says it."""

from __future__ import annotations

from dataclasses import dataclass


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
