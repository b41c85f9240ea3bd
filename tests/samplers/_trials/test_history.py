"""Which trials failed, and which are the best."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import inspect
import math
import random
import re
from typing import Any
from typing import Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler
from optuna.trial import create_trial
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest

from objective.best import has_succeeded
from objective.failure import INTERRUPTED
from objective.run import outcome
from samplers._llm.schema_chat import SchemaChat
from samplers._trials.history import effective_params
from samplers._trials.history import failure_class
from samplers._trials.history import FAILURES
from samplers._trials.history import finished_trials
from samplers._trials.history import is_failure
from samplers._trials.history import ranked
from samplers._trials.history import tolerant
from samplers._trials.history import violation
from samplers.centaur import CentaurSampler
from samplers.karpathy_agent import KarpathyAgentSampler
from samplers.llambo_paper import LLAMBOSampler
from samplers.smac import SMACSampler


SPACE: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1)}


def trial(
    value: float | None,
    state: TrialState = TrialState.COMPLETE,
    constraint: float = 0.0,
    **attributes: Any,
) -> FrozenTrial:
    return create_trial(
        state=state,
        value=value,
        params={"x": 0.5},
        distributions=SPACE,
        user_attrs=attributes,
        constraints={"c": constraint},
    )


def pruned(reported: float) -> FrozenTrial:
    finished = trial(None, TrialState.PRUNED)
    finished.intermediate_values = {3: reported}
    return finished


@pytest.mark.parametrize(
    "finished, failed",
    [
        (trial(1.0), ""),
        (trial(1.0, status="ok"), ""),
        (trial(None, TrialState.PRUNED), ""),
        (pruned(1.0), ""),
        (pruned(math.nan), "nan"),
        (trial(100.0, status="oom"), "oom"),
        (trial(math.inf), "nan"),
        (trial(None, TrialState.FAIL), "failed"),
        (trial(None, TrialState.FAIL, status="timeout"), "timeout"),
        # Attributes of an objective's own, which mean nothing here.
        (trial(1.0, status="completed"), ""),
        (trial(1.0, status=200), ""),
        (trial(1.0, status=["oom"]), ""),
        (trial(None, TrialState.FAIL, status="done"), "failed"),
    ],
)
def test_a_failure_is_told_by_state_status_or_value(finished: FrozenTrial, failed: str) -> None:
    assert is_failure(finished) == bool(failed)
    if failed:
        assert failure_class(finished) == failed


def test_the_class_of_a_success_is_an_error() -> None:
    with pytest.raises(ValueError, match="must have failed|failed trial is needed"):
        failure_class(trial(1.0))


@pytest.mark.parametrize("direction, order", [("minimize", [2, 0, 3]), ("maximize", [0, 3, 2])])
def test_ranking_leaves_failures_out_and_keeps_the_older_of_equals_first(
    direction: Literal["minimize", "maximize"], order: list[int]
) -> None:
    study = optuna.create_study(direction=direction)
    values = [2.0, 100.0, 1.0, 2.0]
    for value in values:
        study.add_trial(trial(value, status="crash" if value == 100.0 else "ok"))
    study.add_trial(trial(None, TrialState.PRUNED))
    assert [t.number for t in ranked(study)] == order


def test_an_infeasible_trial_is_ranked_only_while_all_are() -> None:
    study = optuna.create_study()
    for value, constraint in ((1.0, 3.0), (2.0, math.inf), (5.0, 0.1), (4.0, 0.1)):
        study.add_trial(trial(value, constraint=constraint))
    assert [t.number for t in ranked(study, study.trials)] == [3, 2, 0, 1]
    study.add_trial(trial(9.0, constraint=-1.0))
    assert [t.number for t in ranked(study, study.trials)] == [4] == [study.best_trial.number]


def test_constraints_may_be_of_any_size() -> None:
    study = optuna.create_study()
    for constraint in (1.7e308, -1.7e308, 1.0):
        both = trial(1.0)
        both.system_attrs["constraints"] = [constraint, constraint]
        study.add_trial(both)
    assert [violation(t) for t in study.trials] == [1e300, 0.0, 2.0]


@pytest.mark.parametrize("odd", [math.nan, "x", None, {}, 10**400])
def test_a_constraint_that_is_no_number_is_violated_and_stops_no_sampler(odd: Any) -> None:
    for make in (lambda: CentaurSampler(llm_ratio=0, seed=0), lambda: SMACSampler(seed=0)):
        study = optuna.create_study(sampler=make())
        for constraint in (odd, -1.0, 0.5, -2.0, 1.0):
            stored = trial(1.0)
            stored.system_attrs["constraints"] = [constraint]
            study.add_trial(stored)
        assert violation(study.trials[0]) == 1e100
        assert not has_succeeded(study.trials[0]) and has_succeeded(study.trials[1])
        assert "x" in study.ask(SPACE).params


def test_a_trial_that_broke_before_it_had_parameters_was_not_evaluated() -> None:
    study = optuna.create_study()
    study.add_trial(trial(1.0))
    study.tell(study.ask(), state=TrialState.FAIL)
    study.ask()
    assert [t.number for t in finished_trials(study)] == [0]


def test_effective_values_come_from_the_rule_or_from_the_trial() -> None:
    stored = trial(1.0, effective='{"x": 0.25, "other": 1}')
    assert effective_params(stored) == {"x": 0.25}
    assert effective_params(stored, lambda params: {"x": params["x"] * 2}) == {"x": 1.0}
    assert effective_params(trial(1.0)) == {"x": 0.5}


def test_an_interrupted_trial_that_is_queued_again_is_no_evidence() -> None:
    study = optuna.create_study()
    study.add_trial(trial(None, TrialState.FAIL, status="crash"))
    study.add_trial(trial(None, TrialState.FAIL))  # its worker was killed
    optuna.storages.RetryHeartbeatStaleTrialCallback()(study, study.trials[1])
    assert study.trials[2].state == TrialState.WAITING
    assert [t.number for t in finished_trials(study)] == [0]


def test_what_ctrl_c_ended_is_no_evidence_where_the_objective_says_so() -> None:
    study = optuna.create_study()
    study.add_trial(trial(None, TrialState.FAIL, status=INTERRUPTED))
    study.add_trial(trial(None, TrialState.FAIL))
    assert [t.number for t in finished_trials(study)] == [1]


@pytest.mark.parametrize(
    "sampler",
    [
        lambda: CentaurSampler(llm_ratio=0.0, seed=0),
        lambda: SMACSampler(seed=0, n_startup_trials=2),
    ],
)
@pytest.mark.parametrize(("status", "is_evidence"), [(INTERRUPTED, False), ("crash", True)])
def test_what_ctrl_c_ended_changes_no_proposal(
    sampler: Callable[[], BaseSampler], status: str, is_evidence: bool
) -> None:
    proposals = []
    for ended in (0.31, 0.9):
        study = optuna.create_study(sampler=sampler())
        for x in (0.05, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.95):
            distributions: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1)}
            study.add_trial(
                create_trial(params={"x": x}, distributions=distributions, value=(x - 0.33) ** 2)
            )
        for shift in (0.0, 0.01, 0.02, 0.03):
            study.add_trial(
                create_trial(
                    params={"x": ended + shift},
                    distributions=distributions,
                    state=TrialState.FAIL,
                    user_attrs={"status": status},
                )
            )
        proposals.append(study.ask().suggest_float("x", 0, 1))
    assert (proposals[0] != proposals[1]) == is_evidence


@pytest.mark.parametrize(
    "own",
    [
        *("yes", 3, None, "[1]", '"x"', "[" * 100_000, {"x": 1}),
        *(f'{{"x": {odd}}}' for odd in ('"auto"', "null", "[1]", "NaN", "1e999", "9" * 400)),
    ],
)
def test_an_attribute_effective_of_the_objectives_own_changes_nothing(own: Any) -> None:
    assert effective_params(trial(1.0, effective=own)) == {"x": 0.5}


def test_the_classes_of_failure_are_those_of_the_objective() -> None:
    source = inspect.getsource(outcome)
    assert set(re.findall(r'return "([a-z-]+)", ', source)) - {"ok", "pruned"} <= set(FAILURES)


def even(params: Mapping[str, Any]) -> dict[str, Any]:
    """A rule that wants every parameter of `incomplete`."""
    return {"width": params["width"] // 2 * 2, "depth": params["depth"] + 0 * params["only"]}


def product(params: Mapping[str, Any]) -> dict[str, float]:
    return {"size": params["width"] * params["depth"] * params["only"]}


@pytest.mark.parametrize("case", ["a single value", "failed", "enqueued", "threads"])
@pytest.mark.parametrize(
    "sampler",
    [
        lambda **k: CentaurSampler(n_startup_trials=2, derived=product, **k),
        lambda **k: CentaurSampler(n_startup_trials=2, derived=product, critic=None, **k),
        lambda **k: KarpathyAgentSampler(derived=product, **k),
        lambda **k: LLAMBOSampler(n_startup_trials=2, **k),
    ],
    ids=["centaur", "centaur without critic", "karpathy agent", "llambo"],
)
def test_a_users_functions_are_spared_parameters_that_are_not_there(
    sampler: Callable[..., BaseSampler], case: str
) -> None:
    study = optuna.create_study(sampler=sampler(chat=SchemaChat(), rule=even, seed=0))

    def incomplete(trial: optuna.Trial) -> float:
        width = trial.suggest_int("width", 1, 999)
        if trial.number == 0 and case == "failed":
            raise RuntimeError
        return width + trial.suggest_int("depth", 0, 9) + trial.suggest_int("only", 3, 3)

    for width in (3, 5, 7) if case == "enqueued" else ():
        study.enqueue_trial({"width": width})
    study.optimize(incomplete, 7, n_jobs=2 if case == "threads" else 1, catch=RuntimeError)
    assert len(study.trials) == 7


def test_a_parameter_that_a_configuration_lacks_is_told_from_a_wrong_name() -> None:
    study = optuna.create_study()
    study.add_trial(create_trial(params={"x": 0.5}, distributions=SPACE, value=1.0))

    def rule_of(name: str) -> Callable[[Mapping[str, Any]], Any]:
        rule = tolerant(lambda params: {"x": params[name]}, study, "rule")
        assert rule is not None
        return rule

    assert rule_of("x")({}) == {} == rule_of("wrong")({})
    with pytest.raises(KeyError, match="wrong"):
        rule_of("wrong")({"x": 0.5})
    table = tolerant(lambda params: {"x": {0.1: 1}[params["x"]]}, study, "rule")
    assert table is not None
    with pytest.raises(KeyError, match="0.5"):
        table({"x": 0.5})


@pytest.mark.parametrize(
    ("name", "returned", "wanted"),
    [
        ("rule", None, "values by name"),
        ("rule", [("x", 1)], "values by name"),
        ("derived", None, "numbers by name"),
        ("derived", {"width": None}, "numbers by name"),
        ("derived", {"width": "wide"}, "numbers by name"),
        ("derived", {"width": 10**400}, "numbers by name"),
    ],
)
def test_what_a_rule_or_derived_values_may_not_be_is_one_clear_line(
    name: Literal["rule", "derived"], returned: Any, wanted: str
) -> None:
    function: Any = tolerant(lambda params: returned, optuna.create_study(), name)

    with pytest.raises(TypeError, match=f"^`{name}` must return {wanted}.* but returned .*\\.$"):
        function({"x": 0.5})


@pytest.mark.parametrize("returned", [{}, {"width": np.float32(1)}, {"width": True}])
def test_derived_values_may_be_any_numbers(returned: dict[str, Any]) -> None:
    function: Any = tolerant(lambda params: returned, optuna.create_study(), "derived")

    assert function({"x": 0.5}) == returned


def test_a_rule_without_a_return_is_said_as_soon_as_parameters_are_known() -> None:
    def rule(params: Mapping[str, Any]) -> Any:
        pass

    for sampler in (
        CentaurSampler(llm_ratio=0, rule=rule),
        CentaurSampler(llm_ratio=0, derived=rule),
        KarpathyAgentSampler(chat=SchemaChat(), warm_start=0, rule=rule),
        LLAMBOSampler(chat=SchemaChat(), rule=rule),
    ):
        study = optuna.create_study(sampler=sampler)
        with pytest.raises(TypeError, match="must return"):
            study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)


SAMPLERS: dict[str, Callable[[SchemaChat], BaseSampler]] = {
    "karpathy agent": lambda chat: KarpathyAgentSampler(chat=chat, warm_start=0, seed=0),
    "llambo": lambda chat: LLAMBOSampler(chat=chat, n_startup_trials=2, seed=0),
    "centaur": lambda chat: CentaurSampler(chat=chat, llm_ratio=0, seed=0),
    "cma-es": lambda chat: CentaurSampler(chat=chat, llm_ratio=0, critic=None, seed=0),
    "smac": lambda chat: SMACSampler(n_startup_trials=3, n_challengers=100, seed=0),
}


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_a_value_without_parameters_switches_no_sampler_off(name: str) -> None:
    study = optuna.create_study(sampler=SAMPLERS[name](SchemaChat()))

    def value(trial: optuna.Trial) -> float:
        if trial.number == 5:
            return 0.01  # such as the default configuration's
        return trial.suggest_float("x", 0, 1) + (trial.suggest_categorical("c", "ab") == "a")

    study.add_trial(create_trial(value=-1.0))
    study.optimize(value, n_trials=14)

    late = study.trials[10:]
    assert [sorted(t.params) for t in late] == [["c", "x"]] * len(late)
    if name in ("karpathy agent", "llambo"):
        assert {t.user_attrs["source"] for t in late} <= {"llm", "llm-duplicate"}
    if name == "centaur":
        assert {t.user_attrs["chosen_by"] for t in late} == {"critic"}
    key = "smac:proposal" if name == "smac" else "cma:generation"
    assert all(key in t.system_attrs for t in late) is (name in ("centaur", "cma-es", "smac"))


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_the_users_random_numbers_stay_as_they_are(name: str) -> None:
    def numbers() -> tuple[float, float]:
        return random.random(), np.random.random()

    random.seed(5)
    np.random.seed(5)
    expected = numbers()
    study = optuna.create_study(sampler=SAMPLERS[name](SchemaChat()))
    random.seed(5)
    np.random.seed(5)
    study.optimize(
        lambda t: t.suggest_float("x", 0, 1) + (t.suggest_categorical("c", "ab") == "a"), 14
    )
    assert numbers() == expected
