"""The surrogate, on studies whose truth is a formula: smooth values, and memory that runs out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
import json
import lzma
import math
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest

from objective import DataSet
from objective import DataSetError
from objective import fit_surrogate
from objective import Surrogate
from objective import SurrogateObjective
from objective import Testbed
from objective import TrialFailed
from objective.surrogate.learning import _noise_sd
from objective.surrogate.learning import out_of_fold
import objective.surrogate.surrogate as surrogate_module
from objective.testbed.inference import PAPER_SPACE
from tests.toy_testbed import DEPTH
from tests.toy_testbed import LR
from tests.toy_testbed import PATTERN
from tests.toy_testbed import write_testbed


TRAIN = 'DEPTH = 4\nBATCH = 8\nTOTAL = 64\nLR = 0.01\nPATTERN = "ab"\n'
BATCHES = """
[BATCH]
type = "int"
low = 4
high = 64
log = true
power_of_two = true

[TOTAL]
type = "int"
low = 16
high = 1024
log = true
power_of_two = true
at_least = ["BATCH", "LENGTH"]
"""
SPACE = DEPTH + BATCHES + LR + PATTERN
NOISE = 0.01


def truth(values: dict[str, Any]) -> float:
    """Bits per byte without noise, between 1 and 2.2."""
    lr = (math.log10(values["LR"]) + 2.5) ** 2 / 5
    depth = (values["DEPTH"] - 5) ** 2 / 32
    return 1 + lr + depth + 0.2 * (values["PATTERN"] == "ba")


def out_of_memory(values: dict[str, Any]) -> bool:
    return math.log2(values["DEPTH"]) + math.log2(values["BATCH"]) > 7.5


@pytest.fixture(scope="module")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Testbed:
    folder = tmp_path_factory.mktemp("bed")
    files = {"search_space.toml": SPACE, "task.md": "Make it small."}
    write_testbed(folder, TRAIN, "LENGTH = 2\n", **files)
    return Testbed.load(folder)


def make_study(testbed: Testbed, seed: int, n_trials: int = 40) -> optuna.Study:
    """Random trials with the baseline first, recorded as the real objective would record them."""
    rng = np.random.default_rng(seed)
    study = optuna.create_study(
        study_name=f"random-seed{seed}", sampler=optuna.samplers.RandomSampler(seed=seed)
    )
    for name, value in {"method": "random", "seed": seed, "train_seconds": 5.0}.items():
        study.set_user_attr(name, value)
    study.enqueue_trial(testbed.baseline)
    for _ in range(n_trials):
        trial = study.ask(testbed.space)
        values = testbed.rule(trial.params)
        failed = out_of_memory(values)
        value = truth(values) * math.exp(NOISE * rng.normal())
        total = 2.0 if failed else 6.0 + values["DEPTH"] / 4
        attrs = {
            "status": "oom" if failed else "ok",
            "training_seconds": total if failed else 5.0,
            "total_seconds": total,
            **({} if failed else {"val_bpb": value}),
        }
        for key, attr in attrs.items():
            trial.set_user_attr(key, attr)
        study.tell(trial, 100.0 if failed else value)
    return study


@pytest.fixture(scope="module")
def data(testbed: Testbed) -> DataSet:
    studies = [make_study(testbed, seed) for seed in range(4)]
    return DataSet.collect(studies, testbed, {"machine": "a test"})


@pytest.fixture(scope="module")
def surrogate(data: DataSet) -> Surrogate:
    return fit_surrogate(data)


@pytest.fixture(scope="module")
def fresh(testbed: Testbed) -> list[dict[str, Any]]:
    """Configurations that no study has."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=99))
    return [study.ask(testbed.space).params for _ in range(200)]


def test_the_noise_is_that_of_good_configurations() -> None:
    x = np.repeat(np.arange(20.0), 10)[:, None]
    rng = np.random.default_rng(0)
    y = x[:, 0] + rng.normal(size=len(x)) * np.where(x[:, 0] < 10, 0.01, 0.3)
    assert _noise_sd(x, y) == pytest.approx(0.01, rel=0.2)


