"""A folder with a training script, seen as an objective: what may be tuned, from which values.

The folder `embedded` beside this module (``train.py``, ``prepare.py``, ``search_space.toml``,
``task.md``) is the embedded testbed.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
import textwrap
from typing import ClassVar
from typing import TYPE_CHECKING

from objective.testbed.derived import Derived
from objective.testbed.files import Files
from objective.testbed.metric import METRIC
from objective.testbed.metric import Metric
from objective.testbed.rule import Rule
from objective.testbed.runtime import Runtime
from objective.testbed.search_space import left_out
from objective.testbed.search_space import parse_toml
from objective.testbed.search_space import search_space
from objective.testbed.source import read_constants
from objective.testbed.source import TestbedError
from objective.testbed.source import Value


if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


__all__ = ["Testbed", "TestbedError"]

_EMBEDDED = Path(__file__).parent / "embedded"

TIME_BUDGET = "TIME_BUDGET"  # the constant that says how many seconds a script trains

_DEFAULT_TASK = """\
A Python script, train.py in the folder {folder}, trains a model{time} and then validates it. The
result is {metric}: {metric.better} is better. The upper-case constants of the script may be changed;
its data and evaluation may not. A configuration that needs more memory than there is, diverges, or
trains too few steps fails or scores badly.
"""
_DESCRIPTION = 600  # characters of the script's docstring that are told


@dataclass(frozen=True)
class Testbed:
    """A training script and the search space of its constants.

    Attributes:
        path: The folder.
        source: Text of ``train.py``, line ends as they are in the file.
        space: Tunable constants in a fixed order, as Optuna distributions.
        baseline: The script's own values of them.
        constants: Of ``prepare.py``, read without running it, and of ``train.py``: TIME_BUDGET,
            MAX_SEQ_LEN.
        rule: From suggested values to those that the script is run with.
        task: Description for a language model: ``task.md``, or the script's name, docstring,
            training time and metric.
        metric: The value that the script is judged by.
        runtime: Where and with what it runs.
    """

    __test__: ClassVar[bool] = False  # no test, whatever pytest thinks of its name

    path: Path
    source: str
    space: dict[str, BaseDistribution]
    baseline: dict[str, Value]
    constants: dict[str, Value]
    rule: Rule
    task: str
    metric: Metric = METRIC
    runtime: Runtime = Runtime()

    @classmethod
    def load(cls, path: str | Path | None = None, runtime: Runtime = Runtime()) -> Testbed:
        """Read a testbed folder; None is the embedded one.

        Raises:
            TestbedError: If the folder has no readable ``train.py``, or its constants and the
                search space don't fit.
        """
        folder = _EMBEDDED if path is None else Path(path).expanduser().resolve()
        if not (folder / "train.py").is_file():
            raise TestbedError(f"A testbed must be a folder with a train.py, but got {folder}.")
        source = _read(folder / "train.py")
        constants = {**_constants(folder / "prepare.py"), **_constants(folder / "train.py")}
        space, baseline, rule = search_space(source, toml=_read_toml(folder), constants=constants)
        task = folder / "task.md"
        text = _read(task) if task.is_file() else _default_task(folder, source, constants, METRIC)
        return cls(folder, source, space, baseline, constants, rule, text, METRIC, runtime)

    @property
    def is_embedded(self) -> bool:
        """Whether it is the one that comes with the project."""
        return self.path == _EMBEDDED

    @cached_property
    def files(self) -> Files:
        """The files that a training sees.

        Raises:
            TestbedError: If the runtime names others that aren't there, or one can't be looked at.
        """
        try:
            return Files.of(
                self.path, self.runtime.copy, cwd=self.runtime.cwd, alone=self.is_embedded
            )
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise TestbedError(
                f"The files of {self.path} must be readable, but {where}{error.strerror}."
            ) from None

    @cached_property
    def derived(self) -> Derived:
        """Numbers that follow from a configuration, see `objective.testbed.derived`."""
        toml = _read_toml(self.path)
        tables = None if toml is None else parse_toml(toml)
        return Derived.of(tables, self.baseline, self.constants)

    @property
    def left_out(self) -> dict[str, str]:
        """Each upper-case constant of ``train.py`` that isn't tuned, and why not."""
        return left_out(self.source, _read_toml(self.path))

    @property
    def time_budget(self) -> float | None:
        """Seconds that a trial trains; None if no constant says so."""
        value = self.constants.get(TIME_BUDGET)
        if isinstance(value, (bool, str)) or value is None or value <= 0:
            return None
        return float(value)

    def require_time_budget(self) -> None:
        """Refuse to be given a training time that nothing would heed.

        Raises:
            TestbedError: If there is no TIME_BUDGET to be set.
        """
        prepare = self.path / "prepare.py"
        if self.time_budget is None and not (
            prepare.is_file() and _binds(_read(prepare), TIME_BUDGET)
        ):
            raise TestbedError(
                "A training time must have a constant to be set in, but neither train.py nor"
                " prepare.py has one: let train.py train for TIME_BUDGET seconds (such as"
                " TIME_BUDGET = 300), or limit the whole time of a trial instead, by"
                " --wall-seconds (wall_seconds)."
            )


def _default_task(
    folder: Path, source: str, constants: Mapping[str, Value], metric: Metric
) -> str:
    """Tell a language model what is known of a script that comes without a description."""
    seconds = constants.get(TIME_BUDGET)
    text = _DEFAULT_TASK.format(
        folder=folder.name, metric=metric, time=f" for {seconds} seconds" if seconds else ""
    )
    described = ast.get_docstring(ast.parse(source.removeprefix("\ufeff")))
    if described:
        text += f"It says of itself: {textwrap.shorten(described, _DESCRIPTION)}\n"
    return text


def _read_toml(folder: Path) -> str | None:
    path = folder / "search_space.toml"
    return _read(path) if path.is_file() else None


def _constants(path: Path) -> dict[str, Value]:
    if not path.is_file():
        return {}
    constants = read_constants(_read(path), path.name).values()
    return {c.name: c.value for c in constants if c.value is not None}


def _binds(source: str, name: str) -> bool:
    """Return whether a script gives a name a value, a computed or imported one too."""
    for node in ast.walk(ast.parse(source.removeprefix("\ufeff"))):
        if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store):
            return True
        if isinstance(node, ast.alias) and name in (node.name, node.asname):
            return True
    return False


def _read(path: Path) -> str:
    """Return the text of a file with its line ends as they are."""
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise TestbedError(f"{path} must be UTF-8, but byte {error.start} isn't.") from None
    except OSError as error:
        raise TestbedError(f"{path} must be readable, but: {error.strerror}.") from None
