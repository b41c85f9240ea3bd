"""The way in and out of a training script: how it is started, gets its values and is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import fields
from dataclasses import replace
from pathlib import PurePath
import re
import textwrap
from typing import Any
from typing import get_args

from objective.testbed.metric import Direction
from objective.testbed.metric import is_reserved
from objective.testbed.metric import METRIC
from objective.testbed.metric import Metric


# Words of a metric's name that say that higher is better, and those that turn them round.
_HIGHER = frozenset(
    "ACCURACY ACC AUC AUROC AUPRC F1 R2 PRECISION RECALL REWARD MAP IOU MIOU DICE BLEU ROUGE NDCG"
    " MRR PSNR SSIM MCC KAPPA RETURN SCORE SUCCESS TOP WIN LIKELIHOOD ELBO PEARSON SPEARMAN"
    " CORRELATION EM PASS".split()
)
_LOWER = frozenset("ERROR ERR LOSS NEG NEGATIVE MINUS REGRET".split())


@dataclass(frozen=True)
class Interface:
    """What a user says of a script; None leaves it to ``search_space.toml``, then to the default.

    Attributes:
        command: How the script is started, with a placeholder ``{NAME}`` for each parameter that
            is an argument or, in ``NAME={NAME}`` in front of the program, an environment
            variable; see `objective.testbed.command.Command`. By default ``python`` and the
            script, whose upper-case constants or argparse arguments are the parameters.
        config: JSON, YAML or TOML file whose values are the parameters, seen from the testbed's
            folder.
        metric: Name of the value that the script is judged by, as it prints it.
        direction: ``minimize`` or ``maximize``.
        metric_file: File that the script writes the metric to, instead of printing it, seen from
            where it works or else from its folder.
    """

    command: str | None = None
    config: str | None = None
    metric: str | None = None
    direction: str | None = None
    metric_file: str | None = None

    def or_else(self, other: Interface) -> Interface:
        """Return this with what it leaves open as ``other`` says."""
        given = {k: v for k, v in vars(self).items() if v is not None}
        return replace(other, **given)

    def facts(self) -> dict[str, str | None]:
        """Return it as user attributes of a study hold it."""
        metric = self.to_metric()
        return {**vars(self), "metric": metric.name, "direction": metric.direction}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Interface:
        """Read it back from the user attributes of a study."""
        return cls(**{field.name: facts.get(field.name) for field in fields(cls)})

    def problems(self) -> list[str]:
        """Return what is wrong with the values themselves, a sentence each."""
        found = []
        directions = get_args(Direction)
        if self.direction not in (None, *directions):
            found.append(
                f"direction must be {' or '.join(directions)}, but got {self.direction!r}."
            )
        if self.metric is not None and not 0 < len(self.metric.strip()) <= 64:
            found.append(
                f"metric must be a name of 1 to 64 characters, but got {self.metric[:80]!r}."
            )
        if self.metric is not None and is_reserved(self.metric.strip()):
            found.append(
                f"metric must not be {self.metric!r}, which is an attribute of trials; print the"
                " value by another name."
            )
        for name, value in (("config", self.config), ("metric_file", self.metric_file)):
            path = PurePath(value or "file")
            is_above = ".." in path.parts and name == "metric_file"
            if path.is_absolute() or is_above or value == "":
                where = "as it is seen from" if name == "config" else "in"
                found.append(
                    f"{name} must be a file {where} the testbed's folder, but got {value!r}."
                )
        return found

    def left_open(self, also: str = "") -> list[str]:
        """Return what must be said before a script is tuned, a sentence each.

        A forgotten direction costs a night in which the worst is sought. ``also`` tells of another
        way to say it.
        """
        name = self.metric or ""
        words = set(re.split(r"[\W_]+", name.upper()))
        words |= {word.rstrip("0123456789") for word in words}  # mAP50, val_acc1
        is_turned = words & _LOWER or re.match(r"\s*(1\s*)?-", name)  # 1-accuracy
        if self.direction is not None or not words & _HIGHER or is_turned:
            return []
        return [
            f"metric {self.metric!r} must have a direction, since higher is better of most that are"
            " called so, but lower would be taken for better: add --direction maximize, or"
            f" minimize{also}."
        ]

    def to_metric(self) -> Metric:
        """Return the metric; without a name, the one that karpathy/autoresearch prints."""
        name = METRIC.name if self.metric is None else self.metric.strip()
        named = METRIC if name == METRIC.name else Metric(name)
        direction: Direction = "maximize" if self.direction == "maximize" else "minimize"
        return replace(named, direction=direction, file=self.metric_file)

    @classmethod
    def from_table(cls, table: Mapping[str, Any], where: str) -> tuple[Interface, list[str]]:
        """Read the keys of ``search_space.toml`` that are no parameters.

        Returns:
            The interface, and what is wrong with it.
        """
        known = [field.name for field in fields(cls)]
        problems = []
        texts = {}
        for key, value in table.items():
            if key not in known:
                problems.append(
                    f"{where}: {key} must be a table [{key}] or one of {', '.join(known)},"
                    f" but got {shown(value)}."
                )
            elif not isinstance(value, str):
                problems.append(f"{where}: {key} must be a string, but got {shown(value)}.")
            else:
                texts[key] = value
        return cls(**texts), problems


def shown(value: object) -> str:
    """Write a value of any size for a message."""
    try:
        return textwrap.shorten(repr(value), 100)
    except ValueError:  # an integer of more digits than Python writes
        return "a number of thousands of digits"
