"""The way of values into a script: its constants, its command line, or a configuration file.

Each parameter takes the first way that there is for its name: a placeholder of the command, a value
of the configuration file, an upper-case constant of the script, an argument of ``argparse``. If a
user says nothing of all this, a script that has no constants to tune is tuned by its arguments.
"""

from __future__ import annotations

from collections.abc import Container
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
from objective.testbed.arguments import read_imported_arguments
from objective.testbed.arguments import read_subcommands
from objective.testbed.arguments import read_variables
from objective.testbed.command import Command
from objective.testbed.command import SEED
from objective.testbed.command import TIME_BUDGET
from objective.testbed.config_file import ConfigFile
from objective.testbed.inference import infer_space
from objective.testbed.inference import inferred
from objective.testbed.interface import Interface
from objective.testbed.source import Constant
from objective.testbed.source import read_constants
from objective.testbed.source import read_text
from objective.testbed.source import scan
from objective.testbed.source import set_constants
from objective.testbed.source import TestbedError
from objective.testbed.source import Value
from objective.testbed.space_file import NAME
from objective.testbed.space_file import SpaceFile


SCRIPT = "train.py"

# Why an argument isn't tuned that would be if the script had no constants.
DISPLACED = f"beside constants it is tuned only by a table in {NAME}"

_SEEDS = ("seed", "random_seed", "manual_seed")  # in upper or lower case, in any table


