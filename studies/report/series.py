"""The numbers behind a comparison's plots: for the page, for pictures, for CSV and JSON.

Every function returns records, one a drawn point (or bar), as flat dictionaries that begin with
``method``. Values are the metric's own, of which lower or higher ones are better.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from collections.abc import Container
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
import math
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.importance import get_param_importances
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from samplers._llm.record import BASE
from studies.best_so_far.curves import mean_curve
from studies.best_so_far.curves import Steps
from studies.facts import LLM_SOURCES
from studies.facts import REPLACED
from studies.methods import LLM_RATIO
from studies.report.runs import metric_of
from studies.report.runs import Row
from studies.report.runs import Run
from studies.report.statistics import Comparison
from studies.report.statistics import FEW
from studies.report.statistics import summarize
from studies.report.tables import by_method
from studies.report.tables import finite
from studies.report.tables import parameters


Record = dict[str, Any]

LLM_MEASURES = ("prompt_tokens", "seconds", "completion_tokens", "cached_tokens")
_BINS = 8  # of a parameter's range in the failure map
_ENOUGH = 20  # successful trials, of which some importance can be told
_FEW = 10  # values, of which none counts as far from the others


def all_series(
    runs: Sequence[Run],
    methods: Sequence[Record],
    run_rows: Sequence[Record],
    tests: Mapping[str, Sequence[Comparison]] = {},
) -> dict[str, list[Record]]:
    """Name to records of all that is drawn.

    Args:
        runs: Of the comparison.
        methods: Of `tables.method_rows`.
        run_rows: Of `tables.run_rows`.
        tests: Of `tables.all_comparisons`.
    """
    final = ("method", "seed", "best", "revalidated", "revalidated_n")
    return {
        "time": best_so_far(runs, "seconds"),
        "trials": best_so_far(runs, "trials"),
        "final": [{key: row[key] for key in final} for row in run_rows],
        "failures": failures(methods),
        "failure-map": failure_map(runs),
        "sources": sources(runs),
        "ratios": ratios(runs),
        "models": models(runs),
        "llm": language_model(runs),
        "importance": importance(runs),
        "differences": differences(tests, runs),
    }


def best_so_far(runs: Sequence[Run], against: str) -> list[Record]:
    """Return mean best values with 95 % intervals: ``x``, ``mean``, ``low``, ``high``, ``n``.

    A value counts from the moment that its trial has ended, and holds until the next record of its
    method. A curve begins when every run of its method that ever succeeded has a value, and ends
    where the first of them ends.

    Args:
        runs: The runs.
        against: ``"seconds"`` of training or ``"trials"`` that have ended.
    """

    def x_of(row: Row) -> float:
        return row.seconds if against == "seconds" else row.position

    records = []
    for method, group in by_method(runs).items():
        curve = mean_curve(
            [
                Steps(
                    x=[x_of(row) for row in run.incumbents],
                    best=[row.value for row in run.incumbents],
                    end=x_of(run.rows[-1]),
                )
                for run in group
                if run.incumbents
            ]
        )
        if curve is not None:
            records += [
                {"method": method, "x": x, "mean": mean, "low": low, "high": high, "n": curve.n}
                for x, mean, low, high in zip(
                    *(column.tolist() for column in (curve.x, curve.mean, curve.low, curve.high))
                )
            ]
    return records


def failures(methods: Sequence[Record]) -> list[Record]:
    """Count each method's failed trials by class: ``status``, ``count``, ``share``."""
    records = []
    for row in methods:
        for status in sorted({status for each in methods for status in each["failures"]}):
            count = row["failures"].get(status, 0)
            share = count / row["trials"]
            records.append(
                {"method": row["method"], "status": status, "count": count, "share": share}
            )
    return records


def differences(tests: Mapping[str, Sequence[Comparison]], runs: Sequence[Run]) -> list[Record]:
    """Return each method's mean difference from the reference: ``mean``, ``low``, ``high`` (NaN of
    few), ``reference``, ``n`` (seeds that both have), ``value``: ``revalidated`` where all runs have
    that, else ``best``."""
    repeated = all(run.revalidated for run in runs if run.incumbents)
    value = "revalidated" if repeated and "revalidated" in tests else "best"
    return [
        {
            "method": row.method,
            "reference": row.reference,
            "value": value,
            "mean": row.difference,
            "low": row.low if row.n > FEW else math.nan,
            "high": row.high if row.n > FEW else math.nan,
            "n": row.n,
        }
        for row in tests.get(value, ())
        if math.isfinite(row.low)
    ]


