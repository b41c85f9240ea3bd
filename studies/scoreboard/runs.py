"""Runs: one sampler on one problem with one seed, carried out, written down and read again."""

from __future__ import annotations

from collections.abc import Sequence
import csv
from dataclasses import dataclass
from dataclasses import field
from dataclasses import fields
from functools import lru_cache
import math
import os
from pathlib import Path
import time
from typing import Any
from typing import TYPE_CHECKING

import optuna
from optuna.trial import TrialState

from samplers._llm.chat import ChatRejected
from samplers._llm.chat import ChatUnavailable
from studies.errors import Misuse
from studies.llm import open_llm
from studies.methods import Method
from studies.methods import Setup
from studies.random_steps import NAME as RANDOM_STEPS
from studies.random_steps import RandomSteps
from studies.scoreboard.problems import Outcome
from studies.scoreboard.problems import Problem
from studies.scoreboard.samplers import entry
from studies.scoreboard.suites import problem as problem_of
from studies.spec import Model
from studies.workers.processes import Tell


if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from samplers import Chat

Key = tuple[str, str, str, int]


@dataclass(frozen=True)
class Spec:
    """A run that is wanted.

    Attributes:
        problem, sampler: Names.
        seed: Of the problem's instance and of the sampler.
        trials: How many.
        asks: What the sampler asks: a model's name, ``random steps``, or ``""``.
        model: Where that model is.
        registry: Where samplers of a registry are.
    """

    problem: str
    sampler: str
    seed: int
    trials: int
    asks: str = ""
    model: Model = Model()
    registry: Path | None = None

    @property
    def asks_model(self) -> bool:
        """True if the sampler asks a language model, and not random steps."""
        return self.asks not in ("", RANDOM_STEPS)

    @property
    def key(self) -> Key:
        return self.problem, self.sampler, self.asks, self.seed


@dataclass(frozen=True)
class Result:
    """The result of a run; a row of ``runs.csv``.

    Attributes:
        problem, sampler, asks, seed: As in `Spec`.
        trials: Trials that were carried out.
        failed: Of them, those that failed.
        infeasible: Of them, those that violated a constraint.
        optimum, scale: Of the problem, see `studies.scoreboard.problems`.
        curve: Improvements: the number of trials after which there was one, and its regret.
        seconds: That the sampler took in all, evaluations apart.
        cpu_seconds: Of that, those of the processor.
        asked: Trials whose values a model was asked for.
        unanswered: Of them, those that it did not decide: errors and repetitions.
        prompt_tokens, completion_tokens, llm_seconds: In all.
        error: What the sampler raised, which ended the run; ``""`` if nothing.
    """

    problem: str
    sampler: str
    asks: str
    seed: int
    trials: int
    failed: int
    infeasible: int
    optimum: float
    scale: float
    curve: tuple[tuple[int, float], ...] = field(repr=False)
    seconds: float
    cpu_seconds: float
    asked: int = 0
    unanswered: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    llm_seconds: float = 0.0
    error: str = ""

    @property
    def key(self) -> Key:
        return self.problem, self.sampler, self.asks, self.seed

    def regret(self, trials: int) -> float:
        """Return the least regret after that many trials; infinite if nothing counted."""
        return min((regret for n, regret in self.curve if n <= trials), default=math.inf)

    def has(self, trials: int) -> bool:
        """Return whether the run counts for so many trials: it had them, or it broke before."""
        return self.trials >= trials or bool(self.error)


def run(spec: Spec) -> Result:
    """Carry a run out, in this process.

    Raises:
        ChatUnavailable: If the language model is away.
        ChatRejected: If it refuses.
        Misuse: If the names mean nothing.
    """
    problem = problem_of(spec.problem, spec.seed)
    row = entry(spec.sampler, spec.registry)
    chat: Chat | None = None
    if row.uses_llm:
        chat = _open(spec.model) if spec.asks_model else RandomSteps()
    return carry_out(spec, problem, sampler_of(row, problem, spec.seed, chat))


@lru_cache(maxsize=1)
def _open(model: Model) -> Chat:
    return open_llm(model)


def sampler_of(row: Method, problem: Problem, seed: int, chat: Chat | None) -> BaseSampler:
    """Build a method's sampler as a user would who knows nothing of the problem."""
    assert row.build is not None
    return row.build(Setup(seed, problem.space, task=problem.task, chat=chat))


