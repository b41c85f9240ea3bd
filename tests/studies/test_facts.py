"""Facts of a study's trials that the command line's tests don't reach."""

from __future__ import annotations

import optuna
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState

from objective.testbed.metric import Metric
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


def test_repetitions_of_a_best_have_no_baseline() -> None:
    study = optuna.create_study()
    study.add_trial(optuna.trial.create_trial(value=0.5, user_attrs={"status": "ok"}))
    study.set_user_attr("testbed_hash", "0")
    assert study_facts(study)["baseline"]
    study.set_user_attr("revalidates", "other")
    assert study_facts(study)["baseline"] is None
