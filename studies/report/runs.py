"""The runs of a comparison, read from a storage: one study is one run of a method with a seed."""

from __future__ import annotations

from collections import Counter
from collections import defaultdict
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from functools import cached_property
import json
import math
from pathlib import PurePath
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from objective.best import values_run
from objective.failure import INFEASIBLE
from objective.testbed.metric import METRIC
from objective.testbed.metric import Metric
from studies.budget import Budget
from studies.budget import by_end
from studies.budget import is_evaluated
from studies.budget import is_ok
from studies.code_agent.history import CodeHistory
from studies.code_agent.history import DOUBTED
from studies.code_agent.history import history_of
from studies.facts import configuration
from studies.facts import known_baseline
from studies.facts import run_state
from studies.facts import trial_status
from studies.library import evaluated_trials
from studies.library import is_library_study
from studies.library import metric_of as metric_of_study
from studies.methods import LLM_RATIO
from studies.repetitions import by_trial
from studies.repetitions import Rank
from studies.repetitions import Repeated
from studies.storage.open import read_each


_ARTIFACTS = "artifacts:"  # begins the names of Optuna's system attributes of them


@dataclass(frozen=True)
class Row:
    """One evaluated trial.

    Attributes:
        number: The trial's number.
        position: How many trials of the run had ended when it had, itself included: 1, 2, ...
        seconds: Time that the run was charged for training up to this trial's end (with that of
            the language model if its budget charges for it).
        value: Of the metric; NaN if it failed. That of an infeasible trial counts nowhere.
        status: ``ok``, ``pruned``, ``infeasible`` or the failure's class.
        source: Who decided the parameters, ``""`` if nobody said.
        params: The values that were really run.
        attrs: The trial's user attributes.
        curve: Values that were reported while it trained, by their steps.
        artifacts: Name and identifier of what was kept of it.
        configuration: Identifies what was run, see `studies.facts.configuration`.
    """

    number: int
    position: int
    seconds: float
    value: float
    status: str
    source: str
    params: dict[str, Any]
    attrs: dict[str, Any]
    curve: Mapping[int, float] = field(default_factory=dict)
    artifacts: Sequence[tuple[str, str]] = ()
    configuration: str = ""

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def failed(self) -> bool:
        """Whether it went wrong; what was stopped as hopeless, or violates a constraint, didn't."""
        return self.status not in ("ok", "pruned", INFEASIBLE)