def sources(runs: Sequence[Run]) -> list[Record]:
    """Count trials and incumbents by source, where an LLM was asked, with their shares.

    Where the model's proposal was not what was run, its source is ``base``: it has no share in what
    came of that. Incumbents are the improvements over a run's first measured value, so that the
    baseline, which nobody proposed, is none. Trials count from there too.
    """
    records = []
    for method, group in by_method(runs).items():
        later = [
            row
            for run in group
            if run.incumbents
            for row in run.rows[run.incumbents[0].position :]
        ]
        if not any(row.source in LLM_SOURCES for row in later):
            continue
        incumbents = Counter(_ran(row) for run in group for row in run.incumbents[1:])
        trials = Counter(map(_ran, later))
        for source in sorted(trials):
            records.append(
                {
                    "method": method,
                    "source": source,
                    "trials": trials[source],
                    "trials_share": trials[source] / max(1, trials.total()),
                    "incumbents": incumbents[source],
                    "incumbents_share": incumbents[source] / max(1, incumbents.total()),
                }
            )
    return records


def _ran(row: Row) -> str:
    """Return the source of what was run."""
    return BASE if row.source in REPLACED else row.source


def ratios(runs: Sequence[Run]) -> list[Record]:
    """Return runs of methods with several LLM ratios: ``ratio``, ``seed``, ``best``."""
    return _varied(runs, "ratio", lambda run: run.metadata.get("llm_ratio", LLM_RATIO))


def models(runs: Sequence[Run]) -> list[Record]:
    """Return runs of methods with several models: ``model``, ``seed``, ``best``."""
    return _varied(runs, "model", lambda run: run.model)


def _varied(runs: Sequence[Run], name: str, value_of: Callable[[Run], Any]) -> list[Record]:
    """Return runs grouped by what else varies in a method, so that only ``name`` differs."""

    def other(run: Run) -> Any:
        return run.model if name == "ratio" else run.metadata.get("llm_ratio")

    groups: dict[tuple[str, Any], list[Run]] = {}
    for run in runs:
        if "llm_ratio" in run.metadata or run.model:
            variant = run.metadata.get("variant")
            method = f"{run.name} [{variant}]" if variant else run.name
            groups.setdefault((method, other(run)), []).append(run)
    records = []
    for (method, rest), group in groups.items():
        if len({value_of(run) for run in group}) < 2:
            continue
        several = sum(key[0] == method for key in groups) > 1
        also = rest if name == "ratio" else f"r={rest}"
        label = f"{method} [{also}]" if several else method
        group = sorted(group, key=lambda run: (value_of(run), run.seed))
        records += [
            {"method": label, name: value_of(run), "seed": run.seed, "best": run.best}
            for run in group
        ]
    return records


def language_model(runs: Sequence[Run]) -> list[Record]:
    """Average over the runs the trials that asked an LLM, by their place in a run.

    ``trial``, ``prompt_tokens``, ``cached_tokens``, ``completion_tokens``, ``seconds``, ``n``.
    """
    records = []
    for method, group in by_method(runs).items():
        turns: dict[int, list[Row]] = {}
        for run in group:
            for row in run.rows:
                if row.attrs.get("llm_prompt_tokens"):
                    turns.setdefault(row.number, []).append(row)
        for number, rows in sorted(turns.items()):
            record = {"method": method, "trial": number, "n": len(rows)}
            for key in LLM_MEASURES:
                record[key] = sum(row.attrs.get(f"llm_{key}", 0) for row in rows) / len(rows)
            records.append(record)
    return records


def failure_map(runs: Sequence[Run]) -> list[Record]:
    """Count failures by part of each parameter's range: ``parameter``, ``bin``, ``low``, ``high``
    (or ``choice``), ``trials``, ``failed``, ``share``; ``method`` ``""`` is all of them.

    A range is cut into equal parts, on its logarithm if the distribution has that.
    """
    records = []
    for method, group in _all_and_each(runs).items():
        for name in parameters(group):
            distribution = next(run.space[name] for run in group if name in run.space)
            rows = [row for run in group for row in run.rows if name in row.params]
            bounds, places = _bins(distribution, [row.params[name] for row in rows])
            trials = Counter(places)
            failed = Counter(place for place, row in zip(places, rows) if row.failed)
            records += [
                {
                    "method": method,
                    "parameter": name,
                    "bin": i,
                    **bound,
                    "trials": trials[i],
                    "failed": failed[i],
                    "share": failed[i] / trials[i] if trials[i] else math.nan,
                }
                for i, bound in enumerate(bounds)
            ]
    return records


