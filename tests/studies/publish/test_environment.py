"""Published copies, fetched by optunahub from a git repository in the registry's place."""

from __future__ import annotations

import lzma
from pathlib import Path
import random
import subprocess
import sys
from typing import Any

import optunahub
import pytest

from objective import Testbed
from studies.publish.build import build_package
from studies.publish.build import PUBLISHED_DATA
from studies.publish.build import sources
from studies.publish.environment import make_registry
from studies.publish.environment import readme_example
from studies.publish.environment import redirect_github
from tests.samplers._llm.conftest import Answer
from tests.samplers._llm.conftest import LoopbackServer
from tests.samplers._llm.conftest import obedient
from tests.samplers._llm.conftest import server as server


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory, surrogate: Path) -> Path:
    """Build all packages, with a data set of the tests' testbed."""
    out = tmp_path_factory.mktemp("dist")
    for source in sources():
        build_package(source, out)
    data = out / "benchmarks" / "autoresearch" / PUBLISHED_DATA
    data.write_bytes(lzma.decompress(surrogate.read_bytes()))
    return out


@pytest.fixture(scope="module")
def base_url(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_registry(packages, tmp_path_factory.mktemp("git"))


@pytest.mark.parametrize("name", ["centaur", "karpathy_agent", "llambo_paper", "smac"])
def test_a_package_passes_its_own_tests(name: str, packages: Path) -> None:
    """Optuna's conformance suite; of SMAC, the agent and Centaur's defaults it is run here only."""
    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", f"samplers/{name}")
    done = subprocess.run(
        [sys.executable, *command], cwd=packages, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


@pytest.mark.parametrize("package", [source.package for source in sources()])
def test_a_local_copy_gives_what_the_registry_gives(
    package: str, packages: Path, base_url: str, home: pytest.MonkeyPatch
) -> None:
    local = optunahub.load_local_module(package, registry_root=str(packages))
    fetched = optunahub.load_module(package, base_url=base_url)
    assert local.__all__ == fetched.__all__
    assert all(hasattr(local, name) and hasattr(fetched, name) for name in local.__all__)
    assert str(packages) in str(local.__file__) and str(packages) not in str(fetched.__file__)


@pytest.mark.parametrize("package", [source.package for source in sources()])
def test_the_readmes_example_runs_as_it_is(
    package: str, packages: Path, base_url: str, home: pytest.MonkeyPatch, server: LoopbackServer
) -> None:
    server.answers = obedient(random.Random(0))
    server.others["/v1/models"] = Answer({"data": [{"id": "model"}]})
    home.setenv("OPENAI_BASE_URL", server.url)
    home.setenv("OPENAI_API_KEY", "none")
    for name, value in redirect_github(Path(base_url.removeprefix("file://."))).items():
        home.setenv(name, value)
    names: dict[str, Any] = {}
    exec(readme_example(packages / package), names)
    assert len(names["study"].trials) >= 25
    asks = package in ("samplers/karpathy_agent", "samplers/llambo_paper")
    assert bool(server.requests) == asks


def test_the_published_benchmark_trains_a_script_and_has_its_own(
    base_url: str, home: pytest.MonkeyPatch, testbed: Path
) -> None:
    module = optunahub.load_module("benchmarks/autoresearch", base_url=base_url)
    problem = module.TrainingProblem(testbed, memory_limit_mb=1000)
    params = {"DEPTH": 5, "LR": 0.001, "PATTERN": "ab"}
    assert problem.evaluate(params) == 1.0
    assert problem.evaluate_constraints({**params, "DEPTH": 8}) == {"memory": 1.0}
    assert module.TrainingProblem().search_space == Testbed.load().space


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Environment variables of a user who has fetched nothing yet."""
    monkeypatch.setenv("OPTUNAHUB_CACHE_HOME", str(tmp_path / "cache"))
    return monkeypatch