def test_of_a_metric_to_be_maximised_the_better_half_is_the_higher_one(
    data: DataSet, surrogate: Surrogate
) -> None:
    mirrored = replace(
        data,
        metric=replace(data.metric, direction="maximize"),
        rows=tuple(replace(row, value=row.value and 1 / row.value) for row in data.rows),
    )
    found = fit_surrogate(mirrored)
    assert found.noise_sd == pytest.approx(surrogate.noise_sd)
    for one, other in zip(found.scores, surrogate.scores):
        assert one.metrics.get("r2_best") == pytest.approx(other.metrics.get("r2_best"), abs=1e-3)


def test_no_configuration_is_predicted_from_itself_in_another_study() -> None:
    x = np.array([[0.0], [1.0], [0.0], [2.0], [0.0], [3.0]])
    study = np.array([0, 0, 1, 1, 2, 2])

    def predict(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        assert not set(x[train, 0]) & set(x[test, 0])
        assert len(train) == 2, "the others are of use"
        return x[test, 0]

    assert out_of_fold(predict, x, study).tolist() == x[:, 0].tolist()


def test_it_predicts_configurations_that_it_has_not_seen(
    surrogate: Surrogate, testbed: Testbed, fresh: list[dict[str, Any]]
) -> None:
    verdicts = [(testbed.rule(params), surrogate(params)) for params in fresh]
    right = [out_of_memory(values) == (found.status == "oom") for values, found in verdicts]
    assert np.mean(right) > 0.95
    errors = [
        found.value - truth(values)
        for values, found in verdicts
        if found.value is not None and not out_of_memory(values)
    ]
    assert len(errors) > 100
    assert np.median(np.abs(errors)) < 0.02


def test_scores_leave_whole_studies_out_and_beat_the_baselines(surrogate: Surrogate) -> None:
    metric = {(row.target, row.model): row.metrics for row in surrogate.scores}
    (value,) = (row for row in surrogate.scores if row.target == "value" and row.chosen)
    assert value.n == sum(row.status == "ok" for row in surrogate.data.rows)
    assert (value.metrics["r2"] or 0) > 0.95 > 0.8 > (metric["value", "5 neighbours"]["r2"] or 0)
    assert (metric["value", "mean"]["r2"] or 0) < 0.05
    (failure,) = (row for row in surrogate.scores if row.target == "failure" and row.chosen)
    assert (failure.metrics["auc"] or 0) > 0.95
    assert (failure.metrics["log_loss"] or 9) < (metric["failure", "base rate"]["log_loss"] or 0)


def test_a_score_is_not_flattered_by_the_studys_own_trials(testbed: Testbed) -> None:
    """Studies that each crowd around a learning rate, with a value that nothing else tells."""
    data = DataSet.collect([make_study(testbed, seed, 30) for seed in range(4)], testbed, {})
    values = [1.0, 7.0, 2.0, 9.0]
    rows = [
        replace(
            row,
            params={**row.params, "LR": 10 ** (-4 + row.seed)},
            value=values[row.seed] if row.status == "ok" else None,
        )
        for row in data.rows
    ]
    fitted = fit_surrogate(replace(data, rows=tuple(rows)))
    assert all((row.metrics["r2"] or 0) < 0.1 for row in fitted.scores if row.target == "value")


def test_the_noise_is_that_of_repeated_configurations(surrogate: Surrogate) -> None:
    # Four studies ran the baseline; of other configurations no two are equal.
    assert 0.2 * NOISE < surrogate.noise_sd < 3 * NOISE
    rng = np.random.default_rng(0)
    drawn = [surrogate(surrogate.baseline, rng).value for _ in range(500)]
    logs = np.log([value for value in drawn if value is not None])
    assert np.std(logs) == pytest.approx(surrogate.noise_sd, rel=0.15)
    quiet = surrogate(surrogate.baseline).value
    assert quiet is not None and np.mean(logs) == pytest.approx(math.log(quiet), abs=0.003)


def test_failures_are_drawn_by_their_probability(surrogate: Surrogate) -> None:
    params = {**surrogate.baseline, "DEPTH": 6, "BATCH": 32, "TOTAL": 1024}
    p = surrogate.probabilities(params)
    assert p.keys() == {"ok", "oom"} and sum(p.values()) == pytest.approx(1)
    assert 0.02 < p["oom"] < 0.98, "the border is where the draw shows"
    rng = np.random.default_rng(0)
    share = np.mean([surrogate(params, rng).status == "oom" for _ in range(2000)])
    assert share == pytest.approx(p["oom"], abs=0.04)
    assert surrogate(params).status == max(p, key=p.__getitem__)


def test_a_failure_is_charged_the_time_that_its_class_takes(surrogate: Surrogate) -> None:
    result = surrogate({**surrogate.baseline, "DEPTH": 8, "BATCH": 64})
    assert (result.status, result.value) == ("oom", None)
    assert (result.training_seconds, result.total_seconds) == (2.0, 2.0)
    ok = surrogate({**surrogate.baseline, "DEPTH": 2})
    assert ok.training_seconds == pytest.approx(5.0)
    assert ok.total_seconds == pytest.approx(6.5, abs=0.05)


def test_the_testbeds_rule_holds(surrogate: Surrogate, testbed: Testbed) -> None:
    params = {**testbed.baseline, "BATCH": 47, "TOTAL": 16}
    assert surrogate.rule(params) == testbed.rule(params)
    assert surrogate.rule(params) == {**params, "BATCH": 32, "TOTAL": 64}
    assert surrogate(params) == surrogate({**params, "BATCH": 32, "TOTAL": 64})


def test_conditions_hold_for_what_is_not_suggested(testbed: Testbed) -> None:
    rule = replace(testbed.rule, only_when={"LR": {"PATTERN": ("ab",)}})
    data = DataSet.collect([make_study(testbed, 0, 1)], replace(testbed, rule=rule), {})
    assert data.rule({"LR": 0.02}) == rule({"LR": 0.02}) == {"LR": 0.02}


def test_the_file_holds_all_that_is_needed(
    surrogate: Surrogate, testbed: Testbed, tmp_path: Path, fresh: list[dict[str, Any]]
) -> None:
    path = tmp_path / "data.json.xz"
    surrogate.data.write(path)
    loaded = Surrogate.load(path)
    assert loaded.data == surrogate.data
    assert loaded.scores == surrogate.scores
    assert (loaded.space, loaded.baseline, loaded.task) == (
        testbed.space,
        testbed.baseline,
        "Make it small.",
    )
    for params in fresh[:50]:
        assert loaded(params, np.random.default_rng(1)) == surrogate(
            params, np.random.default_rng(1)
        )
    document = json.loads(lzma.decompress(path.read_bytes()))
    assert document["made"] == {"machine": "a test"}
    row = dict(zip(document["columns"], document["rows"][0]))
    assert document["studies"][row["study"]] == ["random-seed0", "random", 0]
    assert {name: row[name] for name in testbed.baseline} == testbed.baseline


def test_five_thousand_trials_fit_into_a_mebibyte(data: DataSet, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def draw(distribution: BaseDistribution) -> Any:
        if isinstance(distribution, CategoricalDistribution):
            return str(rng.choice([str(choice) for choice in distribution.choices]))
        if isinstance(distribution, IntDistribution):
            return int(rng.integers(distribution.low, distribution.high))
        assert isinstance(distribution, FloatDistribution)
        return float(rng.uniform(distribution.low, distribution.high))

    rows = [
        replace(
            data.rows[0],
            number=i,
            params={name: draw(d) for name, d in PAPER_SPACE.items()},
            value=round(rng.normal(2.5, 0.3), 6),
            training_seconds=round(rng.normal(5.0, 0.1), 3),
            total_seconds=round(rng.normal(8.0, 1.0), 3),
        )
        for i in range(5000)
    ]
    large = replace(data, space=PAPER_SPACE, rows=tuple(rows))
    large.write(tmp_path / "large.json.xz")
    assert (tmp_path / "large.json.xz").stat().st_size < 2**20


def test_a_resumed_study_on_the_surrogate_is_the_uninterrupted_one(surrogate: Surrogate) -> None:
    def run(*parts: int, train_seed: int = 7) -> list[tuple[Any, ...]]:
        study = optuna.create_study()
        for n in parts:
            study.sampler = _ByNumber()
            study.optimize(SurrogateObjective(surrogate, train_seed=train_seed), n_trials=n)
        return [(t.params, t.value, t.user_attrs) for t in study.trials]

    whole = run(30)
    assert run(12, 1, 17) == whole
    assert len(whole) == 30
    other = run(30, train_seed=8)
    assert [row[0] for row in other] == [row[0] for row in whole]
    assert [row[1] for row in other] != [row[1] for row in whole]


def test_repeated_trainings_differ_as_much_as_they_do(surrogate: Surrogate) -> None:
    study = optuna.create_study()
    for _ in range(20):
        study.enqueue_trial(surrogate.baseline)
    study.optimize(SurrogateObjective(surrogate), n_trials=20)
    values = [trial.values[0] for trial in study.trials]
    assert len(set(values)) == 20
    assert np.std(np.log(values)) == pytest.approx(surrogate.noise_sd, rel=0.5)


class _ByNumber(optuna.samplers.BaseSampler):
    """Random search whose proposals depend on the trial's number alone."""

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        return {}

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        return {}

    def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
        seed = [trial.number, *name.encode()]
        sampler = optuna.samplers.RandomSampler(seed=int(np.random.default_rng(seed).integers(99)))
        return sampler.sample_independent(study, trial, name, distribution)


def test_its_trials_look_like_trainings(surrogate: Surrogate, testbed: Testbed) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    study.enqueue_trial({**testbed.baseline, "BATCH": 7})
    study.enqueue_trial({**testbed.baseline, "DEPTH": 8, "BATCH": 64, "TOTAL": 1024})
    study.optimize(SurrogateObjective(surrogate, noise=False), n_trials=2)
    ok, failed = study.trials
    assert list(ok.params) == list(testbed.space)
    assert ok.user_attrs == {
        "source": "enqueued",
        "effective": '{"BATCH": 8}',
        "status": "ok",
        "val_bpb": ok.value,
        "training_seconds": pytest.approx(5.0),
        "total_seconds": pytest.approx(7.0, abs=0.05),
    }
    assert ok.value is not None and failed.value == 2 * ok.value
    assert failed.user_attrs == {
        "source": "enqueued",
        "status": "oom",
        "reason": "predicted by the surrogate",
        "training_seconds": 2.0,
        "total_seconds": 2.0,
    }


def test_without_a_failure_value_a_failure_is_raised(surrogate: Surrogate) -> None:
    study = optuna.create_study()
    study.enqueue_trial({**surrogate.baseline, "DEPTH": 8, "BATCH": 64})
    objective = SurrogateObjective(surrogate, noise=False, failure_value=None)
    study.optimize(objective, n_trials=1, catch=(TrialFailed,))
    assert study.trials[0].state == optuna.trial.TrialState.FAIL
    assert study.trials[0].user_attrs["status"] == "oom"


def test_without_failures_nothing_fails(testbed: Testbed) -> None:
    studies = [make_study(testbed, seed) for seed in range(2)]
    whole = DataSet.collect(studies, testbed, {})
    only = replace(whole, rows=tuple(row for row in whole.rows if row.status == "ok"))
    fitted = fit_surrogate(only)
    assert fitted.probabilities(fitted.baseline) == {"ok": 1.0}
    assert all(row.target != "failure" for row in fitted.scores)
    assert fitted(fitted.baseline, np.random.default_rng(0)).status == "ok"


def test_trials_without_a_time_can_be_learned_from(data: DataSet) -> None:
    timeless = [replace(row, training_seconds=0.0, total_seconds=0.0) for row in data.rows]
    fitted = fit_surrogate(replace(data, rows=tuple(timeless)))
    assert fitted(fitted.baseline).training_seconds == pytest.approx(0, abs=0.01)
    assert fitted(fitted.baseline).value == pytest.approx(truth(fitted.baseline), abs=0.05)


def test_only_verdicts_on_the_search_space_are_collected(testbed: Testbed) -> None:
    study, on_surrogate = make_study(testbed, 0, 10), make_study(testbed, 1, 10)
    on_surrogate.set_user_attr("surrogate", "embedded")
    study.ask(testbed.space)  # runs
    killed = study.ask(testbed.space)
    study.tell(killed, state=optuna.trial.TrialState.FAIL)
    edited = study.ask()
    edited.set_user_attr("status", "ok")
    study.tell(edited, 1.0)
    data = DataSet.collect([study, on_surrogate], testbed, {})
    assert [(row.study, row.number) for row in data.rows] == [
        ("random-seed0", number) for number in range(10)
    ]


def _other_time(study: optuna.Study) -> None:
    study.set_user_attr("train_seconds", 8.0)


def _other_space(study: optuna.Study) -> None:
    trial = study.ask(
        {
            "DEPTH": IntDistribution(9, 9),
            "BATCH": IntDistribution(4, 4, log=True),
            "TOTAL": IntDistribution(16, 16, log=True),
            "LR": FloatDistribution(0.01, 0.01, log=True),
            "PATTERN": CategoricalDistribution(["ab", "ba"]),
        }
    )
    for name, value in {"status": "ok", "val_bpb": 1.0, "training_seconds": 5.0}.items():
        trial.set_user_attr(name, value)
    trial.set_user_attr("total_seconds", 6.0)
    study.tell(trial, 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_other_time, "must have one train_seconds, but got 5.0 and, of random-seed1, 8.0"),
        (_other_space, "must be in the testbed's search space, but trial 5 of random-seed1 has"),
    ],
)
def test_trials_that_do_not_compare_are_refused(
    testbed: Testbed, change: Callable[[optuna.Study], None], message: str
) -> None:
    studies = [make_study(testbed, seed, 5) for seed in range(2)]
    change(studies[1])
    with pytest.raises(DataSetError, match=message):
        DataSet.collect(studies, testbed, {})


