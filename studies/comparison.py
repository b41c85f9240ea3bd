"""A comparison: its runs, a study each, and their execution side by side.

Nothing but the studies is stored. All of them are made before the first trial of any, each with
the comparison's name and the budget among its user attributes, so that `studies.commands.status` can tell
what is done, failed and missing, from the storage alone.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
import time
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial

from objective.failure import FailureValue
from objective.testbed.metric import METRIC
from objective.testbed.metric import Metric
from samplers._trials.seeds import derive_seed
from studies.budget import Budget
from studies.budget import is_evaluated
from studies.budget import is_ok
from studies.code_agent.history import best_of
from studies.errors import explain
from studies.errors import Misuse
from studies.facts import RUN_ERROR
from studies.facts import run_state
from studies.llm import checked_llm
from studies.llm import open_llm
from studies.llm import share_embedded_model
from studies.methods import DEFAULT_NAME
from studies.methods import LLM_RATIO
from studies.methods import METHODS
from studies.played import check_first_prompt
from studies.spec import Limits
from studies.spec import load_testbed
from studies.spec import Model
from studies.spec import Spec
from studies.spec import Where
from studies.storage.kinds import check_sharing
from studies.storage.open import open_storage
from studies.study import open_study
from studies.workers.processes import Event
from studies.workers.processes import Job
from studies.workers.processes import run_jobs
from studies.workers.processes import Tell
from studies.workers.share import work_on


_TELL_SECONDS = 0.5


@dataclass(frozen=True)
class Comparison:
    """A comparison: its methods and seeds, and the conditions that they share.

    Attributes:
        methods: Keys of `METHODS`.
        seeds: One run of each method for each.
        where, budget, limits, model: Of each run, see `studies.spec.Spec`.
        llm_ratios: Variants of methods that have a share of LLM trials; empty is the model's.
        models: Variants of methods that ask a language model, by its name; empty is the model's.
        name: Prefix of the studies' names, unless it is `DEFAULT_NAME`.
        failure_value, vary_seed, command: As in `studies.spec.Spec`.
    """

    methods: Sequence[str]
    seeds: Sequence[int]
    where: Where
    budget: Budget
    limits: Limits = Limits()
    model: Model = Model()
    llm_ratios: Sequence[float] = ()
    models: Sequence[str] = ()
    name: str = DEFAULT_NAME
    failure_value: FailureValue = None
    vary_seed: bool = False
    command: str | None = None

    def runs(self, workers: int) -> list[Spec]:
        """Return one spec per method, seed and variant: all of a seed before the next one's."""
        return [
            self._spec(method, seed, replace(self.model, llm_ratio=ratio, name=model), workers)
            for seed in self.seeds
            for method in self.methods
            for ratio in (self.llm_ratios if METHODS[method].has_ratio else ())
            or (self.model.llm_ratio,)
            for model in (self.models if METHODS[method].uses_llm else ()) or (self.model.name,)
        ]

    def _spec(self, method: str, seed: int, model: Model, workers: int) -> Spec:
        name = f"{method}-seed{seed}"
        if self.name != DEFAULT_NAME:
            name = f"{self.name}-{name}"
        if model.llm_ratio != LLM_RATIO:
            name += f"-r{model.llm_ratio:g}"
        if variant := METHODS[method].asking(model.asking).variant:
            name += f"-{variant.replace(' ', '-')}"
        if model.name is not None:
            name += f"-{model.name}"
        spec = Spec(self.where, name, method, seed, self.budget, self.limits, model)
        spec = replace(
            spec,
            comparison=self.name,
            failure_value=self.failure_value,
            vary_seed=self.vary_seed,
            command=self.command,
        )
        return spec.completed(workers)


def label(spec: Spec, comparison: str) -> str:
    """Return a run's method with its variant: its name without comparison and seed."""
    return spec.name.removeprefix(f"{comparison}-").replace(f"-seed{spec.seed}", "", 1)


@dataclass(frozen=True)
class Standing:
    """The progress of a run.

    Attributes:
        state: See `studies.facts.run_state`.
        error: Why it failed.
        evaluated, ok: Trials.
        left: Trials that are still to come, None if that can't be said.
        best: Best value, None before the first success.
        seconds: Charged to the budget.
        metric: Names the values.
    """

    state: str
    error: str = ""
    evaluated: int = 0
    ok: int = 0
    left: int | None = None
    best: float | None = None
    seconds: float = 0.0
    metric: Metric = METRIC

    @property
    def share(self) -> float:
        """The part of the run that is done, from 0 to 1; 0 if that can't be said."""
        if self.state == "done":
            return 1.0
        return self.evaluated / (self.evaluated + self.left) if self.left else 0.0


def standing(
    state: str,
    error: str,
    budget: Budget,
    trials: Sequence[FrozenTrial],
    metric: Metric,
    attributes: Mapping[str, Any],
) -> Standing:
    best = best_of(trials, metric, attributes)
    return Standing(
        state,
        error,
        sum(map(is_evaluated, trials)),
        sum(map(is_ok, trials)),
        budget.trials_left(trials),
        None if best is None else best.value,
        round(budget.spent(trials), 3),
        metric,
    )


def stored_standing(study: optuna.Study, budget: Budget) -> Standing:
    """Read a run's progress from its study."""
    trials = study.get_trials(deepcopy=False)
    attrs = {**study.user_attrs, **budget.metadata()}
    error = attrs.get(RUN_ERROR) or ""
    return standing(run_state(attrs, trials), error, budget, trials, Metric.of(study), attrs)