@dataclass(frozen=True)
class Inputs:
    """What a training is started with.

    Attributes:
        files: Texts of files, by their paths in the testbed's folder.
        command: Words of the command; a ``python`` in front is the testbed's.
        environment: Variables of the command.
        seed: Of the training; None is the script's own.
    """

    files: Mapping[str, str]
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None

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
        seed: The option that takes the training's seed, if the command doesn't give it one.
        parameters: What may be tuned, with the values that the script has by itself; and arguments
            that aren't, with the reason.
    """

    script: str = SCRIPT
    command: Command = Command(("python", SCRIPT))
    arguments: tuple[Argument, ...] = ()
    config: ConfigFile | None = None
    seed: Argument | None = None
    parameters: Mapping[str, Constant] = field(default_factory=dict)

    @property
    def is_python(self) -> bool:
        """Whether the script is one of Python, which can be read."""
        return self.script.endswith(".py")

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
        source = read_text(folder / script) if found.is_python else ""
        words = command.words if command.is_python else None
        arguments = read_arguments(source, script, words)
        if not arguments and source:
            places = dict.fromkeys([(folder / script).parent, folder])
            arguments = read_imported_arguments(source, script, places, words)
        return found._with_parameters(source, arguments, file)

    def _with_parameters(
        self, source: str, arguments: Mapping[str, Argument], file: SpaceFile
    ) -> Delivery:
        listed = file.space.keys() | set(file.untuned)
        why = DISPLACED
        constants = scan(source, self.script)
        parameters = self._placeholders(source, arguments)
        if self.config is not None:
            parameters |= self.config.values()
        by_argument = {name: a for name, a in arguments.items() if name not in parameters}
        if parameters:
            # Whoever names placeholders or a file tunes these, and beside them what is listed.
            parameters |= {n: c for n, c in constants.items() if n in listed - parameters.keys()}
            by_argument = {n: a for n, a in by_argument.items() if n in listed}
            why = "the command or the configuration file says what is tuned"
        elif infer_space(constants)[0] or listed & constants.keys() or not arguments:
            parameters = constants
            by_argument = {n: a for n, a in by_argument.items() if n in listed}
        chosen = {n: a for n, a in by_argument.items() if n not in parameters}
        parameters |= {name: argument.constant() for name, argument in chosen.items()}
        others = {
            name: argument.constant()
            for name, argument in arguments.items()
            if name not in parameters and self._given.isdisjoint(argument.options)
        }
        tunable, _, reasons = infer_space(others)
        if file.only_listed:
            why = f"{NAME} doesn't list it"
        reasons |= dict.fromkeys(tunable, why)
        parameters |= {
            name: replace(others[name], problem=reason, why_not=reason)
            for name, reason in reasons.items()
        }
        return replace(
            self,
            arguments=tuple(chosen.values()),
            parameters=parameters,
            seed=self._seed_option(arguments),
        )

    @property
    def _given(self) -> set[str]:
        """The options of the command, among other words."""
        return {word.partition("=")[0] for word in self.command.words}

    def _seed_option(self, arguments: Mapping[str, Argument]) -> Argument | None:
        free = (
            a
            for n, a in arguments.items()
            if _is_seed(n) and not a.is_before and self._given.isdisjoint(a.options)
        )
        return next(free, None) if self.command.is_python else None

    def _placeholders(self, source: str, arguments: Mapping[str, Argument]) -> dict[str, Constant]:
        """Return the script's own values of the placeholders, as far as they can be read."""
        variables = read_variables(source, self.script)
        by_option = {option: a for a in arguments.values() for option in a.options}
        assigned = read_globals(source, self.script)
        found = {}
        for name in self.command.parameters:
            option = self.command.option_of(name)
            argument = arguments.get(name) if option is None else by_option.get(option)
            own = variables.get(self.command.variable_of(name) or "")
            if own is None and argument is not None:
                own = argument.constant()
            if own is None:
                unread = "its value in the script can't be read"
                own = assigned.get(name) or Constant(name, None, 0, why_not=unread)
            found[name] = replace(own, name=name, problem="")  # the command sets it
        return found

    @property
    def is_by_command(self) -> bool:
        """Whether values are words of the command or variables."""
        return bool(self.arguments) or bool(self.command.parameters)

    @property
    def place(self) -> str:
        """Where a trial's values stand, for people."""
        if self.is_by_command:
            return "its command"
        return self.script if self.config is None else self.config.name

    def unnamed_subcommands(self, source: str) -> str:
        """Say that the command names none of the script's subcommands; "" if it needn't."""
        is_known = self.is_python and self.command.is_python
        names = read_subcommands(source, self.script) if is_known else []
        if not all(map(set(self.command.words).isdisjoint, names)) or not names:
            return ""
        first, *left = [name for name, *_ in names]
        words = shlex.join([*self.command.words, first])
        others = f" (or {', '.join(left)})" if left else ""
        return (
            f"{self.script} has subcommands: --command '{words}'{others} names one, whose options are"
            " tuned then"
        )

    def why_nothing(self, source: str) -> str:
        """Say what to do about a script of which nothing is tuned."""
        if said := self.unnamed_subcommands(source):
            return said
        found = read_globals(source, self.script).values() if self.is_python else []
        lower = [
            c.name
            for c in found
            if c.value is not None and not c.name.isupper() and inferred(c.name, c.value)
        ]
        how = "--command or --config say how else values reach it"
        if not lower:
            return how
        return f"lower-case names don't count ({', '.join(lower[:5])}): rename them, or {how}"

    @property
    def texts(self) -> list[str]:
        """Words of the command and texts of the configuration file, which may name files."""
        values = [] if self.config is None else [c.value for c in self.config.values().values()]
        return [*self.command.words, *(value for value in values if isinstance(value, str))]

    def written(self, source: str, values: Mapping[str, Any]) -> tuple[str, str]:
        """Return the file that takes values, the configuration or the script, without and with them.

        Raises:
            TestbedError: If they are words of the command, or the file has no place for one.
        """
        inputs = self.inputs(source, values)
        if self.is_by_command:
            raise TestbedError(
                "Values can be written only where they stand in a file, but this script takes them"
                f" from its command line: {inputs.line}"
            )
        if self.config is not None:
            return self.config.text, inputs.files[self.config.name]
        return source, inputs.files[self.script]

    def takes_seed(self, source: str, tuned: Container[str] = ()) -> bool:
        """Return whether `inputs` has a place for the training's seed; a script may read a variable.

        A seed that is ``tuned`` has the trial's value instead.
        """
        places = [self.config.values()] if self.config is not None else []
        if self.is_python:
            places.append(read_constants(source, self.script))
        seeds = [
            name for own in places for name in _seeds({n: c.value for n, c in own.items()}, 0)
        ]
        seeds += [] if self.seed is None else [self.seed.name]
        seeds += [SEED] if SEED in self.command.placeholders else []
        return any(name not in tuned for name in seeds)

    def problems(self, file: SpaceFile) -> list[str]:
        """Return the placeholders for which neither the script nor the file has a value."""
        return [
            f"{{{name}}} of the command must have a table [{name}] in search_space.toml, for its"
            " value in the script can't be read."
            for name in self.command.parameters
            if self.parameters[name].value is None and name not in file.space
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
            seconds: Of training, for ``{TIME_BUDGET}`` and a constant of that name.
            seed: For ``{SEED}``, where None is 0, and for what is called ``seed``: an option, a
                value of the configuration file, a constant.

        Raises:
            TestbedError: If a placeholder has no value.
        """
        given: dict[str, float] = {} if seed is None else {SEED: seed}
        if seconds is not None:
            # An int where it is one: scripts may print or count with it.
            given[TIME_BUDGET] = int(seconds) if float(seconds).is_integer() else seconds
        own = {name: self.parameters[name].value for name in self.command.parameters}
        known = {n: v for n, v in own.items() if v is not None} | {SEED: 0, **given, **values}
        words, environment = self.command.filled(known)
        for argument in self.arguments:
            if argument.name in values:
                words += argument.words(values[argument.name])
        if self.seed is not None and seed is not None and self.seed.name not in values:
            words += self.seed.words(seed)
        placed = {*self.command.placeholders, *(a.name for a in self.arguments)}
        left = {name: value for name, value in values.items() if name not in placed}
        files = {}
        if self.config is not None:
            there = self.config.values()
            in_config = {n: v for n, v in left.items() if n in there}
            if seed is not None:
                in_config = _seeds({n: c.value for n, c in there.items()}, seed) | in_config
            files[self.config.name] = self.config.with_values(in_config)
            left = {name: value for name, value in left.items() if name not in in_config}
        if self.script:
            if self.is_python:
                source = _with_constants(source, given, values)
            files[self.script] = set_constants(source, left, self.script) if left else source
        return Inputs(files, words, environment, seed)


def _is_seed(name: str) -> bool:
    """Return whether a name, of a value within tables too, is that of a training's seed."""
    return name.rpartition(".")[2].lower() in _SEEDS


def _seeds(own: Mapping[str, Value | None], seed: float) -> dict[str, float]:
    """Return the seeds among a script's own values, each with this one."""
    return {n: seed for n, v in own.items() if _is_seed(n) and type(v) is int}


def _with_constants(source: str, given: Mapping[str, float], values: Mapping[str, Any]) -> str:
    """Return a script with its own constants for the training time and the seed set to those given.

    Those of ``prepare.py`` are set in the process that runs the script; ``values`` are set later.
    """
    try:
        own = {name: constant.value for name, constant in read_constants(source).items()}
    except TestbedError:  # no Python, which is to be the trial's failure
        return source
    wanted = {n: v for n, v in given.items() if isinstance(own.get(n), (int, float))}
    if SEED in given:
        wanted |= _seeds(own, given[SEED])
    changed = {n: v for n, v in wanted.items() if own[n] != v and n not in values}
    return set_constants(source, changed)
