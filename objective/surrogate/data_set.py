"""Trials of a testbed in one compressed file, with all that is needed to use them elsewhere.

The file is JSON, compressed by xz (a package of OptunaHub, which takes no binary files, has it as
text)::

    {
      "format": 1,
      "made": {"machine": ..., "versions": ..., "command": ..., ...},
      "facts": {"testbed_hash": ..., "train_seconds": 5.0, "memory_limit_mb": 600},
      "task": "...",
      "space": {"DEPTH": {"name": "IntDistribution", ...}, ...},
      "baseline": {"DEPTH": 4, ...},
      "rules": {"TOTAL_BATCH_SIZE": {"power_of_two": true, "at_least": [...]}, ...},
      "constants": {"MAX_SEQ_LEN": 128},
      "studies": [["tpe-seed0", "tpe", 0], ...],
      "metric": {"name": "val_bpb", ...},
      "columns": ["study", "number", "status", "val_bpb", "training_seconds", "total_seconds",
                  "DEPTH", ...],
      "rows": [[0, 0, "ok", 1.9, 5.01, 7.4, 4, ...], ...],
      "fit": ...
    }

``study`` of a row is an index of ``studies`` (name, method, seed). The metric is null if the trial
failed; a file that names no metric has ``val_bpb``. Parameters are as they were suggested, before
the rule. ``fit`` is what :mod:`objective.surrogate.surrogate` learned from the rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
import json
import lzma
import math
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import distribution_to_json
from optuna.distributions import json_to_distribution
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from objective.testbed.metric import METRIC
from objective.testbed.metric import Metric
from objective.testbed.rule import Rule
from objective.testbed.testbed import Testbed


# Studies that differ in one of these have values that don't compare.
METADATA = ("testbed_hash", "train_seconds", "memory_limit_mb")

_FORMAT = 1
_MOST_BYTES = 2**23  # of a file, unpacked: some 50,000 trials
_COLUMNS = ("study", "number", "status", "value", "training_seconds", "total_seconds")


class DataSetError(ValueError):
    """A data set that can't be made or read. The message is one line that says what to do."""


@dataclass(frozen=True)
class Row:
    """One evaluated trial.

    Attributes:
        study: Name of its study.
        method: The study's method; empty if it has none.
        seed: The study's seed.
        number: The trial's number.
        params: As suggested.
        status: ``ok`` or the class of the failure.
        value: Of the metric; None if it failed.
        training_seconds: Charged to the budget: training if ok, else the whole run.
        total_seconds: Of the whole run.
    """

    study: str
    method: str
    seed: int
    number: int
    params: dict[str, Any]
    status: str
    value: float | None
    training_seconds: float
    total_seconds: float