Board = dict[str, Standing]
Show = Callable[[Board, Sequence[str]], None]


def run_comparison(specs: Sequence[Spec], workers: int, show: Show) -> Board:
    """Do what is left of all runs, in processes of their own.

    Args:
        specs: The runs.
        workers: Processes at the same time.
        show: Is given all standings by the studies' names, and the names whose run has ended
            since the last time.

    Returns:
        How far each run is in the end.

    Raises:
        StudyConflict: If the storage has another study under one of the names. Nothing was run.
        Misuse: If the models and the server don't go together. Nothing was run.
    """
    studies = open_studies(specs)
    board = {spec.name: stored_standing(studies[spec.name], spec.budget) for spec in specs}
    left = [spec for spec in specs if board[spec.name].state != "done"]

    def note(name: str, error: str | None) -> None:
        try:
            if studies[name].user_attrs.get(RUN_ERROR) != error:
                studies[name].set_user_attr(RUN_ERROR, error)
        except (StorageInternalError, OSError):
            pass  # the board has it, and the other runs go on: what they find waits for the storage

    def fail(name: str, error: str) -> None:
        note(name, error)
        board[name] = replace(board[name], state="failed", error=error)

    def watch(events: Sequence[Event]) -> None:
        ended = []
        for event in events:
            name = event.job
            if event.kind == "started":
                note(name, None)
                board[name] = replace(board[name], state="running", error="")
            elif event.kind == "said":
                board[name] = event.what
            else:
                ended.append(name)
                if event.kind == "failed":
                    fail(name, event.what)
                else:
                    board[name] = replace(board[name], state="done")
        show(board, ended)

    trainings = any(spec.where.surrogate is None for spec in left)
    ready, without = share_models(left, workers if trainings else 0)
    for name, error in without.items():
        fail(name, error)
    show(board, list(without))
    # The import of a surrogate takes longer than a run.
    modules = [] if trainings else ["objective.surrogate.surrogate"]
    jobs = [Job(spec.name, _run, spec) for spec in in_random_order(ready)]
    run_jobs(jobs, workers, watch, modules=modules)
    return board


def in_random_order(specs: Sequence[Spec]) -> list[Spec]:
    """Shuffle the runs of each seed, always in the same way; all of a seed before the next one's.

    A machine that is slower in the evening would otherwise be so for the last methods.
    """
    places = {spec.name: derive_seed(spec.seed, "order", spec.name) for spec in specs}
    return sorted(specs, key=lambda spec: (spec.seed, places[spec.name]))


def open_studies(specs: Sequence[Spec]) -> dict[str, optuna.Study]:
    """Open the study of each run by its name, made if it isn't there."""
    testbed = load_testbed(specs[0])  # one that can't be used leaves no empty file behind
    check_sharing(specs[0].where.storage, workers=2)  # who runs a study, and this process
    storage = open_storage(specs[0].where.storage)
    return {spec.name: open_study(spec, testbed, storage) for spec in specs}


def without_model(specs: Sequence[Spec]) -> dict[str, str]:
    """Check the models that runs ask, and return why one can't be asked, by the runs' names.

    Raises:
        Misuse: If ``--llm`` and ``--model`` don't go together.
    """
    reasons: dict[Model | tuple[Model, str], str] = {}
    for spec in (spec for spec in specs if spec.row.uses_llm):
        if spec.model not in reasons:
            try:
                checked_llm(spec.model)
                reasons[spec.model] = ""
            except Misuse:
                raise
            except Exception as error:  # only what `explain` foresees; the rest it raises
                reasons[spec.model] = explain(error)[0]
        asks = spec.model, spec.method
        if asks not in reasons:
            reasons[asks] = reasons[spec.model] or _too_long(spec)
    return {
        spec.name: reason
        for spec in specs
        if spec.row.uses_llm and (reason := reasons[spec.model, spec.method])
    }


def _too_long(spec: Spec) -> str:
    """Say that a run's first prompt doesn't fit into its model's context, if it doesn't."""
    try:
        check_first_prompt(spec, open_llm(spec.model))
    except Misuse as error:
        return str(error)
    return ""


def share_models(specs: Sequence[Spec], n_busy: int) -> tuple[list[Spec], dict[str, str]]:
    """Start the embedded model, if a run asks it, once for all of them.

    Args:
        specs: The runs.
        n_busy: CPUs that train meanwhile.

    Returns:
        The runs, with its address in them, and those that can't be because there is no model, by
        their names with the reason.
    """
    without = without_model(specs)
    ready = [spec for spec in specs if spec.name not in without]
    shared: dict[Model, Model] = {}
    for model in dict.fromkeys(spec.model for spec in ready if spec.row.uses_llm):
        shared[model] = share_embedded_model(model, n_busy)
    return [replace(spec, model=shared.get(spec.model, spec.model)) for spec in ready], without


def _run(spec: Spec, tell: Tell) -> None:
    """Do one run, telling its `Standing` now and then."""
    seen: Sequence[FrozenTrial] = []
    told = 0.0
    metric = load_testbed(spec).metric

    def say() -> None:
        tell(standing("running", "", spec.budget, seen, metric, spec.judged_by))

    def watch(trials: Sequence[FrozenTrial]) -> None:
        nonlocal seen, told
        seen = trials
        if time.monotonic() - told > _TELL_SECONDS:
            say()
            told = time.monotonic()

    work_on(spec, watch)
    say()
