"""The command line that starts a script, with placeholders for the values of parameters.

``LR={lr} python train.py --width {width} --seed={SEED}``: words as in a shell (nothing else of a
shell is understood), variables in front of the program, and ``{NAME}`` for a parameter's value. Two
names are not parameters: ``{TIME_BUDGET}``, the seconds of --train-seconds, and ``{SEED}``, the
seed of the training. A truth value is written ``True`` or ``False``.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from pathlib import PurePosixPath
import re
import shlex
from typing import Any

from objective.testbed.arguments import text_of
from objective.testbed.source import TestbedError


TIME_BUDGET = "TIME_BUDGET"  # the constant or placeholder that says how many seconds to train
SEED = "SEED"
SEED_VARIABLE = "AUTORESEARCH_SEED"  # of the environment of every training that is given a seed
RESERVED = (TIME_BUDGET, SEED)
_MOST_CHARS = 10_000

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][\w.-]*)\}")
_VARIABLE = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)


@dataclass(frozen=True)
class Command:
    """The words of a command and the variables of its environment, before values are put in.

    Attributes:
        words: Program and arguments. A ``python`` in front is the interpreter of the testbed, which
            ``python3`` is taken for, too.
        environment: Variables.
    """

    words: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Command:
        """Split a command line.

        Raises:
            TestbedError: If it has no program, or a quote that isn't closed.
        """
        if len(text) > _MOST_CHARS:  # the time that shlex takes grows with the square
            raise TestbedError(
                f"The command must have at most {_MOST_CHARS} characters, but has {len(text)}."
            )
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise TestbedError(f"The command must be as in a shell, but: {error}.") from None
        environment = {}
        while words and (variable := _VARIABLE.fullmatch(words[0])):
            environment[variable[1]] = variable[2]
            del words[0]
        if not words:
            raise TestbedError(f"The command must name a program, but got {text!r}.")
        if words[0] == "python3":
            words[0] = "python"
        return cls(tuple(words), environment)

    @property
    def is_python(self) -> bool:
        """Whether the program is the testbed's Python."""
        return self.words[0] == "python"

    @property
    def runs_script(self) -> bool:
        """Whether it is ``python SCRIPT.py``, for which ``prepare.py`` is set up and measures."""
        return self.is_python and len(self.words) > 1 and self.words[1].endswith(".py")

    @property
    def placeholders(self) -> list[str]:
        """Names of the placeholders in their order, each once."""
        texts = (*self.environment.values(), *self.words)
        return list(dict.fromkeys(name for text in texts for name in _PLACEHOLDER.findall(text)))

    @property
    def parameters(self) -> list[str]:
        """The placeholders that are parameters."""
        return [name for name in self.placeholders if name not in RESERVED]

    def scripts(self) -> Iterator[str]:
        """Yield the files, seen from the testbed's folder, that may be the script."""
        for word, following in zip(self.words, (*self.words[1:], "")):
            if word == "-m" and following:
                yield following.replace(".", "/") + ".py"
            elif not word.startswith(("-", "/")) and "{" not in word and "=" not in word:
                yield str(PurePosixPath(word))

    def option_of(self, name: str) -> str | None:
        """Return the option whose value a placeholder is: of ``--lr {x}`` or ``--lr={x}``."""
        before = ""
        for word in self.words:
            if word == f"{{{name}}}" and before.startswith("-") and "=" not in before:
                return before
            if word.startswith("-") and word.endswith(f"={{{name}}}"):
                return word.partition("=")[0]
            before = word
        return None

    def variable_of(self, name: str) -> str | None:
        """Return the environment variable whose value a placeholder is."""
        return next((k for k, v in self.environment.items() if v == f"{{{name}}}"), None)

    def filled(self, values: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
        """Return the words and the environment with these values in place of their names.

        Raises:
            TestbedError: If a placeholder has no value.
        """

        def put(match: re.Match[str]) -> str:
            name = match[1]
            if name not in values:
                needs = "--train-seconds" if name == TIME_BUDGET else "a value"
                raise TestbedError(f"{match[0]} of the command needs {needs}, but there is none.")
            return text_of(values[name])

        words = [_PLACEHOLDER.sub(put, word) for word in self.words]
        return words, {k: _PLACEHOLDER.sub(put, v) for k, v in self.environment.items()}
