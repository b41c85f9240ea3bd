"""Tokens and seconds of a turn of the embedded language model, with 14 parameters.

A study of the paper's search space with an analytic loss and failures; each turn's tokens and
seconds. The steady state begins when the table of trials is full.

    python -m tests.benchmarks.centaur_llm [--reply menu] [--trials 60] [--seed 0]

Takes about a minute on two idle cores; prints and writes ``results/centaur_llm.md``.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution

from samplers._llm.connect import open_embedded
from samplers.centaur import CentaurSampler
from samplers.centaur.state import UnitCube
from tests.samplers._llm.test_embedded import BASE

from .keep import keep
from .smac_cost import SPACE


STEADY_FROM = 30  # trials

BEST = {**BASE, "DEPTH": 10, "DEVICE_BATCH_SIZE": 64, "MATRIX_LR": 0.03, "WEIGHT_DECAY": 0.1}
TASK = (
    "A GPT of about 50 million parameters is trained for 5 minutes on one GPU with Muon for the "
    "matrices and AdamW for the rest. The value is the validation loss in bits per byte. The "
    "width is DEPTH * ASPECT_RATIO. A run that needs more than 76 GB of memory fails."
)


def objective(trial: optuna.Trial) -> float:
    params = {name: trial._suggest(name, d) for name, d in SPACE.items()}
    if params["DEPTH"] * params["ASPECT_RATIO"] * params["DEVICE_BATCH_SIZE"] > 196_608:
        trial.set_user_attr("status", "oom")
        trial.set_user_attr("reason", "out of memory: more than 76 GB")
        return 100.0
    numerical = {n: d for n, d in SPACE.items() if not isinstance(d, CategoricalDistribution)}
    x, best = UnitCube(numerical, with_margin=False).points([params, BEST])
    return 0.97 + 0.06 * float(np.sum((x - best) ** 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reply", default="auto")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = CentaurSampler(
        chat=open_embedded(),
        task=TASK,
        reply=options.reply,
        seed=options.seed,
        n_trials=options.trials,
    )
    study = optuna.create_study(sampler=sampler)
    study.enqueue_trial(BASE)
    study.optimize(objective, n_trials=options.trials)

    lines = [
        "| trial | source | value | best before | prompt tokens | reply tokens | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    turns = [t for t in study.trials if "llm_prompt_tokens" in t.user_attrs]
    for t in turns:
        a = t.user_attrs
        before = min(other.values[0] for other in study.trials[: t.number])
        lines.append(
            f"| {t.number} | {a['source']} | {t.value:.4f} | {before:.4f} | "
            f"{a['llm_prompt_tokens']} | {a['llm_completion_tokens']} | {a['llm_seconds']:.1f} |"
        )
    steady = [t.user_attrs for t in turns if t.number >= STEADY_FROM]
    lines += [
        "",
        f"Longest request: {max(t.user_attrs['llm_prompt_tokens'] for t in turns)} tokens. From "
        f"trial {STEADY_FROM} on: {statistics.median(a['llm_seconds'] for a in steady):.1f} s in the "
        "median.",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    keep("centaur_llm", text)


if __name__ == "__main__":
    main()
