"""Whether early stopping saves more than it costs: studies of real trainings, replayed under each rule.

    python -m tests.benchmarks.pruning STORAGE [STUDY ...]

The studies must have been run without --prune, such as by ``optuna-autoresearch run --method tpe
--train-seconds 5s --trials 40 --confirm 0``. Their trainings are replayed in `ORDERS` random orders,
the same for each rule, as if a search without memory had come upon them: each reports its losses at
its share of the time, and a rule may stop it there. Half of the time of all trainings is the budget;
what a rule saves of it goes to further trainings. What a sampler loses by learning less of those that
were stopped isn't in this.

Takes seconds, after the trainings; prints and writes ``results/pruning.md``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
import random
import statistics
import warnings

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from studies.budget import is_ok
from studies.pruning import make_pruner
from studies.pruning import RULES

from .keep import keep


ORDERS = 100


@dataclass(frozen=True)
class Replay:
    """Trainings in one order, up to the budget.

    Attributes:
        best: The best value of those that were not stopped.
        trainings: How many were begun.
        stopped: How many of them were stopped.
        lost_best: Whether the best of them all was one.
    """

    best: float
    trainings: int
    stopped: int
    lost_best: bool


def replay(
    trials: Sequence[FrozenTrial], direction: optuna.study.StudyDirection, rule: str | None
) -> Replay:
    """Go through trainings in this order until half of the time of all is used up."""
    study = optuna.create_study(direction=direction, pruner=make_pruner(rule))
    left, stopped, lost = len(trials) * 50.0, [], False
    best = _best(trials, direction)
    for done, stored in enumerate(trials):
        if left <= 0:
            break
        trial, at = study.ask(), 100.0
        for step, value in sorted(stored.intermediate_values.items()):
            trial.report(value, step)
            if trial.should_prune():
                at = float(step)
                break
        left -= at
        if at < 100:
            study.tell(trial, state=TrialState.PRUNED)
            stopped.append(stored)
            lost |= stored is best
        else:
            study.tell(trial, stored.values[0])
    else:
        done = len(trials)
    kept = [t for t in trials[:done] if t not in stopped]
    return Replay(_best(kept, direction).values[0], done, len(stopped), lost)


def _best(trials: Sequence[FrozenTrial], direction: optuna.study.StudyDirection) -> FrozenTrial:
    choose = min if direction == optuna.study.StudyDirection.MINIMIZE else max
    return choose(trials, key=lambda t: t.values[0])


def table(study: optuna.Study) -> str:
    """Write what each rule came to on the trainings of a study, as Markdown."""
    trials = [t for t in study.get_trials(deepcopy=False) if is_ok(t) and t.intermediate_values]
    shuffled = [random.Random(seed).sample(trials, len(trials)) for seed in range(ORDERS)]
    runs = {
        rule: [replay(order, study.direction, rule) for order in shuffled]
        for rule in (None, *RULES)
    }
    sign = 1 if study.direction == optuna.study.StudyDirection.MINIMIZE else -1
    lines = [
        f"{study.study_name}: {len(trials)} trainings that succeeded, best"
        f" {_best(trials, study.direction).values[0]:.4f},"
        f" sd {statistics.stdev(t.values[0] for t in trials):.4f}.",
        "",
        "| rule | trainings begun | stopped | best value, mean | better than without"
        " | worse | best training was stopped |",
        "|---|---|---|---|---|---|---|",
    ]
    for rule, found in runs.items():
        gains = [sign * (a.best - b.best) for a, b in zip(runs[None], found)]
        lines.append(
            f"| {rule or 'none'} | {statistics.fmean(r.trainings for r in found):.1f}"
            f" | {statistics.fmean(r.stopped for r in found):.1f}"
            f" | {statistics.fmean(r.best for r in found):.4f}"
            f" | {sum(g > 0 for g in gains) / ORDERS:.0%} | {sum(g < 0 for g in gains) / ORDERS:.0%}"
            f" | {sum(r.lost_best for r in found) / ORDERS:.0%} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("storage")
    parser.add_argument("studies", nargs="*", help="by default all that are there")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    names = given.studies or optuna.get_all_study_names(given.storage)
    text = "\n\n".join(
        table(optuna.load_study(study_name=name, storage=given.storage)) for name in names
    )
    print(text)
    keep("pruning", f"{text}\n")


if __name__ == "__main__":
    main()
