"""Storages with known answers: studies whose values are drawn, not trained."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from datetime import timedelta
import json

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial


SPACE: Mapping[str, optuna.distributions.BaseDistribution] = {
    "LR": FloatDistribution(1e-4, 1.0, log=True),
    "WIDTH": FloatDistribution(0.0, 1.0),
    "PATTERN": CategoricalDistribution(["S", "L"]),
}


def add_study(
    storage: optuna.storages.BaseStorage,
    method: str,
    seed: int,
    *,
    gap: float = 0.0,
    trials: int = 30,
    failed_share: float = 0.2,
    seconds: float = 300.0,
) -> optuna.Study:
    """A study whose best value is about 1 + gap, with failures and, for Centaur, LLM turns."""
    rng = np.random.default_rng([seed, *method.encode()])
    study = optuna.create_study(storage=storage, study_name=f"{method}-seed{seed}")
    for key, value in {"method": method, "seed": seed}.items():
        study.set_user_attr(key, value)
    start = datetime(2026, 1, 1)
    rows = []
    for number in range(trials):
        ok = number == 0 and failed_share < 1 or rng.random() >= failed_share
        value = 1 + gap + float(rng.gamma(1.0, 0.01)) + (0.05 if number == 0 else 0.0)
        attrs: dict[str, object] = {"status": "ok" if ok else "oom", "total_seconds": seconds / 5}
        attrs["source"] = "llm" if method == "centaur" and number % 3 == 2 else "base"
        if attrs["source"] == "llm":
            attrs |= {"llm_prompt_tokens": 2000 + number, "llm_seconds": 5.0}
        if ok:
            attrs |= {"val_bpb": value, "training_seconds": seconds}
        if number % 7 == 3:
            attrs["effective"] = json.dumps({"WIDTH": 0.5})
        trial = create_trial(
            value=value if ok else 100.0,
            params={
                "LR": float(10 ** rng.uniform(-4, 0)),
                "WIDTH": float(rng.random()),
                "PATTERN": str(rng.choice(["S", "L"])),
            },
            distributions=dict(SPACE),
            user_attrs=attrs,
        )
        trial.datetime_start = start + timedelta(seconds=seconds * number)
        trial.datetime_complete = start + timedelta(seconds=seconds * (number + 1))
        rows.append(trial)
    study.add_trials(rows)
    return study