def test_a_revalidation_has_the_facts_of_its_study_and_is_left_out_with_it(
    testbed: Testbed,
) -> None:
    studies = [make_study(testbed, seed, 30) for seed in range(2)]
    copies = []
    for study in studies:
        copies.append(optuna.create_study(study_name=f"{study.study_name}-revalidated"))
        copies[-1].set_user_attr("revalidates", study.study_name)
        copies[-1].add_trials(study.trials)
    with_it = fit_surrogate(DataSet.collect([*studies, *copies], testbed, {}))
    (row,) = (r for r in with_it.scores if r.target == "value" and r.model == "5 neighbours")
    # Its copies would be perfect neighbours of the trials that they repeat.
    assert (row.metrics["r2"] or 0) < 0.9


def test_too_little_to_judge_by_is_refused(testbed: Testbed) -> None:
    with pytest.raises(DataSetError, match="needs evaluated trials of the testbed, but got none"):
        DataSet.collect([optuna.create_study()], testbed, {})
    alone = DataSet.collect([make_study(testbed, 0)], testbed, {})
    with pytest.raises(DataSetError, match="20 successful trials of 2 studies .* of 1"):
        fit_surrogate(alone)
    few = DataSet.collect([make_study(testbed, seed, 6) for seed in range(2)], testbed, {})
    with pytest.raises(DataSetError, match="20 successful trials of 2 studies"):
        fit_surrogate(few)


