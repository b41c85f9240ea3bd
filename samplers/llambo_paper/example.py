"""LLAMBO on a function with log-scaled parameters, a category and a region that fails.

Set OPENAI_BASE_URL, OPENAI_API_KEY and OPENAI_MODEL, or install the project optuna-autoresearch,
which has a small model of its own.
"""

from __future__ import annotations

import math

import optuna
import optunahub


TASK = """A small network is trained for a minute; the score is its validation loss. A wide network
with a large batch runs out of memory. Wide networks want small learning rates."""


def objective(trial: optuna.Trial) -> float:
    learning_rate = trial.suggest_float("learning_rate", 1e-5, 1.0, log=True)
    width = trial.suggest_int("width", 16, 1024, log=True)
    batch = trial.suggest_int("batch", 8, 512, log=True)
    activation = trial.suggest_categorical("activation", ["relu", "gelu", "tanh"])
    if width * batch > 60_000:
        raise MemoryError("out of memory")  # The model is shown it as a failure.
    loss = math.log10(learning_rate * math.sqrt(width) / 0.03) ** 2
    loss += math.log2(width / 300) ** 2 / 10 + math.log2(batch / 64) ** 2 / 10
    return loss + (0.0 if activation == "gelu" else 0.1)


if __name__ == "__main__":
    sampler = optunahub.load_module("samplers/llambo_paper").LLAMBOSampler(task=TASK, seed=0)
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=12, catch=(MemoryError,))
    for trial in study.trials:
        print(trial.number, trial.user_attrs["source"], trial.state.name, trial.value)
    print(study.best_params, study.best_value)
