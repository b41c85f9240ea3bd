"""A comparison: its runs, a study each, and what carries them out side by side.

Nothing but the studies is stored. All of them are made before the first trial of any, each with
the comparison's name and the budget among its user attributes, so that `studies.commands.status` can tell
what is done, failed and missing, from the storage alone.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
import time

import optuna
from optuna.trial import FrozenTrial

from objective import Testbed
from studies.budget import Budget
from studies.budget import is_evaluated
from studies.budget import is_ok
from studies.code_agent.agent import run_agent
from studies.errors import explain
from studies.errors import Misuse
from studies.facts import best_trial
from studies.facts import RUN_ERROR
from studies.facts import run_state
from studies.llm import open_llm
from studies.llm import share_embedded_model
from studies.methods import DEFAULT_NAME
from studies.methods import LLM_RATIO
from studies.methods import METHODS
from studies.spec import AgentSpec
from studies.spec import load_testbed
from studies.spec import memory_share
from studies.spec import METHOD as CODE_AGENT
from studies.spec import StudySpec
from studies.storage.kinds import check_sharing
from studies.storage.open import open_storage
from studies.study import open_code_study
from studies.study import open_study
from studies.study import run_study
from studies.workers.processes import Event
from studies.workers.processes import Job
from studies.workers.processes import run_jobs
from studies.workers.processes import Tell


Spec = StudySpec | AgentSpec

# Proposals that are refused cost the code agent no training. For a model whose replies are all
# refused, a budget of training time is limited to this many times the trials that fit into it.
AGENT_TRIALS = 3
_TELL_SECONDS = 0.5


@dataclass(frozen=True)
class Comparison:
    """What is compared, on what, for how long.

    Attributes:
        methods: Keys of `METHODS`, or ``karpathy-code``.
        seeds: One run of each method for each.
        budget: Of each run.
        llm_ratios: Variants of methods that have a share of LLM trials; empty is the default.
        models: Variants of methods that ask a language model; empty is the server's own choice.
        name: Prefix of the studies' names, unless it is `DEFAULT_NAME`.
        storage, testbed, wall_seconds, memory_limit_mb, llm, artifacts, surrogate: As in
            `StudySpec`.
    """

    methods: Sequence[str]
    seeds: Sequence[int]
    budget: Budget
    storage: str
    llm_ratios: Sequence[float] = ()
    models: Sequence[str] = ()
    name: str = DEFAULT_NAME
    testbed: Path | None = None
    wall_seconds: float | None = None
    memory_limit_mb: int | None = None
    llm: str | None = None
    artifacts: Path | None = None
    surrogate: str | None = None

    def runs(self, workers: int) -> list[Spec]:
        """One spec per method, seed and variant: all of a seed before the next one's."""
        return [
            self._spec(method, seed, ratio, model, workers)
            for seed in self.seeds
            for method in self.methods
            for ratio in (self.llm_ratios if has_ratio(method) else ()) or (None,)
            for model in (self.models if uses_llm(method) else ()) or (None,)
        ]

    def _spec(
        self, method: str, seed: int, ratio: float | None, model: str | None, workers: int
    ) -> Spec:
        name = f"{method}-seed{seed}"
        if self.name != DEFAULT_NAME:
            name = f"{self.name}-{name}"
        if ratio not in (None, LLM_RATIO):
            name += f"-r{ratio:g}"
        if model is not None:
            name += f"-{model}"
        if method != CODE_AGENT:
            return StudySpec(
                storage=self.storage,
                name=name,
                method=method,
                seed=seed,
                budget=self.budget,
                testbed=self.testbed,
                wall_seconds=self.wall_seconds,
                memory_limit_mb=self.memory_limit_mb,
                llm=self.llm,
                model=model,
                llm_ratio=LLM_RATIO if ratio is None else ratio,
                artifacts=self.artifacts,
                comparison=self.name,
                surrogate=self.surrogate,
            )
        trials, baselines = self.budget.trials, AgentSpec.baselines
        fit = self._fitting()
        if fit is not None:
            trials = trials or AGENT_TRIALS * fit
            baselines = min(baselines, fit)
        assert trials is not None
        return AgentSpec(
            storage=self.storage,
            name=name,
            seed=seed,
            trials=trials,
            training_seconds=self.budget.seconds,
            charge_llm=self.budget.charge_llm,
            train_seconds=self.budget.train_seconds,
            wall_seconds=self.wall_seconds,
            testbed=self.testbed,
            memory_limit_mb=self.memory_limit_mb or memory_share(workers),
            baselines=baselines,
            llm=self.llm,
            model=model,
            artifacts=self.artifacts,
            comparison=self.name,
        )

    def _fitting(self) -> int | None:
        """Trials that a budget of training time holds."""
        if self.budget.seconds is None:
            return None
        if self.budget.train_seconds is None:
            raise Misuse(
                f"--budget for {CODE_AGENT} needs --train-seconds (or TIME_BUDGET in the testbed),"
                " which tell how many trials fit into it"
            )
        return int(self.budget.seconds / self.budget.train_seconds)


def uses_llm(method: str) -> bool:
    """Whether runs of a method ask a language model."""
    return method == CODE_AGENT or METHODS[method].uses_llm


