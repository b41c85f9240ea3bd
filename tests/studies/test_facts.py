"""Facts of a study's trials that the command line's tests don't reach."""

from __future__ import annotations

import optuna
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState

from objective.testbed.metric import Metric
from studies.facts import configuration
from studies.facts import study_facts


def test_the_best_of_a_maximized_study_is_the_highest_that_was_measured() -> None:
    study = optuna.create_study(direction="maximize")
    Metric("accuracy", "maximize").name_in(study)
    for value, status in ((0.5, "ok"), (0.75, "ok"), (100.0, "oom"), (0.75, "ok")):
        attrs = {"status": status}
        study.add_trial(optuna.trial.create_trial(value=value, user_attrs=attrs))
    facts = study_facts(study)
    assert (facts["metric"], facts["direction"]) == ("accuracy", "maximize")
    assert (facts["best"]["trial"], facts["best"]["accuracy"]) == (1, 0.75)


def test_failures_are_of_one_kind_that_differ_in_numbers_only() -> None:
    study = optuna.create_study()
    study.set_user_attr("testbed_hash", "0")
    assert study_facts(study)["common_failure"] is None

    def fail(status: str, reason: str) -> None:
        attrs = {"status": status, "reason": reason}
        study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL, user_attrs=attrs))

    for share in ("1.5", "4.79", "-2e-3"):
        fail("crash", f"Error: a share of {share}")
        fail("oom", "")
    fail("nan", "loss is nan")
    expected = {"status": "crash", "reason": "Error: a share of -2e-3", "trial": 4, "trials": 3}
    assert study_facts(study)["common_failure"] == {**expected, "is_usual": False}
    for share in ("-1", "0"):
        fail("crash", f"Error: a share of {share}")
    assert study_facts(study)["common_failure"]["is_usual"], "5 of 9"
    for _ in range(2):
        study.add_trial(optuna.trial.create_trial(value=0.5, user_attrs={"status": "ok"}))
    assert not study_facts(study)["common_failure"]["is_usual"], "5 of 11"


def test_none_of_several_failures_is_the_commonest_if_each_is_another() -> None:
    study = optuna.create_study()
    study.set_user_attr("testbed_hash", "0")
    for reason in ("at 0x7fa10", "of another kind", "at 0xbeef"):
        attrs = {"status": "crash", "reason": reason}
        study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL, user_attrs=attrs))
        failure = study_facts(study)["common_failure"]
        assert (failure and failure["trials"]) == {0: 1, 1: None, 2: 2}[len(study.trials) - 1]


def test_what_a_killed_trial_asked_the_model_counts_once() -> None:
    study = optuna.create_study()
    study.ask().set_user_attr("llm_prompt_tokens", 100)
    for _ in range(2):  # killed and put back twice
        trial = study.trials[-1]
        study.tell(trial.number, state=TrialState.FAIL)
        RetryHeartbeatStaleTrialCallback()(study, study.trials[-1])
        study.ask()
    other = study.ask()
    other.set_user_attr("llm_prompt_tokens", 7)
    assert [t.user_attrs["llm_prompt_tokens"] for t in study.trials] == [100, 100, 100, 7]
    assert study_facts(study)["llm"]["prompt_tokens"] == 107


def test_repetitions_of_a_best_have_neither_baseline_nor_best() -> None:
    study = optuna.create_study()
    study.add_trial(optuna.trial.create_trial(value=0.5, user_attrs={"status": "ok"}))
    study.set_user_attr("testbed_hash", "0")
    assert study_facts(study)["baseline"] and study_facts(study)["best"]
    study.set_user_attr("revalidates", "other")
    assert study_facts(study)["baseline"] is study_facts(study)["best"] is None


def test_a_configuration_is_the_values_that_were_run_or_the_source() -> None:
    def ran(params: dict[str, int], **attrs: str) -> str:
        study = optuna.create_study()
        study.enqueue_trial(params, user_attrs=attrs)
        trial = study.ask()
        for name in params:
            trial.suggest_int(name, 1, 9)
        return configuration(study.trials[0])

    assert ran({"b": 1, "a": 2}) == ran({"a": 3, "b": 1}, effective='{"a": 2}') != ran({"a": 2})
    assert ran({"a": 1}, source_sha256="f00") == ran({}, source_sha256="f00") != ran({})
    study = optuna.create_study()
    for _ in range(2):
        study.add_trial(optuna.trial.create_trial(value=0.5))
    assert len(set(map(configuration, study.trials))) == 2, "nothing is known of either"


def test_a_study_of_another_program_is_not_done_while_a_trial_waits() -> None:
    study = optuna.create_study()
    assert study_facts(study)["state"] == "empty"
    study.enqueue_trial({})
    assert study_facts(study)["state"] == "stopped"
    study.optimize(lambda trial: 0.5, n_trials=1)
    assert study_facts(study)["state"] == "done"
