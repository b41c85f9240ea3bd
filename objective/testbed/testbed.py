"""A folder with a training script, seen as an objective: what may be tuned, from which values.

The folder `embedded` beside this module (``train.py``, ``prepare.py``, ``search_space.toml``,
``task.md``) is the embedded testbed.
"""

from __future__ import annotations

import ast
from collections.abc import Collection
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
import os
from pathlib import Path
import textwrap
from typing import ClassVar
from typing import TYPE_CHECKING

from objective.run.interpreter import find_interpreter
from objective.testbed.command import SEED_VARIABLE
from objective.testbed.command import TIME_BUDGET
from objective.testbed.delivery import Delivery
from objective.testbed.delivery import SCRIPT
from objective.testbed.derived import Derived
from objective.testbed.files import Files
from objective.testbed.interface import Interface
from objective.testbed.metric import METRIC
from objective.testbed.metric import Metric
from objective.testbed.references import References
from objective.testbed.rule import Rule
from objective.testbed.runtime import Runtime
from objective.testbed.search_space import left_out
from objective.testbed.search_space import search_space
from objective.testbed.search_space import told_fixed
from objective.testbed.source import parse_script
from objective.testbed.source import read_constants
from objective.testbed.source import read_text
from objective.testbed.source import TestbedError
from objective.testbed.source import Value
from objective.testbed.space_file import SpaceFile


if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


__all__ = ["Testbed", "TestbedError", "TIME_BUDGET"]

_EMBEDDED = Path(__file__).parent / "embedded"

_DEFAULT_TASK = """\
A script, {script.name} in the folder {script.parent.name}, trains a model{time} and then validates it.
The result is {metric}: {metric.better} is better. The script's parameters may be changed; its data and
evaluation may not. A configuration that needs more memory than there is, diverges, or
trains too few steps fails or scores badly.
"""
_SHOWN = 200  # characters of a path that can't be one
_DESCRIPTION = 600  # characters of the script's docstring that are told


