"""Different configurations from one request, as a study's first trials."""

from __future__ import annotations

import json
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import create_trial
import pytest

from samplers import CentaurSampler
from samplers import ChatError
from samplers import KarpathyAgentSampler
from samplers import LLAMBOSampler
from samplers import ScriptedChat
from samplers._llm.reply import ReplyError
from samplers._llm.scripted import Request
from samplers._llm.warm_start import parse_configurations
from samplers._llm.warm_start import store
from samplers._llm.warm_start import stored
from tests.conftest import StorageFactory


SPACE: dict[str, BaseDistribution] = {
    "depth": IntDistribution(1, 12),
    "lr": FloatDistribution(1e-4, 1.0, log=True),
    "pattern": CategoricalDistribution(["S", "L"]),
}
BASE = {"depth": 6, "lr": 0.02, "pattern": "S"}
SAMPLERS: list[Any] = [CentaurSampler, KarpathyAgentSampler]


def objective(trial: optuna.Trial) -> float:
    params = {name: trial._suggest(name, d) for name, d in SPACE.items()}
    return abs(params["lr"] - 0.01) + params["depth"]


def answer(request: Request) -> Any:
    """As many configurations as are asked for, or another one each time."""
    assert request.schema is not None
    listed = request.schema["properties"].get("configurations")
    if listed is None:
        return {"reason": "Next.", "depth": 9, "lr": 1e-3 + (request.seed or 0) / 2**32}
    first = 10 * (request.seed or 0) % 1000 / 1000
    return {
        "configurations": [
            {
                "reason": f"Guess {i}.",
                "depth": i % 12 + 1,
                "lr": 0.01 + 0.9 * (first / 10 + i / 20),
                "pattern": "L",
            }
            for i in range(listed["minItems"])
        ]
    }


