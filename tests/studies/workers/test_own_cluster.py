"""Dask clusters of our own, on a machine with strangers."""

# mypy: allow-untyped-calls
# Dask's own functions have no annotations.

from __future__ import annotations

from pathlib import Path
import sys
import tempfile
import urllib.error
import urllib.request

import pytest

from studies.workers.cluster import open_site
from studies.workers.slurm import slurm_cluster
from studies.workers.slurm import slurm_script


def _read(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_local_cluster_has_no_folder_of_anybody_else_and_shows_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where Dask would look for modules, whoever made it.
    planted = tmp_path / "dask-scratch-space"
    planted.mkdir()
    planted.chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path])
    with open_site("local", {}, 1, tmp_path, print) as site:
        assert site.cluster is not None
        [path] = site.client.run(lambda: __import__("sys").path).values()
        for folder in {*path, *sys.path}:
            assert planted not in (Path(folder), *Path(folder).parents)
        folders = [Path(f).parent for f in sys.path if f.endswith("dask-scratch-space")]
        assert folders and all(folder.stat().st_mode & 0o077 == 0 for folder in folders)
        here = site.cluster.dashboard_link.removesuffix("/status")
        pages = ("status", "info/main/workers.html", "json/identity.json", "metrics")
        assert [_read(f"{here}/{page}") for page in pages] == [404] * 4
    assert not any(planted.iterdir())


def test_a_cluster_on_slurm_lets_in_who_has_a_key_that_only_its_owner_reads(
    tmp_path: Path,
) -> None:
    options = {"cores": 1, "memory": "1GB", "interface": "lo"}
    with slurm_cluster(options, tmp_path) as cluster:
        assert cluster.scheduler_address.startswith("tls://")
        script = cluster.job_script()
        keys = [path for path in tmp_path.iterdir() if "key" in path.name]
        assert keys and all(str(path) in script for path in keys)
        assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())
    assert "DASK_TEMPORARY_DIRECTORY=$(mktemp -d)" in script
    given = slurm_script({"cores": 1, "memory": "1GB", "local_directory": "/scratch/mine"})
    assert "mktemp" not in given and "--local-directory /scratch/mine" in given
