"""SMAC on a function with a log-scaled float, a log-scaled int and a category."""

from __future__ import annotations

import optuna
import optunahub


def objective(trial: optuna.Trial) -> float:
    learning_rate = trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True)
    width = trial.suggest_int("width", 8, 512, log=True)
    activation = trial.suggest_categorical("activation", ["relu", "gelu", None])
    if learning_rate > 0.05:
        raise RuntimeError("The loss is not a number.")  # SMAC learns to stay away from here.
    loss = abs(learning_rate - 3e-3) * 100 + abs(width - 96) / 96
    return loss + (0.0 if activation == "gelu" else 0.5)


if __name__ == "__main__":
    sampler = optunahub.load_module("samplers/smac").SMACSampler(seed=0)
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=50, catch=(RuntimeError,))
    print(study.best_params, study.best_value)
