"""Prompts of 14 and 60 parameters early, later and late in a study, and what stays the same.

    python -m tests.benchmarks.prompts [FOLDER]

For each method and number of trials the tokens of the large and of the small prompt, by the
estimate that stands in for a tokenizer, and the share that a server's prefix cache would serve on
average over the 20 trials up to it. With a folder, the large prompts are written to it: read each
once after a change. Takes a minute; prints and writes ``results/prompts.md``.
"""

from __future__ import annotations

from functools import partial
import itertools
from os.path import commonprefix
from pathlib import Path
import sys

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import create_trial
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from objective.objective import SIDE_DATA
from objective.testbed.derived import Derived
from objective.testbed.derived import USUAL
from objective.testbed.inference import PAPER_SPACE
from samplers._llm.prompt import default_prompt_tokens
from samplers._llm.prompt import fit
from samplers._llm.tokens import estimate_tokens
from samplers._llm.trial_prompt import Knowledge
from samplers._llm.trial_prompt import TrialPrompt
from samplers.centaur.prompt import template

from .keep import keep


TASK = "Train a language model for five minutes on one GPU. Minimize val_bpb. " * 4


class Estimating:
    """The part of a ``Chat`` that a prompt needs."""

    model = "large"
    context_tokens = None

    def count_tokens(self, text: str) -> int:
        return estimate_tokens(text)


def space_of(n: int) -> dict[str, BaseDistribution]:
    names = itertools.cycle(PAPER_SPACE.items())
    return {
        name if i < len(PAPER_SPACE) else f"{name}_{i // len(PAPER_SPACE)}": distribution
        for i, (name, distribution) in zip(range(n), names)
    }


def history(space: dict[str, BaseDistribution], n: int) -> list[FrozenTrial]:
    """Trials as a study makes them: random ones first, then steps from the best."""
    rng = np.random.default_rng(0)
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(sampler=sampler)
    trials: list[FrozenTrial] = []
    for number in range(n):
        drawn = study.ask(space).params
        ok = [t for t in trials if t.user_attrs["status"] == "ok"]
        if number >= 10:
            best = min(ok, key=lambda t: t.values[0])
            names = list(rng.choice(list(space), 3, replace=False))
            drawn = {**best.params, **{name: drawn[name] for name in names}}
        failed = drawn["DEPTH"] * drawn["ASPECT_RATIO"] > 1800
        value = (
            0.97 + 0.02 * abs(np.log10(drawn["MATRIX_LR"] / 0.04)) + abs(drawn["DEPTH"] - 9) / 99
        )
        steps = int(2e6 / drawn["DEPTH"] / drawn["ASPECT_RATIO"])
        trial = create_trial(
            params=drawn,
            distributions=space,
            value=100.0 if failed else float(value + 4e-4 * rng.normal()),
            user_attrs={
                "status": "oom" if failed else "ok",
                "source": "enqueued" if number == 0 else "llm" if number % 3 == 0 else "base",
                "proposer": "llm" if number % 3 == 0 else "steps",
                "steps": steps,
                "peak_memory_mb": 40 * drawn["DEPTH"] * drawn["ASPECT_RATIO"],
            },
        )
        trial.number = number
        trials.append(trial)
    return trials


def prompt(trials: list[FrozenTrial], space: dict[str, BaseDistribution], details: bool) -> str:
    study = optuna.create_study()
    study.add_trials(trials)
    running = create_trial(state=TrialState.RUNNING)
    running.number = len(trials)
    known = Knowledge(TASK, 4e-4, 310, None, Derived(USUAL, {"MAX_SEQ_LEN": 2048}), SIDE_DATA)
    of = TrialPrompt(
        study,
        running,
        space,
        known,
        intro=template("prompt_critic.txt" if details else "prompt.txt"),
        is_mine=lambda number: number % 3 == 0,
        details=details,
    )
    ask = f"Propose trial {len(trials)}{of.left()}. {of.moment()}"
    build = partial(of.build, ask=ask)
    return str(fit(build, Estimating(), default_prompt_tokens(details), of.extents)[0]["content"])  # type: ignore[arg-type]


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    rows = ["| parameters | trial | prompt | tokens | rows of trials | served by a prefix cache |"]
    rows.append("|---|---|---|---|---|---|")
    for n_params in (14, 60):
        space = space_of(n_params)
        trials = history(space, 300)
        for number in (1, 20, 300):
            for details in (True, False):
                shares, before = [], ""
                for n in range(max(1, number - 20), number + 1):
                    text = prompt(trials[:n], space, details)
                    if before:
                        shares.append(len(commonprefix([before, text])) / len(text))
                    before = text
                table = text.split("# Trials")[1].split("\n\n")[0].splitlines()
                n_rows = sum(line.split(",")[0].isdigit() for line in table)
                cached = f"{100 * np.mean(shares):.0f} %" if shares else ""
                kind = "large" if details else "small"
                tokens = estimate_tokens(text)
                rows.append(f"| {n_params} | {number} | {kind} | {tokens} | {n_rows} | {cached} |")
                if folder is not None and details:
                    folder.mkdir(parents=True, exist_ok=True)
                    (folder / f"{n_params}-{number}.txt").write_text(text)
    text = "# Prompts of TrialPrompt: tokens, and what stays the same\n\n" + "\n".join(rows) + "\n"
    print(text)
    keep("prompts", text)


if __name__ == "__main__":
    main()