def carry_out(spec: Spec, problem: Problem, sampler: BaseSampler) -> Result:
    """Carry out the trials of a run one after the other."""
    scale = problem.scale  # computed once for all runs, and no sampler's time
    study = optuna.create_study(sampler=sampler)
    outcomes: list[Outcome] = []
    improvements: list[tuple[int, float]] = []
    seconds = cpu_seconds = 0.0
    error = ""
    while len(outcomes) < spec.trials and not error:
        start, cpu_start = time.perf_counter(), time.process_time()
        try:
            trial = study.ask(dict(problem.space))
            asked, cpu_asked = time.perf_counter(), time.process_time()
            outcome = problem.evaluate(trial.params)
            start += time.perf_counter() - asked
            cpu_start += time.process_time() - cpu_asked
            _tell(study, trial, outcome)
        except (ChatUnavailable, ChatRejected, Misuse):
            raise
        except Exception as raised:  # a sampler's own error is a result, and not the only one
            error = f"{type(raised).__name__}: {' '.join(str(raised).split())}"[:200]
        else:
            outcomes.append(outcome)
            if outcome.counts and outcome.value is not None:
                regret = _round(outcome.value - problem.optimum)
                if not improvements or regret < improvements[-1][1]:
                    improvements.append((len(outcomes), regret))
        seconds += time.perf_counter() - start
        cpu_seconds += time.process_time() - cpu_start
    attrs = [t.user_attrs for t in study.get_trials(deepcopy=False)]
    sources = [str(a.get("source", "")) for a in attrs]
    return Result(
        problem=spec.problem,
        sampler=spec.sampler,
        asks=spec.asks,
        seed=spec.seed,
        trials=len(outcomes),
        failed=sum(outcome.status != "ok" for outcome in outcomes),
        infeasible=sum(outcome.status == "ok" and not outcome.counts for outcome in outcomes),
        optimum=_round(problem.optimum, 8),
        scale=_round(scale, 8),
        curve=tuple(improvements),
        seconds=_round(seconds),
        cpu_seconds=_round(cpu_seconds),
        asked=sum(source.startswith("llm") for source in sources),
        unanswered=sum(source in ("llm-error", "llm-duplicate") for source in sources),
        prompt_tokens=sum(a.get("llm_prompt_tokens", 0) for a in attrs),
        completion_tokens=sum(a.get("llm_completion_tokens", 0) for a in attrs),
        llm_seconds=_round(sum(a.get("llm_seconds", 0.0) for a in attrs)),
        error=error,
    )


def _tell(study: optuna.Study, trial: optuna.Trial, outcome: Outcome) -> None:
    for name, value in outcome.constraints.items():
        trial.set_constraint(name, value)
    if outcome.status != "ok":
        trial.set_user_attr("status", outcome.status)
    if outcome.value is None:
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, outcome.value)


def _round(value: float, digits: int = 4) -> float:
    """Round to the significant digits that files keep."""
    return float(f"{value:.{digits}g}")


def work(specs: Sequence[Spec], tell: Tell) -> None:
    """Carry out runs, telling each one's `Result`: a job of `studies.workers.processes`."""
    for spec in specs:
        tell(run(spec))


class Results:
    """The results in a folder: ``runs.csv``, which grows a row with each run.

    A row that a crash cut off is forgotten, and its run with it.

    Args:
        folder: Need not be there before there are results to add.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "runs.csv"
        self._rows = {result.key: result for result in read(self.path)}
        if self.path.exists():
            self.tidy()

    @property
    def all(self) -> list[Result]:
        """The results in the order of their keys."""
        return [self._rows[key] for key in sorted(self._rows)]

    def lacks(self, spec: Spec) -> bool:
        """Return whether a run is still to be carried out."""
        found = self._rows.get(spec.key)
        return found is None or not found.has(spec.trials)

    def add(self, result: Result) -> None:
        """Keep a result; one of the same run that is there already is replaced."""
        self._rows[result.key] = result
        new = not self.path.exists()
        with self.path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                writer.writerow(_NAMES)
            writer.writerow(_as_text(result))

    def tidy(self) -> None:
        """Write the file in the order of the keys, whatever order the runs ended in."""
        text = self.path.with_suffix(".part")
        with text.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_NAMES)
            writer.writerows(map(_as_text, self.all))
        os.replace(text, self.path)


_NAMES = [f.name for f in fields(Result)]


def _as_text(result: Result) -> list[str]:
    curve = " ".join(f"{n}:{regret:g}" for n, regret in result.curve)
    return [curve if n == "curve" else f"{getattr(result, n)}" for n in _NAMES]


def read_rows(path: Path, names: Sequence[str]) -> list[list[str]]:
    """Return the rows of a file with these columns; nothing if there is no file.

    Raises:
        Misuse: If it is a file of something else.
    """
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))
    except (UnicodeDecodeError, csv.Error):
        lines = [[]]
    if lines and lines[0] != [*names]:
        raise Misuse(f"{path} must be a file of results with this version's columns, but is not.")
    return lines[1:]


def read(path: Path) -> list[Result]:
    """Return the results of a file, the last ones last.

    Raises:
        Misuse: As `read_rows`.
    """
    found = []
    for line in read_rows(path, _NAMES):
        try:
            found.append(_result(dict(zip(_NAMES, line, strict=True))))
        except ValueError:  # cut off
            continue
    return found


def _result(row: dict[str, str]) -> Result:
    values: dict[str, Any] = {}
    for f in fields(Result):
        text = row[f.name]
        if f.name == "curve":
            pairs = (pair.split(":") for pair in text.split())
            values["curve"] = tuple((int(n), float(regret)) for n, regret in pairs)
        else:
            values[f.name] = {"int": int, "float": float, "str": str}[str(f.type)](text)
    return Result(**values)
