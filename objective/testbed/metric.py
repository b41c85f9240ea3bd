"""The value that a study optimizes: its name, its direction, its unit."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
import re
from typing import Literal
from typing import TYPE_CHECKING

from optuna.study import StudyDirection


if TYPE_CHECKING:
    import optuna


Direction = Literal["minimize", "maximize"]

# Attributes of trials that samplers and studies give a meaning, and that no script may print.
_RESERVED = re.compile(
    r"command|status|reason|source|source_.*|effective|isolation|llm_.*|parent.*|.*_sha256|fingerprint|lines_.*|study.*"
    r"|training_seconds|total_seconds|tid|decision|train_seed|repeats_.*|mended|description|proposer"
    r"|chosen_by|[a-z]+:.*",
    re.IGNORECASE,
)


def is_reserved(name: str) -> bool:
    """Return whether trials have an attribute of this name that is no value of the script's."""
    return _RESERVED.fullmatch(name) is not None


@dataclass(frozen=True)
class Metric:
    """The value that a testbed's script prints and that a study optimizes.

    Attributes:
        name: Key of the script's summary line, user attribute of a measured trial, column of
            tables, and the name in every text.
        direction: As in ``optuna.create_study``.
        unit: In words; empty if it has none.
        evaluator: Function of ``prepare.py`` that measures it, whose return value counts and not
            the printed one; a testbed without it is believed. Empty for any other metric.
        file: File in the script's working directory that it writes the metric to; None if it
            prints it.
    """

    name: str
    direction: Direction = "minimize"
    unit: str = ""
    evaluator: str = ""
    file: str | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.unit})" if self.unit else self.name

    @property
    def better(self) -> Literal["lower", "higher"]:
        """Which values are better."""
        return "lower" if self.direction == "minimize" else "higher"

    def cost(self, value: float) -> float:
        """Return a value so that lower is better."""
        return value if self.direction == "minimize" else -value

    def name_in(self, study: optuna.Study) -> None:
        """Store name and unit in a study that doesn't name its metric, for the dashboard too."""
        if study.metric_names is None:
            study.set_metric_names([self.name])
            if self.name != METRIC.name or self.unit != METRIC.unit:
                study.set_user_attr(_UNIT, self.unit)

    @classmethod
    def of(cls, study: optuna.Study) -> Metric:
        """Return the metric of a stored study; :data:`METRIC` if it doesn't name one."""
        names = study.metric_names
        is_higher = study.directions[0] == StudyDirection.MAXIMIZE
        direction: Direction = "maximize" if is_higher else "minimize"
        if names is None or (names == [METRIC.name] and _UNIT not in study.user_attrs):
            return replace(METRIC, direction=direction)
        return cls(names[0], direction, study.user_attrs.get(_UNIT, ""))


_UNIT = "metric_unit"  # user attribute of a study

METRIC = Metric("val_bpb", unit="bits per byte", evaluator="evaluate_bpb")
