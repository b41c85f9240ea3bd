"""Seconds per suggestion of SMACSampler, a fresh SMAC facade, and Optuna's samplers.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.smac_cost

The search space has the 14 hyperparameters of the autoresearch study. The history of SMACSampler and
the facade is one random design with an analytic cost; CMA-ES, TPE and random search have a history of
their own, since CMA-ES ignores trials that it did not propose. The facade is what one gets without a
sampler: ``HyperparameterOptimizationFacade`` with its default settings (but deterministic, one call
per configuration, and retrained at every call), told the same history by ``tell`` and asked by
``ask``. Every timed suggestion is followed by its result, so that histories grow by some trials while
they are measured. The storage is in memory.

Writes ``results/smac_cost.csv`` (a row per suggestion) and ``results/smac_cost.md`` (the table).
"""

from __future__ import annotations

import csv
import logging
import math
from pathlib import Path
import statistics
from tempfile import TemporaryDirectory
import time
from typing import Any
from typing import NamedTuple
from typing import TYPE_CHECKING

import optuna

from objective.testbed.inference import PAPER_SPACE
from samplers.smac import SMACSampler
from samplers.smac.space import to_configspace
from samplers.smac.space import to_configuration
from smac import HyperparameterOptimizationFacade
from smac import Scenario
from smac.runhistory import TrialInfo
from smac.runhistory import TrialValue


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping

    from optuna.samplers import BaseSampler

N_FINISHED = (50, 100, 300)
REPEATS = 11
FACADE_REPEATS = 3  # It takes some ten seconds a suggestion.
RESULTS = Path(__file__).parent / "results"

SPACE = PAPER_SPACE
OPTUNA_SAMPLERS: dict[str, Callable[[], BaseSampler]] = {
    "CmaEsSampler": lambda: optuna.samplers.CmaEsSampler(seed=0, warn_independent_sampling=False),
    "TPESampler": lambda: optuna.samplers.TPESampler(seed=0),
    "RandomSampler": lambda: optuna.samplers.RandomSampler(seed=0),
}


def cost(params: Mapping[str, Any]) -> float:
    """A smooth bowl around the defaults of the study's training script, about 1 at its best."""
    learning_rate = math.log10(params["MATRIX_LR"] / 0.04)
    batch = math.log2(params["TOTAL_BATCH_SIZE"] / 2**18)
    pattern = 0.02 * (params["WINDOW_PATTERN"] != "SSSL")
    size = (params["DEPTH"] - 10) / 20
    return 1 + learning_rate**2 + 0.05 * batch**2 + size**2 + params["WARMUP_RATIO"] + pattern


def study_with(sampler: BaseSampler, history: list[optuna.trial.FrozenTrial]) -> optuna.Study:
    study = optuna.create_study(sampler=sampler)
    study.add_trials(history)
    return study


class Seconds(NamedTuple):
    wall: float
    cpu: float  # of all threads: what a machine with other work to do would not lengthen


class Stopwatch:
    def __init__(self) -> None:
        self._start = Seconds(time.perf_counter(), time.process_time())

    def read(self) -> Seconds:
        return Seconds(
            time.perf_counter() - self._start.wall, time.process_time() - self._start.cpu
        )


def suggest(study: optuna.Study) -> Seconds:
    """Return the seconds of one suggestion, whose result is then stored."""
    stopwatch = Stopwatch()
    trial = study.ask(SPACE)
    seconds = stopwatch.read()
    study.tell(trial, cost(trial.params))
    return seconds


def suggest_with_facade(history: list[optuna.trial.FrozenTrial], seed: int) -> Seconds:
    """Return the seconds to build a facade, tell it the history, and ask it once."""
    stopwatch = Stopwatch()
    configspace = to_configspace(SPACE)
    facade = HyperparameterOptimizationFacade
    with TemporaryDirectory() as folder:
        scenario = Scenario(
            configspace, deterministic=True, seed=seed, output_directory=Path(folder)
        )
        smac = facade(
            scenario,
            initial_design=facade.get_initial_design(scenario, n_configs=0),
            intensifier=facade.get_intensifier(scenario, max_config_calls=1),
            config_selector=facade.get_config_selector(scenario, retrain_after=1),
            logging_level=False,
        )
        for trial in history:
            configuration = to_configuration(configspace, SPACE, trial.params)
            assert configuration is not None
            smac.tell(TrialInfo(configuration, seed=0), TrialValue(trial.values[0]), save=False)
        smac.ask()
    return stopwatch.read()


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("smac").setLevel(logging.ERROR)
    design = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(max(N_FINISHED)):
        suggest(design)

    rows: list[tuple[str, int, Seconds]] = []
    for n in N_FINISHED:
        history = design.trials[:n]
        study = study_with(SMACSampler(seed=0), history)
        rows += [("SMACSampler", n, suggest(study)) for _ in range(REPEATS)]
        rows += [
            ("fresh facade", n, suggest_with_facade(history, seed))
            for seed in range(FACADE_REPEATS)
        ]
        for name, make in OPTUNA_SAMPLERS.items():
            study = study_with(make(), [])
            for _ in range(n):
                suggest(study)
            rows += [(name, n, suggest(study)) for _ in range(REPEATS)]

    RESULTS.mkdir(exist_ok=True)
    with open(RESULTS / "smac_cost.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sampler", "finished_trials", "seconds", "cpu_seconds"])
        writer.writerows(
            (name, n, f"{seconds.wall:.4f}", f"{seconds.cpu:.4f}") for name, n, seconds in rows
        )

    lines = [
        "Seconds per suggestion, 14 hyperparameters: median by the clock (lowest to highest); "
        "median of the processor's time:",
        "",
        "| sampler | " + " | ".join(f"{n} finished" for n in N_FINISHED) + " |",
        "|---" * (1 + len(N_FINISHED)) + "|",
    ]
    for name in dict.fromkeys(name for name, _, _ in rows):
        cells = []
        for n in N_FINISHED:
            seconds = [s for sampler, m, s in rows if (sampler, m) == (name, n)]
            wall = [s.wall for s in seconds]
            cpu = statistics.median(s.cpu for s in seconds)
            cells.append(
                f"{statistics.median(wall):.3f} ({min(wall):.3f} to {max(wall):.3f}); {cpu:.3f}"
            )
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    table = "\n".join(lines) + "\n"
    (RESULTS / "smac_cost.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
