"""Progress of running studies: a line per finished trial, and on a terminal a bar below.

Of a comparison, a line per finished run.
"""

from __future__ import annotations

from collections import Counter
from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
import os
import socket
import sys
import time
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial
from optuna.trial import TrialState
from rich.progress import BarColumn
from rich.progress import Progress as RichProgress
from rich.progress import SpinnerColumn
from rich.progress import TextColumn
from rich.progress import TimeElapsedColumn
from rich.table import Column

from objective.testbed.metric import Metric
from objective.worker import WORKER
from objective.worker import worker_mark
from samplers._trials.internals import first_number
from studies.budget import charge
from studies.budget import counted
from studies.budget import is_evaluated
from studies.budget import is_failed
from studies.budget import is_ok
from studies.budget import span
from studies.code_agent.history import BASELINE
from studies.code_agent.history import best_of
from studies.code_agent.history import history_of
from studies.commands.console import console
from studies.facts import common_failure
from studies.facts import common_result
from studies.facts import llm_turns
from studies.facts import trial_status
from studies.printable import decimals
from studies.printable import shortened


if TYPE_CHECKING:
    from typing_extensions import Self

    from studies.comparison import Standing
    from studies.spec import Spec

_REASON = 60  # characters of why a trial failed, at most


class Bar:
    """A bar on stderr, so that stdout stays free for facts; without a terminal only its lines."""

    def __init__(self) -> None:
        self.console = console(stderr=True, soft_wrap=True)
        self._bar = RichProgress(
            SpinnerColumn(),
            # The words are worth more than a bar where there isn't room for both in a line.
            *([BarColumn(bar_width=24)] if self.console.width >= 120 else []),
            TextColumn("{task.description}", table_column=Column()),  # which breaks lines
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self.console.print(line)

    def show(self, done: float, total: float | None, text: str) -> None:
        """Draw the bar with ``text`` beside it."""
        self._bar.update(self._task, completed=done, total=total, description=text)


class Progress(Bar):
    """Shows a study.

    Args:
        spec: The study's.
        metric: Names the values.
        place: Where a trial's values stand, see `Delivery.place`.
        workers: Processes that share the work, for the estimate of the time that is left.
    """

    def __init__(self, spec: Spec, metric: Metric, place: str, workers: int = 1) -> None:
        self._spec, self._budget = spec, spec.budget
        self._metric = metric
        self._place = place
        # What an estimate depends on beside the trials.
        self._coming = (workers, spec.model.llm_ratio if spec.row.has_ratio else None)
        self._earlier: set[int] | None = None
        self._shown: set[int] = set()
        self._has_estimated = False
        self._has_warned = False
        self._has_told_failure = False
        self._has_looked_for_steps = spec.prune is None
        super().__init__()

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Show what is new in a study's trials; those of earlier runs are only counted."""
        done = [t for t in trials if is_evaluated(t)]
        if self._earlier is None:
            self._earlier = {t.number for t in done}
            if done:
                self.console.print(f"going on with a study of {len(done)} finished trials")
        summary = self._summary(trials)
        new = [t for t in done if t.number not in self._earlier]
        for trial in new:
            if trial.number not in self._shown:
                self._shown.add(trial.number)
                self.console.print(f"{describe(trial, self._metric.name)}  |  {summary}")
        if not self._has_estimated and (lines := self._estimate(trials)):
            self._has_estimated = True
            self.console.print(lines)
        if not self._has_warned and (common := common_result(trials)) is not None:
            self._has_warned = True
            self.console.print(
                f"warning: trials with different values all came to {self._metric.name} {common!r},"
                " so these seem not to reach the training, or to make no difference to it. A trial has"
                f" them in {self._place}, in a folder of its own: does the script read them there, and"
                " not from another copy, by an absolute path or from an installed package?"
            )
        history = history_of(trials, self._metric, self._spec.judged_by)
        if not self._has_warned and history is not None and history.is_noise_unknown:
            self._has_warned = True
            self.console.print(
                f"warning: all baselines came to {self._metric.name} {history.baseline!r}, so the noise"
                " between trainings isn't known, and a change is kept for any gain: --min-gain sets"
                " what it must gain; a seed that the script heeds (a constant SEED, say) would tell"
            )
        first = next(filter(is_ok, new), None)
        if not self._has_looked_for_steps and first is not None:
            self._has_looked_for_steps = True
            if not first.intermediate_values:
                what = "the metric" if self._metric.direction == "maximize" else "a loss"
                self.console.print(
                    f"warning: --prune {self._spec.prune} stops nothing, for the script prints no line"
                    f" that is read as a step with {what} (`step 10 loss 3.2`, `Epoch 3/10: loss=0.5`)"
                )
        # Earlier ones may be mended.
        if not self._has_told_failure and (failure := common_failure(new)):
            if failure["is_usual"]:
                self._has_told_failure = True
                ranges = "" if self._spec.row.edits_code else "; `space` shows the ranges"
                self.console.print(
                    f"warning: {failure['trials']} of {len(new)} trials failed alike:"
                    f" {failure['status']}: {failure['reason']} (train.log of trial"
                    f" {failure['trial']} in `dashboard` has all that it printed{ranges})"
                )
        left = self._budget.trials_left(trials, *self._coming)
        n = sum(map(is_evaluated, counted(trials)))
        total = None if left is None else n + left
        running = [str(t.number) for t in trials if t.state == TrialState.RUNNING]
        doing = f"trial {', '.join(running)} runs  |  " if running else ""
        self.show(n, total, doing + summary)

    def has_gained(self, trials: Sequence[FrozenTrial]) -> bool:
        """Return whether one of these has succeeded since the first `update`.

        By their numbers: their times may be of another clock, or another time zone.
        """
        earlier = self._earlier
        return earlier is not None and any(is_ok(t) and t.number not in earlier for t in trials)

    def _estimate(self, trials: Sequence[FrozenTrial]) -> str:
        """Say what a trial takes beside training, and how many fit into the time; "" until known."""
        ok = [t for t in trials if is_ok(t)]
        budget = self._budget
        end = budget.deadline(trials)
        if not ok or (end is None and budget.seconds is None):
            return ""
        training, whole = charge(ok[0]), max(charge(ok[0]), span(ok[0]))
        text = (
            f"a trial takes {whole:.1f} s: {training:.1f} s of training, and {whole - training:.1f} s"
            " to start, to evaluate and to choose the next"
        )
        left = budget.trials_left(trials, *self._coming)
        if left is not None:
            text += f"; about {left} more fit"
        if end is not None:
            text += f" until {datetime.fromtimestamp(end):%H:%M:%S}"
        return text + (", and time is kept to train the best again" if budget.confirm else "")

    def _summary(self, trials: Sequence[FrozenTrial]) -> str:
        done = [t for t in counted(trials) if is_evaluated(t)]
        total = "" if self._budget.trials is None else f"/{self._budget.trials}"
        parts = [
            f"done {len(done)}{total}",
            f"failed {sum(map(is_failed, done))}",
        ]
        if pruned := sum(t.state == TrialState.PRUNED for t in done):
            parts.append(f"pruned {pruned}")
        if self._spec.row.uses_llm:
            parts.append(f"llm {llm_turns(trials)}")
        best = best_of(trials, self._metric, self._spec.judged_by)
        parts.append(f"best {decimals(best.values[0])}" if best else "best -")
        if self._budget.seconds is not None:
            spent = self._budget.spent(trials)
            parts.append(f"trained {spent:.0f} of {self._budget.seconds:.0f} s")
        seconds = self._budget.seconds_left(trials, *self._coming)
        if seconds is not None:
            parts.append(f"left {clock(seconds)}")
        return "  ".join(parts)


class WorkerLog:
    """Writes a line on stderr for each trial of this worker, one among others.

    Args:
        spec: The study's.
        metric: Names its values.
    """

    def __init__(self, spec: Spec, metric: Metric) -> None:
        self._spec = spec
        self._metric = metric
        self._name = f"{socket.gethostname()} process {os.getpid()}"
        self._own = worker_mark(0)[:-1]  # without the trial's number
        self._shown: set[int] = set()
        self._say(f"works on study {spec.name}")

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Write of the trials that are new."""
        done = sum(map(is_evaluated, trials))
        for trial in trials:
            own = trial.system_attrs.get(WORKER) == [*self._own, trial.number]
            if trial.number in self._shown or not own or not is_evaluated(trial):
                continue
            self._shown.add(trial.number)
            self._say(f"{describe(trial, self._metric.name)}  |  {done} of the study are done")

    def end(self, trials: Sequence[FrozenTrial]) -> None:
        """Write what there is to say when the worker ends."""
        self.update(trials)
        done = sum(map(is_evaluated, trials))
        best = best_of(trials, self._metric, self._spec.judged_by)
        value = f", best {decimals(best.values[0])}" if best else ""
        self._say(f"ends: {len(self._shown)} of the {done} trials were its own{value}")

    def _say(self, line: str) -> None:
        now = datetime.now().isoformat(" ", "seconds")
        print(f"{now}  {self._name}  {line}", file=sys.stderr, flush=True)


class ComparisonProgress(Bar):
    """Shows a comparison.

    Args:
        labels: The method, with its variant, of each run by the name of its study.
        workers: Runs at the same time.
    """

    def __init__(self, labels: Mapping[str, str], workers: int) -> None:
        super().__init__()
        self._labels = labels
        self._workers = workers
        self._before: dict[str, float] | None = None
        self._running: list[str] = []
        self._seen = time.monotonic()
        self._spent: defaultdict[str, float] = defaultdict(float)

    def update(self, board: Mapping[str, Standing], ended: Sequence[str]) -> None:
        """Show how far all runs are, and the ones that ended since the last time."""
        if self._before is None:
            self._before = {name: run.share for name, run in board.items()}
            if there := sum(run.state == "done" for run in board.values()):
                self.console.print(f"going on with a comparison: {there} runs are done")
        now = time.monotonic()
        for name in self._running:
            self._spent[self._labels[name]] += now - self._seen
        self._seen = now
        self._running = [name for name, run in board.items() if run.state == "running"]
        counts = Counter(run.state for run in board.values())
        for name in ended:
            self.console.print(
                f"{describe_run(name, board[name])}  |  {self._summary(board, counts)}"
            )
        best = "  ".join(
            f"{method} {decimals(value)}" for method, value in self._best(board).items()
        )
        text = f"{self._summary(board, counts)}\nbest so far: {best or '-'}"
        self.show(sum(run.share for run in board.values()), len(board), text)

    def _summary(self, board: Mapping[str, Standing], counts: Mapping[str, int]) -> str:
        parts = [f"runs {counts.get('done', 0)}/{len(board)}"]
        parts += [f"{state} {counts[state]}" for state in ("running", "failed") if state in counts]
        parts.append(f"trials {sum(run.evaluated for run in board.values())}")
        if (seconds := self._seconds_left(board)) is not None:
            parts.append(f"left {clock(seconds)}")
        return "  ".join(parts)

    def _seconds_left(self, board: Mapping[str, Standing]) -> float | None:
        """Estimate the seconds that are left, from each method's speed since the start.

        Methods differ a hundredfold in what a trial takes. One of which nothing was done yet is
        taken for a mean one.
        """
        before = self._before or {}
        gained: defaultdict[str, float] = defaultdict(float)
        left: defaultdict[str, float] = defaultdict(float)
        for name, run in board.items():
            gained[self._labels[name]] += run.share - before.get(name, 0.0)
            if run.state != "failed":
                left[self._labels[name]] += 1 - run.share
        begun = [method for method, share in gained.items() if share > 0]
        if not begun:
            return None
        mean = sum(self._spent[m] for m in begun) / sum(gained[m] for m in begun)
        work = sum(
            share * (self._spent[method] / gained[method] if method in begun else mean)
            for method, share in left.items()
        )
        n_left = sum(run.state not in ("done", "failed") for run in board.values())
        return work / max(1, min(self._workers, n_left))

    def _best(self, board: Mapping[str, Standing]) -> dict[str, float]:
        best: dict[str, float] = {}
        for name, run in board.items():
            if run.best is not None:
                method = self._labels[name]
                best[method] = min(run.best, best.get(method, run.best), key=run.metric.cost)
        return best


def describe_run(name: str, run: Standing) -> str:
    """Describe a run that ended, in one line."""
    if run.state == "failed":
        return f"{name:<24} failed    {run.error}"
    best = "-" if run.best is None else decimals(run.best)
    failed = run.evaluated - run.ok
    return f"{name:<24} done      best {best}  {run.evaluated} trials, {failed} failed"


def describe(trial: FrozenTrial, metric: str) -> str:
    """Describe a finished trial, in one line."""
    attrs = trial.user_attrs
    source = attrs.get("source", "")
    is_code = "source_sha256" in attrs
    if source == BASELINE and is_code or source == "enqueued" and first_number(trial) == 0:
        source = "baseline"  # which every run begins with
    name = f"trial {trial.number:>3}  {source:<13}"
    if is_ok(trial):
        return f"{name} ok        {metric} {decimals(trial.values[0])}  {charge(trial):5.1f} s"
    return f"{name} {trial_status(trial):<9} {shortened(str(attrs.get('reason', '')), _REASON)}"


def clock(seconds: float) -> str:
    """Format seconds as ``0:42``, ``12:05`` or ``3:10:00``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
