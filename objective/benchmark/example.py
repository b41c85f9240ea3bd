"""Random search and TPE on the surrogate of a training script, whose memory is limited."""

from __future__ import annotations

import optuna
import optunahub


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    problem = optunahub.load_module("benchmarks/autoresearch").Problem()
    print("baseline", problem.evaluate(problem.baseline))
    for sampler in (optuna.samplers.RandomSampler(seed=0), optuna.samplers.TPESampler(seed=0)):
        study = optuna.create_study(sampler=sampler, directions=problem.directions)
        study.enqueue_trial(problem.baseline)
        study.optimize(problem, n_trials=100)
        failed = sum(trial.user_attrs["status"] != "ok" for trial in study.trials)
        print(type(sampler).__name__, study.best_value, f"{failed} of {len(study.trials)} failed")
