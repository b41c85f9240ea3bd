"""Storages with known answers: studies whose values are drawn, not trained."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from datetime import timedelta
import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts import upload_artifact
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial
from optuna.trial import TrialState

from objective.testbed.metric import METRIC
from objective.testbed.metric import Metric
from studies.facts import REPEATS
from studies.report.runs import load_contents
from studies.report.runs import Run
from studies.storage.bulk import add_trials


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
    name: str = "",
    said: Mapping[int, str] = {},
    folder: Path = Path(),
    metric: Metric = METRIC,
    **facts: Any,
) -> optuna.Study:
    """A study whose best value is about 1 + gap, with failures and, for Centaur, LLM turns.

    Every third of Centaur's trials asked the LLM, and every ninth was refused. Trial 0 is 0.05
    worse than its draw. LR above 0.5 makes a failure a timeout. ``facts`` are user attributes.
    ``said`` are the transcripts of some trials, kept in the artifact store of ``folder``. To be
    maximized, values are the negative ones.
    """
    rng = np.random.default_rng([seed, *method.encode()])
    name = name or f"{method}-seed{seed}"
    study = optuna.create_study(storage=storage, study_name=name, direction=metric.direction)
    metric.name_in(study)
    ours = {"testbed_hash": "0", "method": method, "seed": seed}
    for key, fact in {**ours, **facts}.items():
        study.set_user_attr(key, fact)
    start = datetime(2026, 1, 1)
    rows = []
    for number in range(trials):
        ok = number == 0 and failed_share < 1 or rng.random() >= failed_share
        value = 1 + gap + float(rng.gamma(1.0, 0.01)) + (0.05 if number == 0 else 0.0)
        value = metric.cost(value)
        params: dict[str, Any] = {
            "LR": float(10 ** rng.uniform(-4, 0)),
            "WIDTH": float(rng.random()),
            "PATTERN": str(rng.choice(["S", "L"])),
        }
        attrs: dict[str, Any] = {"source": "base"}
        if method == "centaur" and number % 3 == 2:
            attrs = {
                "source": "llm-duplicate" if number % 9 == 8 else "llm",
                "llm_prompt_tokens": 2000 + number,
                "llm_completion_tokens": 100,
                "llm_seconds": 5.0,
                "llm_attempts": 1,
                "llm_model": "small",
            }
        if ok:
            attrs |= {"status": "ok", metric.name: value, "training_seconds": seconds}
            attrs["total_seconds"] = seconds * 1.1
        else:
            attrs["status"] = "timeout" if params["LR"] > 0.5 else "oom"
            attrs["reason"] = "<b>out of</b> memory"
            attrs["total_seconds"] = seconds / 5
        if number % 7 == 3:
            attrs["effective"] = json.dumps({"WIDTH": 0.5})
        trial = create_trial(
            value=value if ok else metric.cost(100.0),
            params=params,
            distributions=dict(SPACE),
            user_attrs=attrs,
            system_attrs=_transcript(study, number, said[number], folder)
            if number in said
            else {},
        )
        trial.datetime_start = start + timedelta(seconds=seconds * number)
        trial.datetime_complete = start + timedelta(seconds=seconds * (number + 1))
        rows.append(trial)
    add_trials(study, getattr(storage, "_backend", storage), rows)
    return study


def add_library_study(storage: optuna.storages.BaseStorage) -> optuna.Study:
    """A study made with Optuna alone: of twelve trials 4 failed, and 2, 5, 8 and 11 were pruned.

    Choices are None and floats of many digits; only half of the trials have a momentum. Two
    parameters have names of columns of the page's table.
    """
    study = optuna.create_study(storage=storage, study_name="alone")
    space: dict[str, optuna.distributions.BaseDistribution] = {
        "LR": FloatDistribution(1e-4, 1.0, log=True),
        "WIDTH": FloatDistribution(0.0, 1.0),
        "depth": CategoricalDistribution([None, 5, 10]),
        "dropout": CategoricalDistribution([0.015625, 0.0625]),
        "momentum": FloatDistribution(0.0, 1.0),
        "state": FloatDistribution(0.0, 1.0),
        "reason": FloatDistribution(0.0, 1.0),
    }
    for number in range(12):
        state = TrialState.PRUNED if number % 3 == 2 else TrialState.COMPLETE
        params: dict[str, Any] = {
            "LR": 0.0012 + 0.0006 * number / 11,
            "WIDTH": number / 11,
            "depth": (None, 5, 10)[number // 4],
            "dropout": (0.015625, 0.0625)[number % 2],
            "state": 0.25,
            "reason": 0.75,
        }
        if number % 2:
            params["momentum"] = 0.9
        study.add_trial(
            create_trial(
                state=TrialState.FAIL if number == 4 else state,
                value=1 - number / 100 if state == TrialState.COMPLETE and number != 4 else None,
                params=params,
                distributions={name: space[name] for name in params},
                user_attrs={"reason": "no luck"} if number == 4 else {},
            )
        )
    return study


def add_repetitions(
    storage: optuna.storages.BaseStorage,
    study: optuna.Study,
    values: Sequence[float | None],
    of: int | None = None,
) -> None:
    """The study's best configuration, or trial ``of``, trained again with these results; None ran
    out of memory."""
    name = f"{study.study_name}-revalidated"
    again = optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
    again.set_user_attr("revalidates", study.study_name)
    repeats = {REPEATS: study.best_trial.number if of is None else of}
    for seed, value in enumerate(values):
        if value is None:
            attrs = {"status": "oom", "train_seed": seed, **repeats}
            again.add_trial(create_trial(state=TrialState.FAIL, user_attrs=attrs))
        else:
            attrs = {"status": "ok", "val_bpb": value, "train_seed": seed, **repeats}
            again.add_trial(create_trial(value=value, user_attrs=attrs))


def _transcript(study: optuna.Study, number: int, text: str, folder: Path) -> dict[str, Any]:
    """Keep what the language model was asked in a trial: the system attributes that say so.

    Optuna takes artifacts of running trials only, and these trials never ran: the artifact is
    uploaded as the study's.
    """
    path = folder / f"llm-{number:05d}.md"
    path.write_text(text, encoding="utf-8")
    store = FileSystemArtifactStore(folder)
    upload_artifact(artifact_store=store, file_path=str(path), study_or_trial=study)
    attrs = study._storage.get_study_system_attrs(study._study_id)
    return {key: attrs[key] for key in list(attrs)[-1:]}


def runs_of(storage: optuna.storages.BaseStorage) -> list[Run]:
    """The runs of a storage that holds one comparison."""
    (contents,) = load_contents(storage, print).values()
    return contents.runs