@dataclass(frozen=True)
class Testbed:
    """A training script and the search space of its parameters.

    Attributes:
        path: The folder.
        source: Text of the script, ``train.py``, line ends as they are in the file.
        space: Tunable parameters in a fixed order, as Optuna distributions.
        baseline: The script's own values of them.
        constants: Of ``prepare.py``, read without running it, and of the script: TIME_BUDGET,
            MAX_SEQ_LEN.
        rule: From suggested values to those that the script is run with.
        task: Description for a language model: ``task.md``, or the script's name, docstring,
            training time and metric.
        metric: The value that the script is judged by.
        delivery: How values reach the script.
        interface: What was said of that, by ``search_space.toml`` too.
        runtime: Where and with what it runs.
        file: The contents of ``search_space.toml``.
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
    delivery: Delivery = Delivery()
    interface: Interface = Interface()
    runtime: Runtime = Runtime()
    file: SpaceFile = SpaceFile()

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        runtime: Runtime = Runtime(),
        interface: Interface = Interface(),
    ) -> Testbed:
        """Read a testbed.

        Args:
            path: Its folder, with a ``train.py`` unless the interface's command names another
                script; or a script. None is the embedded one.
            runtime: Where and with what it runs.
            interface: How the script is started, gets its values and is read.

        Raises:
            TestbedError: If there is no readable script, or its parameters and the search space
                don't fit.
        """
        script = None
        try:
            folder = _EMBEDDED if path is None else Path(path).expanduser().resolve()
            is_script = folder.is_file() and folder.suffix == ".py"
        except (ValueError, RuntimeError, OSError) as error:  # a study may have stored anything
            raise TestbedError(
                f"A testbed must be a folder with a {SCRIPT}, or a script, but got"
                f" {ascii(str(path)[:_SHOWN])}: {getattr(error, 'strerror', None) or error}"
            ) from None
        if is_script:
            folder, script = folder.parent, folder.name
        toml = folder / "search_space.toml"
        file = SpaceFile.parse(read_text(toml) if toml.is_file() else "")
        interface = interface.or_else(file.interface)
        also = " (in search_space.toml: direction)"
        if problems := [*interface.problems(), *interface.left_open(also)]:
            raise TestbedError.of(problems)
        if script is None and interface.command is None and not (folder / SCRIPT).is_file():
            scripts = sorted(p.name for p in folder.glob("[!.]*.py") if p.is_file())[:3]
            named = f" Name the script: {' or '.join(map(str, map(folder.joinpath, scripts)))}."
            raise TestbedError(
                f"A testbed must be a folder with a {SCRIPT}, or a script, but got {folder}."
                + (named if scripts else "")
            )
        delivery = Delivery.find(folder, script, interface, file)
        if problems := delivery.problems(file):
            raise TestbedError.of(problems)
        name = delivery.script
        source = read_text(folder / name) if name else ""
        own = _constants(folder / name) if delivery.is_python else {}
        constants = {**_constants(folder / "prepare.py"), **own}
        space, baseline, rule = search_space(
            delivery.parameters,
            file,
            constants=constants,
            script=name or delivery.command.words[0],
            why_nothing=delivery.why_nothing(source),
        )
        metric = interface.to_metric()
        task = folder / "task.md"
        if task.is_file():
            text = read_text(task)
        else:
            text = _default_task(folder / name, source, constants, metric)
        return cls(
            folder,
            source,
            space,
            baseline,
            constants,
            rule,
            text,
            metric,
            delivery,
            interface,
            runtime,
            file,
        )

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
                self.path,
                self.runtime.copy,
                config=self.interface.config,
                texts=self.delivery.texts,
                cwd=self.runtime.cwd,
                alone=self.is_embedded,
                script=self.delivery.script,
            )
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise TestbedError(
                f"The files of {self.path} must be readable, but {where}{error.strerror}."
            ) from None

    def references(self, without: Collection[str] = ()) -> References:
        """Return what the script and the files beside it lead to, but for some of these files."""
        texts = {n: t for n, t in self.files.texts().items() if n not in without}
        script, files = self.delivery.script, self.files
        texts[script] = self.source
        # Where Python looks first, as far as it can be told.
        first = (os.path.dirname(script), "src")
        above = (os.path.relpath(path, files.folder) for path in (files.cwd, *files.paths))
        return References.of(
            texts,
            (*self.delivery.texts, *self.runtime.copy),
            script,
            {os.path.normpath(place) for place in (*first, *above)},
            find_interpreter(self.path, self.runtime.python).packages(),
        )

    @property
    def takes_seed(self) -> bool:
        """Whether there is anything in the script, or beside it, that may heed a training's seed."""
        if self.delivery.takes_seed(self.source, self.space):
            return True
        # What the command sets is what the script gets.
        texts = [self.source, *self.files.texts().values()]
        is_free = SEED_VARIABLE not in self.delivery.command.environment
        return is_free and any(SEED_VARIABLE in t for t in texts)

    def require_seed(self) -> None:
        """Refuse to give each trial a seed that nothing would heed.

        Raises:
            TestbedError: If no such thing is in the script or beside it.
        """
        if not self.takes_seed:
            raise TestbedError(
                "A seed of each trial's own must have a place that nothing else sets, but there is"
                f" none: let the script read the variable {SEED_VARIABLE}, or call a constant, an"
                " option or a value of its configuration seed, or give it {SEED} in --command."
            )

    @cached_property
    def derived(self) -> Derived:
        """Numbers that follow from a configuration, see `objective.testbed.derived`."""
        return Derived.of(self.file.derived, self.baseline, self.constants)

    @cached_property
    def left_out(self) -> dict[str, str]:
        """Each parameter, or upper-case constant, of the script that isn't tuned, and why not."""
        config = self.delivery.config
        lists = config.lists() if config is not None else []
        items = {name: "it is a list, whose items have no names" for name in lists}
        reasons = items | left_out(self.delivery.parameters, self.file)
        return {name: why for name, why in reasons.items() if name not in self.space}

    @property
    def fixed(self) -> dict[str, Value]:
        """Values that aren't tuned and that whoever chooses the others should know."""
        return told_fixed(self.delivery.parameters, self.left_out)

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
        prepare, command = self.path / "prepare.py", self.delivery.command
        own = read_constants(self.source) if self.delivery.is_python else {}
        if TIME_BUDGET in command.placeholders or (TIME_BUDGET in own and self.time_budget):
            return
        # In a process that another program takes the place of, it would have no effect.
        if not (
            command.runs_script and prepare.is_file() and _binds(read_text(prepare), TIME_BUDGET)
        ):
            raise TestbedError(
                f"A training time must have a constant to be set in, but neither"
                f" {self.delivery.script or 'the command'} nor prepare.py has one: let the script"
                " train for TIME_BUDGET seconds (such as TIME_BUDGET = 300), give it"
                " {TIME_BUDGET} in --command, or limit the whole time of a trial instead, by"
                " --wall-seconds (wall_seconds)."
            )


def _default_task(
    script: Path, source: str, constants: Mapping[str, Value], metric: Metric
) -> str:
    """Tell a language model what is known of a script that comes without a description."""
    seconds = constants.get(TIME_BUDGET)
    text = _DEFAULT_TASK.format(
        script=script, metric=metric, time=f" for {seconds} seconds" if seconds else ""
    )
    described = None
    if script.suffix == ".py":
        described = ast.get_docstring(parse_script(source, script.name))
    if described:
        text += f"It says of itself: {textwrap.shorten(described, _DESCRIPTION)}\n"
    return text


def _constants(path: Path) -> dict[str, Value]:
    if not path.is_file():
        return {}
    constants = read_constants(read_text(path), path.name).values()
    return {c.name: c.value for c in constants if c.value is not None}


def _binds(source: str, name: str) -> bool:
    """Return whether a script gives a name a value, a computed or imported one too."""
    for node in ast.walk(parse_script(source, "prepare.py")):
        if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store):
            return True
        if isinstance(node, ast.alias) and name in (node.name, node.asname):
            return True
    return False
