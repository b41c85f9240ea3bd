"""Scripts as people have them, tuned by the one command that the README of each names."""

from __future__ import annotations

from pathlib import Path
import shlex

import optuna
import pytest

from tests.studies.conftest import Cli


BEDS = Path(__file__).parent.parent / "testbeds"


def command_of(bed: Path) -> list[str]:
    """Return the arguments of the command in a README, with the testbed's full path."""
    text = (bed / "README.md").read_text(encoding="utf-8")
    lines = text.replace("\\\n", " ").splitlines()
    (line,) = [line for line in lines if line.startswith("    optuna-autoresearch run")]
    words = shlex.split(line)[1:]
    at = words.index("--testbed") + 1
    return [*words[:at], str((bed / words[at]).resolve()), *words[at + 1 :]]


@pytest.mark.parametrize(
    ("method", "bed", "metric", "direction", "parameters", "baseline"),
    [
        ("tpe", "digits", "accuracy", "MAXIMIZE", "hidden lr alpha solver momentum", 22.58),
        (
            "centaur-no-llm",
            "yaml_config",
            "valid.loss",
            "MINIMIZE",
            "optimizer.name optimizer.lr optimizer.momentum",
            0.0,
        ),
        ("tpe", "key_value", "val loss", "MINIMIZE", "learning_rate n_layer dropout", 0.0),
        (
            "centaur-no-llm",
            "forty_constants",
            "val_loss",
            "MINIMIZE",
            "LEARNING_RATE N_LAYER DROPOUT WEIGHT_DECAY BETA2 SCHEDULE BATCH_SIZE GRAD_CLIP"
            " LABEL_SMOOTHING",
            0.0,
        ),
        ("tpe", "src_layout", "r2", "MAXIMIZE", "penalty degree", 0.0),
        ("centaur-no-llm", "rmse", "RMSE", "MINIMIZE", "depth rate", 2730.3),
    ],
)
def test_a_script_is_tuned_as_it_is(
    cli: Cli, method: str, bed: str, metric: str, direction: str, parameters: str, baseline: float
) -> None:
    words = command_of(BEDS / bed)
    words[words.index("--method") + 1] = method
    before = {p: p.read_bytes() for p in sorted((BEDS / bed).rglob("*")) if p.is_file()}
    done = cli(*words, "--study", "s", "--trials", 2)
    assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name="s", storage=cli.storage)
    assert (study.metric_names, study.direction.name) == ([metric], direction)
    assert metric in done.stdout and "val_bpb" not in done.stdout + done.stderr
    first = study.trials[0]
    assert list(first.params) == parameters.split()
    assert first.user_attrs["status"] == "ok" and first.user_attrs[metric] == first.value
    if baseline:
        assert first.value == baseline
    assert {p: p.read_bytes() for p in before} == before
