from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from studies.errors import Misuse
from studies.methods import METHODS
from studies.random_steps import NAME
from studies.random_steps import RandomSteps
from studies.scoreboard.runs import carry_out
from studies.scoreboard.runs import sampler_of
from studies.scoreboard.runs import Spec
from studies.scoreboard.samplers import entry
from studies.scoreboard.samplers import label_of
from studies.scoreboard.samplers import sampler_names
from tests.studies.scoreboard.made import bowl


PACKAGE = """\
import optuna

__all__ = ["GivenSampler"]


class GivenSampler(optuna.samplers.RandomSampler):
    def __init__(self, search_space, seed=None):
        super().__init__(seed=seed)
        self.given = search_space, seed
"""


def write_package(registry: Path, name: str, text: str) -> None:
    folder = registry / "package" / "samplers" / name
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(text)


@pytest.mark.parametrize("name", [name for name in sampler_names() if METHODS[name].uses_llm])
def test_methods_that_ask_a_model_run_on_random_steps(name: str) -> None:
    sampler = sampler_of(entry(name), bowl(), 0, RandomSteps())
    result = carry_out(Spec("bowl", name, 0, 25, NAME), bowl(), sampler)
    assert result.error == ""
    assert result.asked >= 4
    assert result.unanswered <= result.asked / 4
    assert result.prompt_tokens > 0


def test_a_registrys_sampler_gets_the_search_space_and_the_seed(tmp_path: Path) -> None:
    write_package(tmp_path, "given", PACKAGE)
    problem = bowl()
    sampler = sampler_of(entry("registry:given", tmp_path), problem, 3, None)
    assert isinstance(sampler, optuna.samplers.RandomSampler)
    assert getattr(sampler, "given") == (problem.space, 3)
    assert entry("registry:given", tmp_path).label == "given (registry)"
    assert label_of("llambo-paper") == "LLAMBOSampler"


def test_a_package_without_one_sampler_is_refused(tmp_path: Path) -> None:
    write_package(tmp_path, "none", "__all__ = []\n")
    with pytest.raises(Misuse, match="must export one sampler, but exports none"):
        sampler_of(entry("registry:none", tmp_path), bowl(), 0, None)


def test_samplers_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="A sampler must be one of random, tpe"):
        entry("bayes")
    with pytest.raises(Misuse, match="needs --registry"):
        entry("registry:smac_sampler")
    with pytest.raises(Misuse, match="must have a package/samplers/smac_sampler"):
        entry("registry:smac_sampler", tmp_path)
