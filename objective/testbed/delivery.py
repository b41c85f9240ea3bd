"""The way of values into a script: its constants, its command line, or a configuration file.

Each parameter takes the first way that there is for its name: a placeholder of the command, a value
of the configuration file, an upper-case constant of the script, an argument of ``argparse``. If a
user says nothing of all this, a script that has no constants to tune is tuned by its arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path
import shlex
from typing import Any

from objective.testbed.arguments import Argument
from objective.testbed.arguments import read_arguments
from objective.testbed.arguments import read_globals
from objective.testbed.arguments import read_variables
from objective.testbed.command import Command
from objective.testbed.command import RESERVED
from objective.testbed.command import SEED
from objective.testbed.command import TIME_BUDGET
from objective.testbed.config_file import ConfigFile
from objective.testbed.inference import infer_space
from objective.testbed.interface import Interface
from objective.testbed.source import Constant
from objective.testbed.source import read_text
from objective.testbed.source import scan
from objective.testbed.source import set_constants
from objective.testbed.source import TestbedError
from objective.testbed.space_file import SpaceFile


SCRIPT = "train.py"


@dataclass(frozen=True)
class Inputs:
    """What a training is started with.

    Attributes:
        files: Texts of files, by their paths in the testbed's folder.
        command: Words of the command; a ``python`` in front is the testbed's.
        environment: Variables.
    """

    files: Mapping[str, str]
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """The command as one types it."""
        variables = (f"{name}={shlex.quote(value)}" for name, value in self.environment.items())
        return " ".join([*variables, shlex.join(self.command)])


@dataclass(frozen=True)
class Delivery:
    """How values reach a script.

    Attributes:
        script: Path of the script in the testbed's folder; "" if the command names none.
        command: What starts it.
        arguments: Options that are added behind the command, as far as they are tuned.
        config: The configuration file that takes values, if any.
        parameters: The values that the script has by itself, where they aren't its constants.
    """

    script: str = SCRIPT
    command: Command = Command(("python", SCRIPT))
    arguments: tuple[Argument, ...] = ()
    config: ConfigFile | None = None
    parameters: Mapping[str, Constant] | None = None

    @classmethod
    def find(
        cls, folder: Path, script: str | None, interface: Interface, file: SpaceFile
    ) -> Delivery:
        """Find the ways into a script.

        Args:
            folder: The testbed's.
            script: The script's path in it, if the user named a file.
            interface: What the user says.
            file: The contents of ``search_space.toml``.

        Raises:
            TestbedError: If the script, or the configuration file, isn't there or isn't readable.
        """
        if interface.command is None:
            script = script or SCRIPT
            command = Command(("python", script))
        else:
            command = Command.parse(interface.command)
            named = (name for name in command.scripts() if (folder / name).is_file())
            script = script or next(named, "")
        config = interface.config and ConfigFile(
            interface.config, read_text(folder / interface.config)
        )
        found = cls(script, command, config=config or None)
        if script and not (folder / script).is_file():
            raise TestbedError(f"The script must be a file, but got {folder / script}.")
        source = read_text(folder / script) if script.endswith(".py") else ""
        return found._with_parameters(source, file)

    def _with_parameters(self, source: str, file: SpaceFile) -> Delivery:
        placeholders = [name for name in self.command.placeholders if name not in RESERVED]
        listed = file.space.keys() | set(file.untuned)
        arguments = read_arguments(source, self.script) if self.script.endswith(".py") else {}
        constants = scan(source, self.script) if self.script.endswith(".py") else {}
        parameters = {name: self._own(source, name) for name in placeholders}
        if self.config is not None:
            parameters |= self.config.values()
        by_argument = {name: a for name, a in arguments.items() if name not in parameters}
        if parameters:
            # Whoever names placeholders or a file tunes these, and beside them what is listed.
            parameters |= {n: c for n, c in constants.items() if n in listed - parameters.keys()}
            by_argument = {n: a for n, a in by_argument.items() if n in listed}
        elif infer_space(constants)[0] or listed & constants.keys() or not arguments:
            by_argument = {n: a for n, a in by_argument.items() if n in listed - constants.keys()}
            if not by_argument:
                return self
            parameters = dict(constants)
        chosen = {n: a for n, a in by_argument.items() if n not in parameters}
        parameters |= {name: argument.constant() for name, argument in chosen.items()}
        return replace(self, arguments=tuple(chosen.values()), parameters=parameters)

    def _own(self, source: str, name: str) -> Constant:
        """Return the script's own value of a placeholder, as far as it can be read."""
        option, variable = self.command.option_of(name), self.command.variable_of(name)
        if self.script.endswith(".py"):
            arguments = read_arguments(source, self.script).values()
            variables = read_variables(source, self.script)
            if variable in variables:
                return replace(variables[variable], name=name)
            for argument in arguments:
                if option in argument.options or (option is None and argument.name == name):
                    return replace(argument.constant(), name=name)
            if (found := read_globals(source, self.script)).get(name) is not None:
                return found[name]
        return Constant(
            name,
            None,
            0,
            problem=f"search_space.toml must give {name} a default, for the script's own value of"
            f" {{{name}}} can't be read.",
            why_not="its value in the script can't be read",
        )

    @property
    def is_by_command(self) -> bool:
        """Whether values are words of the command or variables."""
        return bool(self.arguments) or any(n not in RESERVED for n in self.command.placeholders)

    def written(self, source: str, values: Mapping[str, Any]) -> tuple[str, str]:
        """Return the file that takes values, the configuration or the script, without and with them.

        Raises:
            TestbedError: If they are words of the command, or the file has no place for one.
        """
        inputs = self.inputs(source, values)
        if self.is_by_command:
            raise TestbedError(
                f"The script must take its values from a file, but takes them by: {inputs.line}"
            )
        if self.config is not None:
            return self.config.text, inputs.files[self.config.name]
        return source, inputs.files[self.script]

    def problems(self, file: SpaceFile) -> list[str]:
        """Return the placeholders for which neither the script nor the file has a value."""
        own = self.parameters or {}
        return [
            f"{{{name}}} of the command must have a table [{name}] in search_space.toml, for its"
            " value in the script can't be read."
            for name in self.command.placeholders
            if name in own and own[name].value is None and name not in file.space
        ]

    def inputs(
        self,
        source: str,
        values: Mapping[str, Any],
        *,
        seconds: float | None = None,
        seed: int | None = None,
    ) -> Inputs:
        """Return what a training with these values is started with.

        Args:
            source: Text of the script.
            values: Of parameters, as they are to be run.
            seconds: Of training, for ``{TIME_BUDGET}``.
            seed: For ``{SEED}``; None is 0.

        Raises:
            TestbedError: If a placeholder has no value.
        """
        own = {name: c.value for name, c in (self.parameters or {}).items() if c.value is not None}
        known = {**own, SEED: seed or 0, **values}
        if seconds is not None:
            known.setdefault(TIME_BUDGET, int(seconds) if float(seconds).is_integer() else seconds)
        words, environment = self.command.filled(known)
        for argument in self.arguments:
            if argument.name in values:
                words += argument.words(values[argument.name])
        placed = {*self.command.placeholders, *(a.name for a in self.arguments)}
        left = {name: value for name, value in values.items() if name not in placed}
        files = {}
        if self.config is not None:
            in_config = {n: v for n, v in left.items() if n in self.config.values()}
            files[self.config.name] = self.config.with_values(in_config)
            left = {name: value for name, value in left.items() if name not in in_config}
        if self.script:
            script = set_constants(source, left, self.script) if left else source
            files[self.script] = script
        return Inputs(files, words, environment)