@dataclass(frozen=True)
class Run:
    """One study.

    Attributes:
        study: Its name.
        method: Its method, with what else sets it apart (an LLM ratio, a model).
        seed: Its seed, 0 if that is unknown; runs of two methods with one seed are a pair.
        rows: The evaluated trials in the order in which they ended.
        metadata: The study's user attributes.
        space: Parameter to distribution, as the trials have it.
        state: How far it is with its budget, see `run_state`.
        repeated: The repetitions of its trials with fresh seeds, by the trials' numbers.
        metric: Names its values.
        history: What a code agent kept and reverted; None of another method.
        baseline: The number of the trial that ran the script as it is; None if none is known to.
    """

    study: str
    method: str
    seed: int
    rows: tuple[Row, ...]
    metadata: Mapping[str, Any]
    space: Mapping[str, BaseDistribution]
    state: str = "done"
    repeated: Mapping[int, Repeated] = field(default_factory=dict)
    metric: Metric = METRIC
    history: CodeHistory | None = None
    baseline: int | None = None

    @cached_property
    def incumbents(self) -> list[Row]:
        """The trials that were the best so far when they ended, in order.

        Of equal values the lowest number's is the best, as in `best_trial`. Where it ends later it
        improves nothing: it takes the other's place, and counts from its end. Of a code agent: the
        first baseline, and what was kept, which counts from the end of its second training if it
        had one.
        """
        cost = self.metric.cost
        found: list[Row] = []
        if self.history is not None:
            rows = {row.number: row for row in self.rows}
            for step in self.history.incumbents:
                kept, end = step.trial.number, (step.again or step.trial).number
                if kept in rows and end in rows:
                    at = rows[end]
                    found.append(replace(rows[kept], position=at.position, seconds=at.seconds))
            return found
        for row in self.rows:
            last = found[-1] if found else None
            if not row.ok:
                continue
            if last is None or cost(row.value) < cost(last.value):
                found.append(row)
            elif row.value == last.value and row.number < last.number:
                found[-1] = replace(row, position=last.position, seconds=last.seconds)
        return found

    @property
    def label(self) -> str:
        """The method with the seed, unless that is unknown."""
        return f"{self.method}, seed {self.seed}" if "seed" in self.metadata else self.method

    @property
    def name(self) -> str:
        """The method without what its label adds."""
        return str(self.metadata.get("method", self.study))

    @cached_property
    def model(self) -> str:
        """The language model: as the study says, else as most trials do, else ``""``."""
        if self.metadata.get("model"):
            return str(self.metadata["model"])
        seen = Counter(r.attrs["llm_model"] for r in self.rows if r.attrs.get("llm_model"))
        return str(seen.most_common(1)[0][0]) if seen else ""

    @property
    def best(self) -> float:
        """The best value that was measured; NaN if nothing succeeded."""
        return self.incumbents[-1].value if self.incumbents else math.nan

    @property
    def _again(self) -> Repeated:
        none = Repeated()
        return self.repeated.get(self.incumbents[-1].number, none) if self.incumbents else none

    @property
    def revalidated(self) -> tuple[float, ...]:
        """Values of its best configuration, trained again with fresh seeds."""
        return self._again.values

    @property
    def revalidated_best(self) -> float:
        """Mean value of the repetitions that did not fail; NaN if there is none."""
        mean = self._again.mean
        return math.nan if mean is None else mean

    @property
    def revalidated_failed(self) -> int:
        """Number of repetitions that failed."""
        return self._again.failed

    @property
    def repetitions(self) -> int:
        """How often its best configuration was trained again, failures included."""
        return self._again.trainings

    @property
    def winner(self) -> Row | None:
        """Its best trial, by repetitions where it has some, see `studies.best.find_winner`."""
        if not self.repetitions:
            return self.incumbents[-1] if self.incumbents else None
        again = [row for row in self.rows if row.ok and row.number in self.repeated]
        return min(again, key=lambda row: self.repeated[row.number].rank(self.metric))

    @property
    def rank(self) -> Rank:
        """That of its winner's repetitions."""
        winner, none = self.winner, Repeated()
        again = none if winner is None else self.repeated.get(winner.number, none)
        return again.rank(self.metric)

    @property
    def is_at_baseline(self) -> bool:
        """Whether its best configuration is the baseline."""
        given = {row.configuration for row in self.rows if row.number == self.baseline}
        return bool(self.incumbents) and self.incumbents[-1].configuration in given

    @property
    def seconds(self) -> float:
        """Charged training time in seconds."""
        return self.rows[-1].seconds if self.rows else 0.0

    @cached_property
    def distinct(self) -> int:
        """Number of different configurations, or sources of a code agent, that were run."""
        return len({row.configuration for row in self.rows})

    def until(self, seconds: float = math.inf, trials: float = math.inf) -> Run:
        """Return the run as it was after a training time or a number of trials."""
        rows = tuple(r for r in self.rows if r.seconds <= seconds and r.position <= trials)
        return replace(self, rows=rows)


@dataclass
class Contents:
    """The runs of a comparison in a storage.

    Attributes:
        runs: By method and seed.
        unstarted: Studies with a method in which no trial has ended.
    """

    runs: list[Run] = field(default_factory=list)
    unstarted: list[str] = field(default_factory=list)


def metric_of(runs: Sequence[Run]) -> Metric:
    """Return the metric of runs that are compared, which all have the same, see `load_contents`."""
    return runs[0].metric if runs else METRIC


def load_contents(
    storage: optuna.storages.BaseStorage,
    say: Callable[[str], None],
    studies: Collection[str] | None = None,
) -> dict[str, Contents]:
    """Return the comparisons of a storage by name; ``""`` are the studies that belong to none.

    ``say`` is given a line for each study that can't be read. Of ``studies``, if given, all others
    are left out, but for their repetitions.

    A run is a study with the attribute ``method``, or one that was made with Optuna alone: it is a
    comparison by itself, under its own name. A study with the attribute ``revalidates`` holds the
    best configuration of the study that it names, trained again.

    Values of different metrics don't compare: where a comparison has runs of several, it is one for
    each of them, and its name says which.
    """
    comparisons: dict[tuple[str, str, str], Contents] = defaultdict(Contents)
    again: dict[str, Sequence[FrozenTrial]] = {}

    def read(study: optuna.Study) -> None:
        name, metadata = study.study_name, study.user_attrs
        if studies is not None and metadata.get("revalidates", name) not in studies:
            return
        if (objectives := len(study.directions)) > 1:
            say(f"study {name!r} has {objectives} objectives; a report shows studies of one")
            return
        trials = evaluated_trials(study)
        if "revalidates" in metadata:
            again[metadata["revalidates"]] = trials
            return
        # Nothing says that studies of other programs compare, so that each is shown alone.
        alone = name if is_library_study(metadata) else ""
        comparison = str(metadata.get("comparison", alone))
        metric = metric_of_study(study)
        run = _run(name, metadata, trials, metric)
        contents = comparisons[comparison, metric.name, metric.better]
        if run.rows:
            contents.runs.append(run)
        else:
            contents.unstarted.append(name)

    read_each(storage, read, say)
    metrics = Counter(key[0] for key, contents in comparisons.items() if contents.runs)
    found = {}
    for (comparison, metric, better), contents in comparisons.items():
        if not contents.runs:
            continue
        name = comparison
        if metrics[comparison] > 1:
            name = f"{comparison}{', ' * bool(comparison)}{metric} ({better} is better)"
        members = [_with_repetitions(r, again.get(r.study, ())) for r in contents.runs]
        found[name] = Contents(_label(members), contents.unstarted)
    return found


