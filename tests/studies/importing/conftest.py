"""Files of other people's trials."""

from __future__ import annotations

from collections.abc import Callable
import json
from pathlib import Path
import random
import statistics
from typing import Any
from typing import TYPE_CHECKING

from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest

from objective.testbed.inference import PAPER_SPACE
from tests.studies.conftest import Cli


if TYPE_CHECKING:
    pass


Write = Callable[[str, Any], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file: an object as JSON, a list as JSON lines, text and bytes as they are."""

    def write(name: str, content: Any) -> Path:
        path = tmp_path / name
        if isinstance(content, list):
            content = "\n".join(map(json.dumps, content)) + "\n"
        if not isinstance(content, (str, bytes)):
            content = json.dumps(content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def config(rng: random.Random) -> dict[str, Any]:
    """Random values of the paper's hyperparameters."""
    return {
        name: rng.choice(d.choices)
        if isinstance(d, CategoricalDistribution)
        else rng.randint(d.low, d.high)
        if isinstance(d, IntDistribution)
        else rng.uniform(d.low, d.high)
        for name, d in PAPER_SPACE.items()
        if isinstance(d, (CategoricalDistribution, IntDistribution, FloatDistribution))
    }


def nested(n_trials: int = 20) -> dict[str, Any]:
    """The first form: three methods by three seeds, a fifth of the trials failed."""
    rng = random.Random(0)
    return {
        method: {
            str(seed): [
                {
                    "tid": i,
                    "val_bpb": (ok := rng.random() < 0.8) and rng.uniform(low, 1.1) or 100.0,
                    "success": ok,
                    "wt": 300.0 + rng.random() if ok else 30.0,
                    **config(rng),
                }
                for i in range(n_trials)
            ]
            for seed in range(3)
        }
        for method, low in (("TPE", 0.975), ("Centaur [Opus 4.6]", 0.973), ("Random", 0.985))
    }


def lines_of(content: dict[str, Any]) -> list[dict[str, Any]]:
    """The same trials in the second form, methods and seeds interleaved."""
    rows = [
        {
            "trial_id": row["tid"],
            "backend": method,
            "seed": int(seed),
            "config": {name: row[name] for name in PAPER_SPACE},
            "val_bpb": row["val_bpb"],
            "success": row["success"],
            "error": None if row["success"] else "GPU out-of-memory",
            "wall_time_seconds": row["wt"],
            "timestamp": f"2026-03-01T{row['tid']:02}:00:0{seed}",
        }
        for method, seeds in content.items()
        for seed, trials in seeds.items()
        for row in trials
    ]
    return sorted(rows, key=lambda row: (row["trial_id"], row["seed"]))


def mean_of_best(content: dict[str, Any]) -> dict[str, float]:
    return {
        method: statistics.mean(
            min(row["val_bpb"] for row in trials if row["success"]) for trials in seeds.values()
        )
        for method, seeds in content.items()
    }


def a_row(**changes: Any) -> dict[str, Any]:
    """A line of the second form."""
    return {
        "trial_id": 0,
        "backend": "tpe",
        "seed": 0,
        "config": {"DEPTH": 8},
        "val_bpb": 0.99,
        "success": True,
        "error": None,
        "wall_time_seconds": 300.0,
        "timestamp": "2026-03-01T12:00:00",
        **changes,
    }


def facts_of(cli: Cli, path: Path, *arguments: object) -> dict[str, Any]:
    done = cli("import", path, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert isinstance(facts, dict)
    return facts


LONG = int("9" * 401)  # no float is as large
