"""Early stopping by Optuna's pruners, from the losses that a training prints as it goes.

Their steps are percent of the training time, some 20 of them. A learning rate that falls at the end
makes early losses say little, so that nothing is stopped in the first `WARM_UP` percent.
"""

from __future__ import annotations

import optuna
from optuna import pruners
from optuna.trial import FrozenTrial
from optuna.trial import TrialState


RULES = ("median", "percentile", "wilcoxon")
FIRST_TRIALS = 5  # of a study, which are not stopped: there is nothing to compare with
WARM_UP = 30


class _Wilcoxon(pruners.WilcoxonPruner):
    """Optuna's, but it heeds `FIRST_TRIALS` and `WARM_UP` as its other pruners do."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        if trial.last_step is None or trial.last_step < WARM_UP:
            return False
        ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return len(ended) >= FIRST_TRIALS and super().prune(study, trial)


def make_pruner(rule: str | None) -> pruners.BasePruner:
    """Return the pruner of one of the `RULES`; ``None`` is one that stops nothing."""
    if rule == "median":
        return pruners.MedianPruner(FIRST_TRIALS, WARM_UP)
    if rule == "percentile":
        return pruners.PercentilePruner(75.0, FIRST_TRIALS, WARM_UP)
    if rule == "wilcoxon":
        return _Wilcoxon(n_startup_steps=6)  # pairs of losses: fewer say little
    return pruners.NopPruner()
