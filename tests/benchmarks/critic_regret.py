"""CentaurSampler without a language model beside TPE and CMA-ES on the scoreboard's problems.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.critic_regret choose|judge [--seeds 5]

Options of the critic were chosen by runs on ``choose`` with seeds from 100 on, and never by those of
``judge``, which have seeds from 0 on. Of those two seeds were looked at once before the end: the mean
regret after 100 trials was 0.049 then (TPE 0.071, CMA-ES 0.063). After that the start was changed, by
``choose`` alone. The embedded surrogate is in both: there is only one function of it, and other seeds
are other runs.

Rows are appended to ``results/critic_regret_SET.csv`` as runs end, and are not run again. Regret is
normalized as the scoreboard's: 0 is the optimum, 1 the median random point.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
import csv
from pathlib import Path
import warnings

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.samplers import CmaEsSampler
from optuna.samplers import TPESampler

from samplers.centaur import CentaurSampler
from studies.scoreboard.problems import normalize
from studies.scoreboard.runs import carry_out
from studies.scoreboard.runs import Spec
from studies.scoreboard.suites import problem
from tests.benchmarks.keep import RESULTS


SETS = {
    "choose": (
        100,
        (
            "bbob/f8/10d+oom",
            "bbob-mixint/f8/10d",
            "hpobench/phoneme",
            "bbob/f15/10d",
            "bbob/f24/10d",
            "bbob-mixint/f16/10d",
            "surrogate",
        ),
    ),
    "judge": (
        0,
        (
            "surrogate",
            "hpolib/protein_structure",
            "hpolib/slice_localization+fail",
            "bbob/f3/10d",
            "bbob/f10/20d",
            "bbob/f21/5d",
            "bbob-mixint/f15/20d",
            "bbob-mixint/f1/5d",
            "hpobench/segment",
            "hpobench/vehicle",
            "hpobench/credit_g",
            "hpolib/parkinsons_telemonitoring",
            "bbob-constrained/f7/10d",
            "bbob/f17/10d+oom",
            "bbob-mixint/f10/10d+fail",
        ),
    ),
}
SAMPLERS = ("centaur", "tpe", "cma-es")
TRIALS = (30, 50, 100)


def build(name: str, seed: int) -> BaseSampler:
    if name == "centaur":
        return CentaurSampler(llm_ratio=0, seed=seed)
    if name == "tpe":
        return TPESampler(seed=seed)
    return CmaEsSampler(seed=seed, warn_independent_sampling=False)


def read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def table(rows: list[dict[str, str]], problems: tuple[str, ...]) -> str:
    """Mean normalized regret, by problem and sampler, of the seeds that all samplers ran."""
    regrets: dict[tuple[str, str, str], list[float]] = {}
    seconds: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        key = row["problem"], row["sampler"], row["seed"]
        regrets[key] = [float(row[f"regret_{n}"]) / float(row["scale"]) for n in TRIALS]
        seconds[row["sampler"]].append(float(row["cpu_seconds"]))
    lines = [
        "| problem | seeds | " + " | ".join(f"{s}, {n}" for s in SAMPLERS for n in TRIALS) + " |",
        "|---" * (2 + len(SAMPLERS) * len(TRIALS)) + "|",
    ]
    means = []
    for name in problems:
        seeds = sorted({s for p, _, s in regrets if p == name}, key=int)
        seeds = [s for s in seeds if all((name, x, s) in regrets for x in SAMPLERS)]
        if not seeds:
            continue
        least = min(0.0, *(regrets[name, x, s][-1] for x in SAMPLERS for s in seeds))
        cells = [
            float(np.mean([normalize(regrets[name, x, s][i], least, 1.0) for s in seeds]))
            for x in SAMPLERS
            for i in range(len(TRIALS))
        ]
        means.append(cells)
        lines.append(f"| {name} | {len(seeds)} | " + " | ".join(f"{c:.4f}" for c in cells) + " |")
    if means:
        mean = np.mean(means, axis=0)
        lines.append("| mean | | " + " | ".join(f"{c:.4f}" for c in mean) + " |")
    spent = ", ".join(f"{s} {np.mean(seconds[s]):.1f}" for s in SAMPLERS if seconds[s])
    return "\n".join(lines) + f"\n\nSeconds of a run's sampler, mean: {spent}.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("set", choices=sorted(SETS))
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")

    first, problems = SETS[arguments.set]
    path = RESULTS / f"critic_regret_{arguments.set}.csv"
    fields = ["problem", "sampler", "seed", "failed", "scale", "cpu_seconds"]
    fields += [f"regret_{n}" for n in TRIALS]
    rows = read(path)
    done = {(row["problem"], row["sampler"], row["seed"]) for row in rows}
    if not rows:
        path.write_text(",".join(fields) + "\n")
    for seed in range(first, first + arguments.seeds):
        for name in problems:
            for sampler in SAMPLERS:
                if (name, sampler, str(seed)) in done:
                    continue
                made = problem(name, seed)
                spec = Spec(name, sampler, seed, TRIALS[-1])
                result = carry_out(spec, made, build(sampler, seed))
                values = [name, sampler, seed, result.failed, result.scale, result.cpu_seconds]
                values += [result.regret(n) for n in TRIALS]
                with path.open("a", newline="") as file:
                    csv.writer(file, lineterminator="\n").writerow(values)
                print(*values, result.error, flush=True)
        text = table(read(path), problems)
        (RESULTS / f"critic_regret_{arguments.set}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
