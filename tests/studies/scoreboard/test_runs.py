from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from samplers._llm.chat import ChatUnavailable
from studies.commands.work.scoreboard import commands
from studies.errors import Misuse
from studies.random_steps import NAME
from studies.random_steps import RandomSteps
from studies.scoreboard import runs
from studies.scoreboard.problems import Outcome
from studies.scoreboard.problems import with_failures
from studies.scoreboard.runs import carry_out
from studies.scoreboard.runs import read
from studies.scoreboard.runs import Results
from studies.scoreboard.runs import run
from studies.scoreboard.runs import sampler_of
from studies.scoreboard.runs import Spec
from studies.scoreboard.samplers import entry
from studies.scoreboard.samplers import sampler_names
from studies.spec import Model
from tests.studies.scoreboard.made import bowl
from tests.studies.scoreboard.made import result


class _Breaks(optuna.samplers.RandomSampler):
    """Raises in its third trial."""

    def __init__(self, error: Exception) -> None:
        super().__init__(seed=0)
        self._error = error

    def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if trial.number == 2:
            raise self._error


def spec(sampler: str = "random", trials: int = 30, seed: int = 0) -> Spec:
    return Spec("bbob/f1/2d", sampler, seed, trials)


def test_a_curve_tells_the_regret_after_any_number_of_trials() -> None:
    seen: list[float] = []

    def evaluate(params: Any) -> Outcome:
        outcome = bowl().evaluate(params)
        assert outcome.value is not None
        seen.append(outcome.value)
        return outcome

    problem = replace(bowl(), evaluate=evaluate)
    assert problem.scale > 0
    seen.clear()
    found = carry_out(spec(), problem, optuna.samplers.RandomSampler(seed=0))
    assert found.trials == len(seen) == 30
    for n in range(1, 31):
        assert found.regret(n) == pytest.approx(min(seen[:n]), rel=1e-3)


@pytest.mark.parametrize("name", [name for name in sampler_names() if name != "gp"])
def test_a_short_run_is_the_beginning_of_a_long_one(name: str) -> None:
    def run(trials: int) -> tuple[tuple[int, float], ...]:
        sampler = sampler_of(entry(name), bowl(), 1, RandomSteps())
        return carry_out(spec(name, trials), bowl(), sampler).curve

    assert run(14) == tuple((n, regret) for n, regret in run(22) if n <= 14)


@pytest.mark.parametrize("name", [name for name in sampler_names() if name != "gp"])
@pytest.mark.parametrize("kind", ["fail", "oom"])
def test_no_sampler_of_ours_or_optunas_breaks_by_failures(name: str, kind: Any) -> None:
    problem = with_failures(bowl(), kind, 0)
    sampler = sampler_of(entry(name), problem, 0, RandomSteps())
    found = carry_out(spec(name, 16), problem, sampler)
    assert found.error == ""
    assert found.trials == 16
    assert 0 < found.failed < 16


def test_what_violates_a_constraint_is_no_improvement_and_the_sampler_is_told() -> None:
    def evaluate(params: Any) -> Outcome:
        return replace(bowl().evaluate(params), constraints={"left": params["x"]})

    told: list[dict[str, float]] = []

    class Watches(optuna.samplers.RandomSampler):
        def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
            told.append(dict(trial.constraints))

    found = carry_out(spec(), replace(bowl(), evaluate=evaluate), Watches(seed=0))
    assert 0 < found.infeasible < 30
    assert sum(constraints["left"] > 0 for constraints in told) == found.infeasible
    assert found.curve[0][0] == 1 + next(i for i, c in enumerate(told) if c["left"] <= 0)


def test_a_sampler_that_raises_keeps_what_it_reached() -> None:
    found = carry_out(spec(), bowl(), _Breaks(AssertionError("values\nare missing")))
    assert (found.trials, found.error) == (2, "AssertionError: values are missing")
    assert found.has(200)
    assert found.regret(200) == found.curve[-1][1]


def test_a_model_that_is_away_is_no_result() -> None:
    with pytest.raises(ChatUnavailable):
        carry_out(spec(), bowl(), _Breaks(ChatUnavailable("away")))


def test_a_model_that_only_the_environment_names_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def open_llm(model: Model) -> RandomSteps:
        opened.append(model)
        return RandomSteps()

    monkeypatch.setattr(runs, "open_llm", open_llm)
    assert run(replace(spec("centaur", 14), asks="m", model=Model(name="m"))).asked > 0
    assert opened == [Model(name="m")]
    assert run(replace(spec("centaur", 14), asks=NAME)).asked > 0
    assert len(opened) == 1


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    results = Results(tmp_path)
    written = [
        result(sampler="tpe", seed=1, error='AssertionError: "a, b"', curve=()),
        result(asks="random steps", llm_seconds=0.25, curve=((1, 1e-9), (17, -0.5))),
    ]
    for row in written:
        results.add(row)
    assert sorted(read(results.path), key=lambda r: r.key) == Results(tmp_path).all
    assert read(results.path)[0].key == written[1].key  # in the order of the keys


@pytest.mark.parametrize(("cut", "kept"), [(1, [0, 1]), (2, [0]), (30, [0])])
def test_a_row_that_was_cut_off_is_run_again(tmp_path: Path, cut: int, kept: list[int]) -> None:
    results = Results(tmp_path)
    results.add(result(seed=0))
    results.add(result(seed=1))
    results.path.write_text(results.path.read_text()[:-cut])
    again = Results(tmp_path)
    assert [r.seed for r in again.all] == kept
    assert again.lacks(Spec("bbob/f1/2d", "random", 1, 10)) == (kept == [0])
    again.add(result(seed=1))
    assert Results(tmp_path).all == results.all


def test_a_longer_run_replaces_a_shorter_one(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.add(result(trials=10))
    assert results.lacks(Spec("bbob/f1/2d", "random", 0, 20))
    assert not results.lacks(Spec("bbob/f1/2d", "random", 0, 5))
    results.add(result(trials=20))
    assert [r.trials for r in Results(tmp_path).all] == [20]


@pytest.mark.parametrize(
    "other", [b"a,b\n1,2\n", "problem".encode("utf-16"), b"\xff", b"1" * 200_000]
)
def test_another_file_is_not_overwritten(tmp_path: Path, other: bytes) -> None:
    for name, reader in (("runs.csv", Results), ("commands.csv", commands)):
        (tmp_path / name).write_bytes(other)
        with pytest.raises(Misuse, match="this version's columns"):
            reader(tmp_path)
        assert (tmp_path / name).read_bytes() == other
