"""Random search against TPE, eight seeds each, by seconds of a training that is made up."""

from __future__ import annotations

import optuna
import optunahub


def objective(trial: optuna.Trial) -> float:
    depth = trial.suggest_int("depth", 1, 12)
    rate = trial.suggest_float("rate", 1e-4, 1.0, log=True)
    trial.set_user_attr("training_seconds", 2.0 * depth)
    if depth * rate > 1:
        raise ValueError("diverged")
    return (depth - 6) ** 2 / 10 + abs(rate - 0.02)


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    samplers = {"random": optuna.samplers.RandomSampler, "TPE": optuna.samplers.TPESampler}
    studies: dict[str, list[optuna.Study]] = {}
    for name, sampler in samplers.items():
        for seed in range(8):
            study = optuna.create_study(sampler=sampler(seed=seed))
            study.optimize(objective, n_trials=40, catch=(ValueError,))
            studies.setdefault(name, []).append(study)

    module = optunahub.load_module("visualization/plot_best_so_far")
    figure = module.plot_best_so_far(
        studies, against="training_seconds", interval="bootstrap", x_name="Training time (s)"
    )
    figure.write_html("best_so_far.html")
    print("best_so_far.html shows", ", ".join(t.name for t in figure.data if t.name))