def importance(runs: Sequence[Run]) -> list[Record]:
    """Return how much each parameter matters for being among a method's best tenth: ``parameter``,
    ``importance`` (they sum up to 1) and ``trials``; failures don't count. ``method`` ``""`` is all.

    By PED-ANOVA (Watanabe et al., 2023, arXiv:2304.10255), which takes a moment for thousands of
    trials. Left out are methods with too few trials to say anything.
    """
    records = []
    for method, group in _all_and_each(runs).items():
        space = {name: run.space[name] for run in group for name in run.space}
        choices = {
            n: d.choices for n, d in space.items() if isinstance(d, CategoricalDistribution)
        }
        ranges = {
            n: d for n, d in space.items() if isinstance(d, (FloatDistribution, IntDistribution))
        }
        rows = [r for run in group for r in run.rows if r.ok and r.params.keys() == space.keys()]
        rows = [r for r in rows if all(r.params[n] in known for n, known in choices.items())]
        if len(space) < 2 or len(rows) < _ENOUGH:
            continue
        trials = [
            FrozenTrial(
                number=i,
                trial_id=i,
                state=TrialState.COMPLETE,
                value=row.value,
                params=_clipped(row.params, ranges),
                distributions=space,
                datetime_start=None,
                datetime_complete=None,
                user_attrs={},
                system_attrs={},
                intermediate_values={},
            )
            for i, row in enumerate(rows)
        ]
        study = optuna.create_study(storage=_Given(trials), direction=metric_of(runs).direction)
        found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
        records += [
            {"method": method, "parameter": name, "importance": value, "trials": len(rows)}
            for name, value in found.items()
        ]
    return records


class _Given(optuna.storages.InMemoryStorage):
    """A study of trials as they are: `Study.add_trials` copies each with its distributions, which
    takes longer than all else of a report of thousands."""

    def __init__(self, trials: list[FrozenTrial]) -> None:
        super().__init__()
        self._given = trials

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        return self._given


def _all_and_each(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs of all methods as ``""``, and each method's if there are several."""
    groups = by_method(runs)
    return {"": list(runs), **(groups if len(groups) > 1 else {})}


def _clipped(params: Record, ranges: Mapping[str, FloatDistribution | IntDistribution]) -> Record:
    """Return parameters as values of their ranges, which an objective's rule may have left."""
    inside = dict(params)
    for name, allowed in ranges.items():
        value = min(max(params[name], allowed.low), allowed.high)
        if step := allowed.step:
            value = allowed.low + round((value - allowed.low) / step) * step
        inside[name] = value
    return inside


def _bins(distribution: BaseDistribution, values: Sequence[Any]) -> tuple[list[Record], list[int]]:
    """Cut a distribution's range into parts, and return them and each value's part."""
    if isinstance(distribution, CategoricalDistribution):
        choices = list(distribution.choices)
        bounds = [{"low": None, "high": None, "choice": choice} for choice in choices]
        return bounds, [choices.index(v) if v in choices else -1 for v in values]
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    found = np.asarray(values, dtype=float)
    low, high = _span(float(distribution.low), float(distribution.high), found, distribution.log)
    count = _BINS
    if isinstance(distribution, IntDistribution):
        count = max(1, min(_BINS, int(high - low) // distribution.step + 1))
    edges = np.linspace(0.0, 1.0, count + 1)
    # Not low + (high - low) * edges, which may be infinite in between.
    edges = (
        low ** (1 - edges) * high**edges if distribution.log else low * (1 - edges) + high * edges
    )
    # An objective's rule may run a value just outside the range: the ends are open.
    places = np.searchsorted(edges[1:-1], found)
    bounds = [
        {"low": float(a), "high": float(b), "choice": None} for a, b in zip(edges, edges[1:])
    ]
    return bounds, [int(place) for place in places]


def _span(low: float, high: float, values: np.ndarray, log: bool) -> tuple[float, float]:
    """Return the range to cut: the whole, unless a few values alone make it so wide.

    One of an imported file can be a thousand times the others, which would share one part.
    """
    if len(values) < _FEW:
        return low, high
    first = float(np.quantile(values, 0.02, method="higher"))
    last = float(np.quantile(values, 0.98, method="lower"))

    def width(a: float, b: float) -> float:
        return math.log(b) - math.log(a) if log else b / 2 - a / 2

    if low <= first < last <= high and width(first, last) < width(low, high) / 4:
        return first, last
    return low, high


def summaries(records: Sequence[Record], key: str) -> list[Record]:
    """Return the mean of ``best`` over the records that agree in ``key``, and its 95 % interval
    (NaN of few)."""
    groups: dict[Any, list[float]] = {}
    for record in records:
        groups.setdefault(record[key], []).append(record["best"])
    found = {at: summarize(finite(best)) for at, best in groups.items()}
    none = {"low": math.nan, "high": math.nan}
    return [{key: at, **asdict(s), **(none if s.n <= FEW else {})} for at, s in found.items()]