def test_a_file_of_something_else_is_one_clear_line(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data.json.xz"
    with pytest.raises(DataSetError, match="must be readable, but: No such file"):
        Surrogate.load(path)
    for content in (b"plain text", lzma.compress(b"{}"), lzma.compress(b'{"format": 1}')):
        path.write_bytes(content)
        with pytest.raises(DataSetError, match="must be a data set that .*surrogate` wrote"):
            Surrogate.load(path)
    path.write_bytes(lzma.compress(b'{"format": 2}'))
    with pytest.raises(DataSetError, match="must have format 1, but has 2"):
        Surrogate.load(path)
    data.write(path)
    with pytest.raises(DataSetError, match="needs a data set with a fit"):
        Surrogate.load(path)
    whole = json.loads(lzma.decompress(surrogate_module.SHIPPED.read_bytes()))
    fit = whole["fit"]
    odd: list[Any] = [None, 5, []]
    damaged = [
        {**whole, name: value}
        for name in whole
        for value in odd
        if name not in ("task", "columns")
    ]
    damaged += [{**whole, "fit": {**fit, name: {}}} for name in fit if name != "scores"]
    damaged += [{**whole, name: {}} for name in ("space", "baseline", "constants")]
    for document in damaged:
        path.write_text(json.dumps(document))
        with pytest.raises(DataSetError):
            Surrogate.load(path)
    monkeypatch.setattr(surrogate_module, "SHIPPED", tmp_path / "none.json.xz")
    with pytest.raises(DataSetError, match="No surrogate of the embedded testbed is installed"):
        SurrogateObjective()