def _with_repetitions(run: Run, trials: Sequence[FrozenTrial]) -> Run:
    value = {row.number: row.value for row in run.rows}
    return replace(run, repeated=by_trial(trials, value))


def _run(
    name: str, metadata: dict[str, Any], trials: Sequence[FrozenTrial], metric: Metric
) -> Run:
    space: dict[str, BaseDistribution] = {}
    for trial in trials:
        for parameter, distribution in trial.distributions.items():
            space.setdefault(parameter, distribution)
    rows = _rows(trials, Budget.of(metadata))
    history, baseline = history_of(trials, metric, metadata), known_baseline(trials, metadata)
    if history is not None:
        rows = tuple(_believed(rows, history))
    return Run(
        study=name,
        method=str(metadata.get("method", name)),
        seed=int(metadata.get("seed", 0)),
        rows=rows,
        metadata=metadata,
        space=space,
        state=run_state(metadata, trials),
        metric=metric,
        history=history,
        baseline=None if baseline is None else baseline.number,
    )


def _believed(rows: Sequence[Row], history: CodeHistory) -> Iterator[Row]:
    """Yield rows with the values of second trainings, and none where a gain is still doubted."""
    doubted = {step.trial.number: step for step in history.steps if step.was_doubted}
    for row in rows:
        step = doubted.get(row.number)
        if step is None:
            yield row
        elif step.value is None:
            yield replace(row, value=math.nan, status=DOUBTED)
        else:
            yield replace(row, value=step.value)


def _label(runs: Sequence[Run]) -> list[Run]:
    """Label runs by their method and by what sets them apart from its others."""
    models: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        models[run.name].add(run.model)
    labelled = []
    for run in runs:
        extras = []
        if run.metadata.get("model") or len(models[run.name]) > 1:
            extras.append(_short(run.model, models[run.name]) or "unnamed model")
        if run.metadata.get("variant"):
            extras.append(str(run.metadata["variant"]))
        if run.metadata.get("llm_ratio", LLM_RATIO) != LLM_RATIO:
            extras.append(f"r={run.metadata['llm_ratio']:g}")
        label = " ".join([run.name, *(f"[{extra}]" for extra in extras)])
        labelled.append(replace(run, method=label))
    return sorted(labelled, key=lambda run: (run.method, run.seed, run.study))


def _short(model: str, models: Iterable[str]) -> str:
    """Return a model's name without its folder or owner, unless that is another one's name, too."""
    name = PurePath(model).name
    return model if sum(PurePath(other).name == name for other in models) > 1 else name


def _rows(trials: Sequence[FrozenTrial], budget: Budget) -> tuple[Row, ...]:
    rows, seconds = [], 0.0
    for position, trial in enumerate(by_end(filter(is_evaluated, trials)), 1):
        seconds += budget.charge(trial)
        attrs = trial.user_attrs
        has_value = is_ok(trial) or trial_status(trial) == INFEASIBLE
        rows.append(
            Row(
                number=trial.number,
                position=position,
                seconds=seconds,
                value=trial.value if has_value and trial.value is not None else math.nan,
                status=trial_status(trial),
                source=str(attrs.get("source", "")),
                params=values_run(trial),
                attrs=attrs,
                curve=trial.intermediate_values,
                artifacts=tuple(_artifacts(trial.system_attrs)),
                configuration=configuration(trial),
            )
        )
    return tuple(rows)


def _artifacts(attrs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in attrs.items():
        if key.startswith(_ARTIFACTS):
            found = json.loads(value)
            yield found["filename"], found["artifact_id"]