def asked(chat: ScriptedChat) -> list[int]:
    """The number of configurations that each request asked for."""
    schemas = [request.schema or {} for request in chat.requests]
    return [s["properties"].get("configurations", {"minItems": 1})["minItems"] for s in schemas]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_one_request_gives_the_first_trials_and_their_reasons(sampler: Any) -> None:
    chat = ScriptedChat(answer, model="large-70b")
    study = optuna.create_study(sampler=sampler(chat=chat, seed=0, warm_start=5, n_trials=30))
    study.enqueue_trial(BASE)
    study.optimize(objective, n_trials=6)
    assert asked(chat) == [5]
    assert "the first of 30 trials" in chat.requests[0].text
    assert [t.params["depth"] for t in study.trials[1:]] != [1] * 5
    assert {t.params["depth"] for t in study.trials[1:]} == {1, 2, 3, 4, 5}
    for trial in study.trials[1:]:
        assert trial.user_attrs["source"] == "llm"
        assert trial.user_attrs["llm_reason"] == f"Guess {trial.params['depth'] - 1}."
    assert "No " not in chat.requests[0].text and "none" not in chat.requests[0].text


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("model, n", [("SmolLM2-135M", 0), ("gpt-5-mini", 3)])
def test_small_models_get_no_warm_start_unless_told_so(sampler: Any, model: str, n: int) -> None:
    def reply(request: Request) -> Any:
        properties = (request.schema or {})["properties"]
        if "configurations" in properties:
            return answer(request)
        name = next(iter(properties))
        return {name: properties[name].get("enum", [1])[0]}

    for warm_start, expected in ((None, n), (4, 4)):
        chat = ScriptedChat(reply, model=model)
        study = optuna.create_study(sampler=sampler(chat=chat, seed=0, warm_start=warm_start))
        study.enqueue_trial(BASE)
        study.optimize(objective, n_trials=2)
        assert [k for k in asked(chat) if k > 1] == [expected] * (expected > 0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_killed_study_goes_on_with_the_configurations_that_it_has(
    sampler: Any, own_storage: StorageFactory
) -> None:
    url = own_storage()
    chat = ScriptedChat(answer, model="large-70b")
    for n_trials in (3, 4):
        study = optuna.create_study(
            storage=url,
            study_name="s",
            load_if_exists=True,
            sampler=sampler(chat=chat, seed=0, warm_start=5),
        )
        if not study.trials:
            study.enqueue_trial(BASE)
        study.optimize(objective, n_trials=n_trials)
        study.sampler = sampler(chat=chat, seed=0, warm_start=5)
    first = [t for t in study.trials if "llm:warm_start" in t.system_attrs]
    assert [t.number for t in first] == [1, 2, 3, 4, 5]
    assert {t.params["depth"] for t in first} == {1, 2, 3, 4, 5}
    assert [n for n in asked(chat) if n > 1] == [5]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_eight_workers_at_once_run_no_configuration_twice(sampler: Any) -> None:
    chat = ScriptedChat(answer, model="large-70b")
    study = optuna.create_study(sampler=sampler(chat=chat, seed=0, warm_start=5))
    study.enqueue_trial(BASE)
    study.optimize(objective, n_trials=1)
    study.optimize(objective, n_trials=16, n_jobs=8)
    assert len({tuple(t.params.values()) for t in study.trials}) == 17
    first = [t for t in study.trials if "llm:warm_start" in t.system_attrs]
    assert len(first) >= 5 and {t.user_attrs["source"] for t in first} <= {
        "llm",
        "startup",
        "base",
    }
    assert sum(t.user_attrs["source"] == "llm" for t in first) >= 5


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_enqueued_values_are_kept_and_enqueued_trials_take_no_turn(sampler: Any) -> None:
    chat = ScriptedChat(answer, model="large-70b")
    study = optuna.create_study(sampler=sampler(chat=chat, seed=0, warm_start=5))
    for params in (BASE, {**BASE, "depth": 12}, {"depth": 8}):
        study.enqueue_trial(params)
    study.optimize(objective, n_trials=8)
    assert [t.params["depth"] for t in study.trials[:3]] == [6, 12, 8]
    assert '"depth": 8' in chat.requests[0].text
    first = [t.number for t in study.trials if "llm:warm_start" in t.system_attrs]
    assert first == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_failed_request_costs_one_trial_and_the_next_asks_for_the_rest(sampler: Any) -> None:
    chat = ScriptedChat([ChatError("away"), answer] + [answer] * 9, model="large-70b")
    study = optuna.create_study(sampler=sampler(chat=chat, seed=0, warm_start=5))
    study.enqueue_trial(BASE)
    study.optimize(objective, n_trials=6)
    assert study.trials[1].user_attrs["source"] == "llm-error"
    assert asked(chat)[:2] == [5, 4]
    assert [t.user_attrs["source"] for t in study.trials[2:]] == ["llm"] * 4


def test_a_study_that_has_begun_gets_no_warm_start() -> None:
    chat = ScriptedChat(answer, model="large-70b")
    study = optuna.create_study(sampler=KarpathyAgentSampler(chat=chat, seed=0))
    for i in range(20):
        study.add_trial(
            create_trial(params={**BASE, "lr": 0.02 + i / 100}, distributions=SPACE, value=1.0 + i)
        )
    study.optimize(objective, n_trials=1)
    assert asked(chat) == [1]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_all_configurations_of_a_long_warm_start_are_run(sampler: Any) -> None:
    chat = ScriptedChat(answer, model="large-70b")
    study = optuna.create_study(sampler=sampler(chat=chat, seed=0, warm_start=18))
    study.enqueue_trial(BASE)
    study.optimize(objective, n_trials=19)
    assert asked(chat) == [18]
    assert [t.user_attrs["source"] for t in study.trials[1:]] == ["llm"] * 18


def test_choices_that_are_objects_are_kept() -> None:
    kinds: list[Any] = [int, str]
    space: dict[str, BaseDistribution] = {"kind": CategoricalDistribution(kinds)}
    study = optuna.create_study()
    study.ask()
    (trial,) = study.trials
    store(study, trial, [({"kind": str}, "Why.")])
    assert stored(study, trial, space) == [({"kind": str}, "Why.")]


@pytest.mark.parametrize(
    "odd", [5, "[", "{}", "[5]", '[{"params": 5}]', '[{"reason": "x"}]', '[{"params": {"lr": 1}}]']
)
def test_what_another_program_wrote_as_configurations_is_left_out(odd: Any) -> None:
    study = optuna.create_study()
    study.add_trial(create_trial(value=1.0, system_attrs={"llm:warm_start": odd}))
    assert stored(study, study.trials[0], SPACE) == []


def test_llambo_runs_what_is_left_of_an_earlier_request() -> None:
    def candidates(request: Request) -> Any:
        return {"candidates": [[i + 1, 0.1 + i / 20, "L"] for i in range(5)]}

    chat = ScriptedChat(candidates)
    study = optuna.create_study(sampler=LLAMBOSampler(chat=chat, seed=0))
    study.enqueue_trial(BASE)
    study.optimize(objective, n_trials=4)
    assert len(chat.requests) == 1
    assert len({t.params["depth"] for t in study.trials[1:]}) == 3


def test_whole_configurations_of_a_cut_off_reply_are_used() -> None:
    whole = json.dumps({"configurations": [{"why": "A", **BASE}, {**BASE, "depth": 2}]})
    for text, n in ((whole, 2), (whole[:-8], 1), (f"Sure: ```json\n{whole}\n```", 2)):
        found = parse_configurations(text, SPACE, BASE, "why")
        assert [reply.params["depth"] for reply in found] == [6, 2][:n]
        assert found[0].reason == "A" and found[0].repairs == ()
    with pytest.raises(ReplyError, match="must have a list"):
        parse_configurations('{"configurations": []}', SPACE, BASE, "why")
