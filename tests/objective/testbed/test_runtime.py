from __future__ import annotations

import pytest

from objective.testbed.runtime import option_for


@pytest.mark.parametrize(
    ("reason", "option"),
    [
        ("FileNotFoundError: [Errno 2] No such file or directory: 'data/a.csv'", "--copy PATH"),
        (
            "hydra.errors.MissingConfigException: Cannot find primary config 'train'",
            "--cwd FOLDER",
        ),
        ("CalledProcessError: Command '['git', 'rev-parse', 'HEAD']' returned", "--env GIT_DIR="),
        ("git.exc.InvalidGitRepositoryError: /tmp/autoresearch-x/run", "--env GIT_DIR="),
        ("KeyError: 'SLURM_CPUS'", "add --env SLURM_CPUS"),
        (
            "KeyError raised: \"Environment variable 'SLURM_CPUS' not found\"",
            "add --env SLURM_CPUS",
        ),
        ("wandb.errors.UsageError: api_key not configured (no-tty)", "--env NAME"),
        ("KeyError: 'NOT_SET_HERE'", ""),
        ("ValueError: too many values to unpack", ""),
    ],
)
def test_a_crash_by_where_a_script_runs_names_the_option_that_mends_it(
    reason: str, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CPUS", "4")
    monkeypatch.delenv("NOT_SET_HERE", raising=False)
    said = option_for(reason)
    assert option in said
    assert bool(said) == bool(option)