def has_ratio(method: str) -> bool:
    """Whether a method has a share of trials that the language model decides."""
    return method == "centaur"


def label(spec: Spec, comparison: str) -> str:
    """A run's method with its variant: its name without comparison and seed."""
    return spec.name.removeprefix(f"{comparison}-").replace(f"-seed{spec.seed}", "", 1)


@dataclass(frozen=True)
class Standing:
    """How far a run is.

    Attributes:
        state: See `studies.facts.run_state`.
        error: Why it failed.
        evaluated, ok: Trials.
        left: Trials that are still to come, None if that can't be said.
        best: Lowest bits per byte, None before the first success.
        seconds: Charged to the budget.
    """

    state: str
    error: str = ""
    evaluated: int = 0
    ok: int = 0
    left: int | None = None
    best: float | None = None
    seconds: float = 0.0

    @property
    def share(self) -> float:
        """Of the run that is done, as far as it can be said."""
        if self.state == "done":
            return 1.0
        return self.evaluated / (self.evaluated + self.left) if self.left else 0.0


def standing(state: str, error: str, budget: Budget, trials: Sequence[FrozenTrial]) -> Standing:
    best = best_trial(trials)
    return Standing(
        state,
        error,
        sum(map(is_evaluated, trials)),
        sum(map(is_ok, trials)),
        budget.trials_left(trials),
        None if best is None else best.value,
        round(budget.spent(trials), 3),
    )


def stored_standing(study: optuna.Study, budget: Budget) -> Standing:
    """How far a run is by what is stored of it."""
    trials = study.get_trials(deepcopy=False)
    attrs = {**study.user_attrs, **budget.facts()}
    return standing(run_state(attrs, trials), attrs.get(RUN_ERROR) or "", budget, trials)


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

    def fail(name: str, error: str) -> None:
        studies[name].set_user_attr(RUN_ERROR, error)
        board[name] = replace(board[name], state="failed", error=error)

    def watch(events: Sequence[Event]) -> None:
        ended = []
        for event in events:
            name = event.job
            if event.kind == "started":
                if studies[name].user_attrs.get(RUN_ERROR):
                    studies[name].set_user_attr(RUN_ERROR, None)
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

    trainings = any(isinstance(spec, AgentSpec) or spec.surrogate is None for spec in left)
    ready, without = share_models(left, workers if trainings else 0)
    for name, error in without.items():
        fail(name, error)
    show(board, list(without))
    modules = (
        [] if trainings else ["objective.surrogate.surrogate"]
    )  # whose import takes longer than a run
    run_jobs([Job(spec.name, work_on, spec) for spec in ready], workers, watch, modules=modules)
    return board


def open_studies(specs: Sequence[Spec]) -> dict[str, optuna.Study]:
    """The study of each run by its name, made if it isn't there."""
    # A testbed that can't be used leaves no empty file behind.
    script = next((Testbed.load(s.testbed) for s in specs if isinstance(s, AgentSpec)), None)
    testbed = next((load_testbed(s) for s in specs if isinstance(s, StudySpec)), None)
    check_sharing(specs[0].storage, workers=2)  # who runs a study, and this process
    storage = open_storage(specs[0].storage)
    studies = {}
    for spec in specs:
        if isinstance(spec, AgentSpec):
            assert script is not None
            studies[spec.name] = open_code_study(spec, script, storage)
        else:
            assert testbed is not None
            studies[spec.name] = open_study(spec, testbed, storage)
    return studies


def share_models(specs: Sequence[Spec], n_busy: int) -> tuple[list[Spec], dict[str, str]]:
    """Start the embedded model, if a run asks it, once for all of them.

    Args:
        specs: The runs.
        n_busy: CPUs that train meanwhile.

    Returns:
        The runs, with its address in them, and those that can't be because there is no model, by
        their names with the reason.
    """
    ready: list[Spec] = []
    without: dict[str, str] = {}
    known: dict[tuple[str | None, str | None], str | None] = {}
    for spec in specs:
        if isinstance(spec, StudySpec) and not uses_llm(spec.method):
            ready.append(spec)
            continue
        key = spec.llm, spec.model
        try:
            if key not in known:
                open_llm(*key)
                known[key] = share_embedded_model(*key, n_busy)
            ready.append(replace(spec, llm=known[key]))
        except Misuse:
            raise
        except Exception as error:  # only what `explain` foresees; the rest it raises
            without[spec.name] = explain(error)[0]
    return ready, without


def work_on(spec: Spec, tell: Tell) -> None:
    """Do one run, telling its `Standing` now and then."""
    seen: Sequence[FrozenTrial] = []
    told = 0.0

    def say() -> None:
        tell(standing("running", "", spec.budget, seen))

    def watch(trials: Sequence[FrozenTrial]) -> None:
        nonlocal seen, told
        seen = trials
        if time.monotonic() - told > _TELL_SECONDS:
            say()
            told = time.monotonic()

    if isinstance(spec, AgentSpec):
        run_agent(spec, open_llm(spec.llm, spec.model), watch)
    else:
        run_study(spec, watch)
    say()
