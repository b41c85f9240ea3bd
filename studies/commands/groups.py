"""Groups of options that several commands have in common: each a parameter of their functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import fields
from dataclasses import is_dataclass
from dataclasses import replace
from functools import wraps
import inspect
import os
from pathlib import Path
import sys
from typing import Any
from typing import get_type_hints
from typing import TYPE_CHECKING

from studies.commands import options
from studies.errors import Misuse
from studies.methods import Asking
from studies.methods import CODE_AGENT
from studies.methods import METHODS
from studies.methods import NOT_AS_PUBLISHED
from studies.methods import option_of


if TYPE_CHECKING:
    from collections.abc import Sequence

    from objective.failure import FailureValue
    from studies.budget import Budget
    from studies.methods import Method
    from studies.spec import Limits
    from studies.spec import Where


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, in place of each parameter that is a group, the options of the group.

    Typer reads a function's signature, so that is what is changed.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}

    @wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            own = {field.name: values.pop(field.name) for field in fields(group)}
            values[name] = group(**own)
        command(**values)

    parameters = []
    for parameter in inspect.signature(command).parameters.values():
        stands_for, types = [parameter], hints
        if group := groups.get(parameter.name):
            stands_for = list(inspect.signature(group).parameters.values())
            types = get_type_hints(group, include_extras=True)
        parameters += [
            option.replace(annotation=types[option.name], kind=inspect.Parameter.KEYWORD_ONLY)
            for option in stands_for
        ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in parameters}
    return run


@dataclass(frozen=True)
class Script:
    """What is tuned: how the script is started, gets its values, is read, and with what it runs."""

    testbed: options.TestbedFolder = None
    script_command: options.Command = None
    config: options.Config = None
    metric: options.MetricName = None
    direction: options.DirectionName = None
    metric_file: options.MetricFile = None
    python: options.Python = None
    env: options.Env = None
    copy: options.Copy = None

    def where(
        self,
        storage: str,
        artifacts: Path | None,
        *,
        cwd: str | None = None,
        surrogate: str | None = None,
    ) -> Where:
        """Return the place of its studies, and what they tune."""
        from objective.testbed.interface import Interface
        from objective.testbed.runtime import Runtime
        from studies.spec import Where

        python = self.python
        if python is not None and Path(python).expanduser().exists():
            # Workers may be in other folders.
            python = os.path.abspath(Path(python).expanduser())
        return Where(
            storage,
            artifacts,
            self.testbed,
            surrogate,
            Runtime(python, tuple(self.env or ()), tuple(self.copy or ()), cwd),
            Interface(
                self.script_command,
                options.config_path(self.config, self.testbed),
                self.metric,
                self.direction,
                self.metric_file,
            ),
        )


@dataclass(frozen=True)
class Ending:
    """When a study ends: by whatever comes first."""

    trials: options.Trials = None
    budget: options.Budget = None
    until: options.Until = None
    wall_time: options.WallTime = None

    def to_budget(self, train_seconds: float | None, confirm: int = 0) -> Budget:
        """Return it as a budget; without any option it is a number of trials."""
        from studies.budget import Budget

        limited = any(value is not None for value in vars(self).values())
        return Budget(
            self.trials if limited else options.DEFAULT_TRIALS,
            self.budget,
            train_seconds,
            until=self.until,
            wall=self.wall_time,
            confirm=confirm,
        )


@dataclass(frozen=True)
class OneTraining:
    """The limits of one training."""

    train_seconds: options.TrainSeconds = None
    wall_seconds: options.WallSeconds = None
    memory_limit: options.MemoryLimit = None

    def limits(self) -> Limits:
        """Return those that are no part of a budget."""
        from studies.spec import Limits

        return Limits(self.memory_limit, self.wall_seconds)


@dataclass(frozen=True)
class Spending:
    """What a language model may cost."""

    max_tokens: options.MaxTokens = None
    max_cost: options.MaxCost = None
    price_in: options.PriceIn = None
    price_out: options.PriceOut = None


@dataclass(frozen=True)
class AskingOptions:
    """How methods ask a language model, and make use of its answers."""

    warm_start: options.WarmStart = None
    reply: options.Reply = None
    critic: options.CriticOption = None
    learn_from_llm: options.LearnFromLlm = None
    max_prompt_tokens: options.MaxPromptTokens = None
    protocol: options.Protocol = None

    def of(self, methods: Sequence[str], where: Where, failure_value: FailureValue) -> Asking:
        """Check them for the methods that are to be run, and say what a protocol leaves out.

        Raises:
            Misuse: If one is wrong, or heeded by none of the methods; or if the protocol's value
                of failures would be better than successes.
            TestbedError: If the testbed can't be used.
        """
        try:
            asked = Asking(**vars(self))
        except ValueError as error:
            raise Misuse(str(error)) from None
        refuse_unheeded(methods, **replace(asked, protocol=None).given())
        if asked.protocol is not None:
            # The code agent has no value for failures.
            fails = failure_value is None and set(methods) != {CODE_AGENT}
            if fails and where.metric.better == "higher":
                raise Misuse(
                    f"--protocol paper must be with --failure-value where {where.metric.name} is to"
                    " be maximized, for the paper's own may be better than every success"
                )
            print(NOT_AS_PUBLISHED, file=sys.stderr)
        return asked


def refuse_unheeded(methods: Sequence[str], **given: object) -> None:
    """Refuse options that none of the methods heeds: of a language model, and for failures and
    seeds.

    Args:
        methods: Those that are to be run.
        given: Values by the options' names; ``None``, ``()`` and ``False`` are none.

    Raises:
        Misuse: If one was given for nothing.
    """
    for name, value in given.items():
        heeding = [method for method, row in METHODS.items() if _heeds(row, name)]
        if value is not None and not set(heeding) & set(methods):
            raise Misuse(f"{option_of(name)} must be with one of {', '.join(heeding)}")


def _heeds(row: Method, name: str) -> bool:
    if name in ("failure_value", "vary_seed"):
        return not row.edits_code
    if name in vars(Asking()):
        return name in row.heeds
    return row.has_ratio if name == "llm_ratio" else row.uses_llm


def refuse_with(other: str, **given: object) -> None:
    """Refuse options for which another one leaves no use.

    Args:
        other: That one, and why.
        given: Values by the options' names; ``None``, ``()`` and ``False`` are none.

    Raises:
        Misuse: If one was given for nothing.
    """
    for name, value in given.items():
        if value is not None and value != () and value is not False:
            raise Misuse(f"{option_of(name)} must be without {other}")