@dataclass(frozen=True)
class DataSet:
    """Evaluated trials of one testbed.

    Attributes:
        space, baseline, task, rule, metric: As in :class:`Testbed`.
        metadata: User attributes that all studies have in common, see ``METADATA``.
        made: Machine, versions and command, in words.
        rows: The trials, by study and number.
        fit: The fitted models' parameters; empty before the fit.
    """

    space: dict[str, BaseDistribution]
    baseline: dict[str, Any]
    task: str
    rule: Rule
    metadata: dict[str, Any]
    made: dict[str, str]
    rows: tuple[Row, ...]
    fit: dict[str, Any] = field(default_factory=dict)
    metric: Metric = METRIC

    @classmethod
    def collect(
        cls, studies: Iterable[optuna.Study], testbed: Testbed, made: Mapping[str, str]
    ) -> DataSet:
        """Return the evaluated trials of studies of a testbed.

        Trials that the objective gave no verdict on (killed, running), trials without all
        parameters of the search space (a code agent's) and studies on a surrogate are left out.

        Raises:
            DataSetError: If there are none, or the studies' values don't compare.
        """
        rows: list[Row] = []
        metadata: dict[str, Any] = {}
        for study in sorted(studies, key=lambda study: study.study_name):
            found = list(_rows(study, testbed.space))
            if not found or study.user_attrs.get("surrogate") is not None:
                continue
            _check_values(study.study_name, found, testbed.space)
            for name in METADATA:
                if name not in study.user_attrs and "revalidates" in study.user_attrs:
                    continue  # it has the metadata of the study that it repeats trials of
                own = study.user_attrs.get(name)
                if own != metadata.setdefault(name, own):
                    raise DataSetError(
                        f"The studies of a data set must have one {name}, but got {metadata[name]}"
                        f" and, of {study.study_name}, {own}."
                    )
            rows += found
        if not rows:
            raise DataSetError("A data set needs evaluated trials of the testbed, but got none.")
        rule = testbed.rule
        factors = {factor for names in rule.at_least.values() for factor in names}
        factors |= rule.only_when.keys()
        factors |= {other for conditions in rule.only_when.values() for other in conditions}
        used = {n: v for n, v in sorted(rule.constants.items()) if n in factors}
        return cls(
            space=dict(testbed.space),
            baseline=dict(testbed.baseline),
            task=testbed.task,
            rule=replace(rule, constants=used),
            metadata=metadata,
            made=dict(made),
            rows=tuple(rows),
            metric=testbed.metric,
        )

    def write(self, path: Path) -> None:
        """Write the compressed file."""
        text = json.dumps(self._document(), separators=(",", ":"), allow_nan=False)
        path.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))

    @classmethod
    def read(cls, path: Path) -> DataSet:
        """Read a file that :meth:`write` wrote, compressed or not.

        Raises:
            DataSetError: If it is something else.
        """
        try:
            with path.open("rb") as file:
                content = file.read(_MOST_BYTES + 1)
            if not content.startswith(b"{"):  # a few kilobytes may unpack to gigabytes
                content = lzma.LZMADecompressor().decompress(content, _MOST_BYTES + 1)
            if len(content) > _MOST_BYTES:
                raise DataSetError(
                    f"{path} must unpack to at most {_MOST_BYTES >> 20} MB, but is larger."
                )
            document = json.loads(content)
            if document["format"] != _FORMAT:
                raise DataSetError(
                    f"{path} must have format {_FORMAT}, but has {document['format']};"
                    " another version of this program wrote it."
                )
            return cls._from_document(document)
        except OSError as error:
            raise DataSetError(f"{path} must be readable, but: {error.strerror}.") from None
        except DataSetError:
            raise
        except (
            lzma.LZMAError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            RecursionError,
        ):
            raise no_data_set(path) from None

    def _document(self) -> dict[str, Any]:
        studies = list(dict.fromkeys((row.study, row.method, row.seed) for row in self.rows))
        index = {study: i for i, study in enumerate(studies)}
        return {
            "format": _FORMAT,
            "made": self.made,
            "facts": self.metadata,
            "task": self.task,
            "space": {n: json.loads(distribution_to_json(d)) for n, d in self.space.items()},
            "baseline": self.baseline,
            "rules": self.rule.rows(),
            "constants": dict(self.rule.constants),
            "studies": studies,
            "metric": asdict(self.metric),
            "columns": [c if c != "value" else self.metric.name for c in _COLUMNS] + [*self.space],
            "rows": [
                [
                    index[row.study, row.method, row.seed],
                    *(getattr(row, column) for column in _COLUMNS[1:]),
                    *(row.params[name] for name in self.space),
                ]
                for row in self.rows
            ],
            "fit": self.fit,
        }

    @classmethod
    def _from_document(cls, document: dict[str, Any]) -> DataSet:
        space = {n: json_to_distribution(json.dumps(d)) for n, d in document["space"].items()}
        rows = []
        for values in document["rows"]:
            stored = dict(zip((*_COLUMNS, *space), values))
            name, method, seed = document["studies"][stored["study"]]
            measured = {column: stored[column] for column in _COLUMNS[1:]}
            params = {name: stored[name] for name in space}
            rows.append(Row(study=name, method=method, seed=seed, params=params, **measured))
        return cls(
            space=space,
            baseline={**document["baseline"]},  # which nothing but an object can be read as
            task=document["task"],
            rule=Rule.from_rows(document["rules"], {**document["constants"]}),
            metadata={**document["facts"]},
            made={**document["made"]},
            rows=tuple(rows),
            fit={**document["fit"]},
            metric=Metric(**document["metric"]) if "metric" in document else METRIC,
        )

    def with_fit(self, fit: Mapping[str, Any]) -> DataSet:
        """Return the same trials with what was learned from them."""
        return replace(self, fit=dict(fit))


def no_data_set(path: Path) -> DataSetError:
    """Return the error of a file that is something else."""
    return DataSetError(
        f"{path} must be a data set that `optuna-autoresearch surrogate` wrote, but isn't."
    )


def _rows(study: optuna.Study, space: Mapping[str, BaseDistribution]) -> Iterable[Row]:
    for trial in study.get_trials(deepcopy=False):
        if not _has_verdict(trial) or not space.keys() <= trial.params.keys():
            continue
        attrs = trial.user_attrs
        ok = attrs["status"] == "ok"
        value = trial.value if ok else None
        if value is not None and not 0 < value < math.inf:
            continue
        total = float(attrs.get("total_seconds", 0.0))
        yield Row(
            study=study.study_name,
            method=str(study.user_attrs.get("method", "")),
            seed=int(study.user_attrs.get("seed", 0)),
            number=trial.number,
            params={name: trial.params[name] for name in space},
            status=attrs["status"],
            value=value,
            training_seconds=float(attrs.get("training_seconds", 0.0)) if ok else total,
            total_seconds=total,
        )


def _check_values(study: str, rows: Iterable[Row], space: Mapping[str, BaseDistribution]) -> None:
    for row in rows:
        for name, distribution in space.items():
            value = row.params[name]
            try:
                inside = distribution._contains(distribution.to_internal_repr(value))
            except ValueError:
                inside = False
            if not inside:
                raise DataSetError(
                    f"The trials of a data set must be in the testbed's search space, but trial"
                    f" {row.number} of {study} has {name} = {value!r}."
                )


def _has_verdict(trial: FrozenTrial) -> bool:
    """Return whether the objective gave the trial a status, which a killed one lacks."""
    status = trial.user_attrs.get("status")
    if status == "ok":
        return trial.state == TrialState.COMPLETE
    return status is not None and trial.state.is_finished()
