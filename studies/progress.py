"""What is shown while a study runs: a line per finished trial, and on a terminal a bar below."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from optuna.trial import FrozenTrial
from optuna.trial import TrialState
from rich.console import Console
from rich.progress import BarColumn
from rich.progress import Progress as RichProgress
from rich.progress import SpinnerColumn
from rich.progress import TextColumn
from rich.progress import TimeElapsedColumn

from studies.budget import Budget
from studies.budget import charge
from studies.budget import is_evaluated
from studies.budget import is_ok
from studies.facts import best_trial
from studies.facts import llm_turns


class Progress:
    """Shows a study on stderr, so that stdout stays free for its facts.

    Args:
        budget: For the estimate of the time that is left.
        workers: Processes that share the work, for the same estimate.
        uses_llm: Whether turns of a language model are worth a number.
    """

    def __init__(self, budget: Budget, *, workers: int = 1, uses_llm: bool = False) -> None:
        self._budget = budget
        self._workers = workers
        self._uses_llm = uses_llm
        self._shown: set[int] | None = None
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = RichProgress(
            SpinnerColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=None)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Show what is new in a study's trials; those of earlier runs are only counted."""
        done = [t for t in trials if is_evaluated(t)]
        if self._shown is None:
            self._shown = {t.number for t in done}
            if done:
                self.console.print(f"going on with a study of {len(done)} finished trials")
        summary = self._summary(trials)
        for trial in done:
            if trial.number not in self._shown:
                self._shown.add(trial.number)
                self.console.print(f"{describe(trial)}  |  {summary}")
        left = self._budget.trials_left(trials)
        total = None if left is None else len(done) + left
        running = [str(t.number) for t in trials if t.state == TrialState.RUNNING]
        doing = f"trial {', '.join(running)} runs  |  " if running else ""
        self._bar.update(self._task, completed=len(done), total=total, description=doing + summary)

    def _summary(self, trials: Sequence[FrozenTrial]) -> str:
        done = [t for t in trials if is_evaluated(t)]
        total = "" if self._budget.trials is None else f"/{self._budget.trials}"
        parts = [
            f"done {len(done)}{total}",
            f"failed {len(done) - sum(map(is_ok, done))}",
        ]
        if self._uses_llm:
            parts.append(f"llm {llm_turns(trials)}")
        best = best_trial(trials)
        parts.append(f"best {best.user_attrs['val_bpb']:.4f}" if best else "best -")
        if self._budget.training_seconds is not None:
            spent = sum(map(charge, trials))
            parts.append(f"trained {spent:.0f} of {self._budget.training_seconds:.0f} s")
        seconds = self._budget.seconds_left(trials, self._workers)
        if seconds is not None:
            parts.append(f"left {clock(seconds)}")
        return "  ".join(parts)


def describe(trial: FrozenTrial) -> str:
    """One finished trial in one line."""
    attrs = trial.user_attrs
    name = f"trial {trial.number:>3}  {attrs.get('source', ''):<9}"
    if is_ok(trial):
        return f"{name} ok        val_bpb {attrs['val_bpb']:.4f}  {charge(trial):5.1f} s"
    status = str(attrs.get("status", trial.state.name.lower()))
    return f"{name} {status:<9} {str(attrs.get('reason', ''))[:60]}"


def clock(seconds: float) -> str:
    """``0:42``, ``12:05`` or ``3:10:00``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
