"""Random search against TPE, eight seeds each, by seconds of a training that is made up."""

from __future__ import annotations

import math

import optuna
import optunahub


def objective(trial: optuna.Trial) -> float:
    depth = trial.suggest_int("depth", 1, 12)
    rate = trial.suggest_float("rate", 1e-4, 1.0, log=True)
    trial.set_user_attr("training_seconds", 2.0 * depth)
    if depth * rate > 1:
        raise ValueError("diverged")
    decay = trial.suggest_float("decay", 0.0, 0.5)
    return (depth - 6) ** 2 / 10 + math.log10(rate / 0.02) ** 2 + 10 * (decay - 0.1) ** 2


def run_studies() -> dict[str, list[optuna.Study]]:
    """Return eight studies of each sampler, by its name."""
    samplers = {"random": optuna.samplers.RandomSampler, "TPE": optuna.samplers.TPESampler}
    studies: dict[str, list[optuna.Study]] = {}
    for name, sampler in samplers.items():
        for seed in range(8):
            study = optuna.create_study(sampler=sampler(seed=seed))
            study.optimize(objective, n_trials=100, catch=(ValueError,))
            studies.setdefault(name, []).append(study)
    return studies


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    module = optunahub.load_module("visualization/plot_best_so_far")
    figure = module.plot_best_so_far(
        run_studies(), against="training_seconds", interval="bootstrap", x_name="Training time (s)"
    )
    figure.update_yaxes(type="log")
    figure.write_html("best_so_far.html")
    print("best_so_far.html shows", ", ".join(t.name for t in figure.data if t.name))
