"""What the agent is shown, what it may answer, and that no random trial passes for its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import cycle
import json
import math
from pathlib import Path
import re
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import create_trial
from optuna.trial import TrialState
import pytest

from samplers import ChatError
from samplers import ScriptedChat
from samplers._llm.chat import ChatUnavailable
from samplers._llm.prompt import format_row
from samplers._llm.propose import TooManyLLMErrors
from samplers._llm.schema_chat import SchemaChat
from samplers._llm.scripted import Request
from samplers.karpathy_agent import KarpathyAgentSampler
from tests.conftest import StorageFactory
from tests.samplers.two_processes import check_they_see_each_others_trials
from tests.samplers.two_processes import finished


SPACE: dict[str, BaseDistribution] = {
    "depth": IntDistribution(1, 12),
    "lr": FloatDistribution(1e-4, 1.0, log=True),
    "pattern": CategoricalDistribution(["S", "L", None]),
}
BASELINE = {"depth": 8, "lr": 0.5, "pattern": "S"}


def suggest(trial: optuna.Trial, space: Mapping[str, BaseDistribution] = SPACE) -> dict[str, Any]:
    return {name: trial._suggest(name, d) for name, d in space.items()}


def objective(trial: optuna.Trial) -> float:
    params = suggest(trial)
    return abs(math.log(params["lr"] / 0.01)) + 0.1 * params["depth"]


def add(study: optuna.Study, value: float | None = None, **kwargs: Any) -> None:
    params = {**BASELINE, **kwargs.pop("params", {})}
    study.add_trial(create_trial(params=params, distributions=SPACE, value=value, **kwargs))


def new_study(sampler: KarpathyAgentSampler, n: int = 0, **kwargs: Any) -> optuna.Study:
    study = optuna.create_study(sampler=sampler, **kwargs)
    for i in range(n):
        add(study, 5.0 + i, params={"lr": 0.5 - 0.01 * i})
    return study


def new_lr(request: Request) -> dict[str, float]:
    """A change of the learning rate to a value of this request's own."""
    return {"lr": round(0.001 + (request.seed or 0) / 2**31 * 0.9, 6)}


def source(study: optuna.Study, number: int = -1) -> str:
    return str(study.trials[number].user_attrs["source"])


def test_the_first_trial_is_the_enqueued_baseline_and_the_second_the_models() -> None:
    chat = ScriptedChat(cycle([new_lr]))
    study = new_study(KarpathyAgentSampler(warm_start=0, chat=chat, seed=0))
    study.enqueue_trial(BASELINE)
    study.optimize(objective, n_trials=3)
    assert [source(study, i) for i in range(3)] == ["enqueued", "llm", "llm"]
    assert study.trials[0].params == BASELINE
    assert len(chat.requests) == 2
    assert study.trials[1].params == {**BASELINE, **new_lr(chat.requests[0])}


def test_without_a_baseline_the_first_trial_is_a_startup_trial() -> None:
    study = new_study(
        KarpathyAgentSampler(warm_start=0, chat=ScriptedChat(cycle([new_lr])), seed=0)
    )
    study.optimize(objective, n_trials=2)
    assert [source(study, i) for i in range(2)] == ["startup", "llm"]


@pytest.mark.parametrize("direction,best", [("minimize", 0), ("maximize", 3)])
def test_changes_are_made_to_the_best_trial_in_either_direction(direction: str, best: int) -> None:
    chat = ScriptedChat([{"depth": 2}])
    study = new_study(
        KarpathyAgentSampler(warm_start=0, chat=chat, seed=0), 4, direction=direction
    )
    study.optimize(objective, n_trials=1)
    assert study.trials[-1].params == {**study.trials[best].params, "depth": 2}
    assert f"the best so far (trial {best})" in chat.requests[0].text
    assert f"{direction}d" in chat.requests[0].text


def test_a_failure_value_is_never_the_best_even_when_maximising() -> None:
    chat = ScriptedChat([{"depth": 2}])
    study = new_study(
        KarpathyAgentSampler(warm_start=0, chat=chat, seed=0), 2, direction="maximize"
    )
    add(study, 100.0, params={"lr": 0.9}, user_attrs={"status": "oom"})
    add(study, math.inf, params={"lr": 0.8})
    add(study, state=TrialState.FAIL, params={"lr": 0.7})
    add(study, state=TrialState.PRUNED, params={"lr": 0.6})
    study.optimize(objective, n_trials=1)
    assert study.trials[-1].params["lr"] == study.trials[1].params["lr"]
    text = chat.requests[0].text
    assert "8,0.9,S,oom" in text and "8,0.8,S,nan" in text and "8,0.7,S,failed" in text
    assert "8,0.6,S,pruned" in text
    assert "100" not in text and "inf" not in text


@pytest.mark.parametrize("constraint, base", [(1.0, 0), (0.0, 2)])
def test_changes_are_made_to_a_trial_that_violates_no_constraint(
    constraint: float, base: int
) -> None:
    chat = ScriptedChat([{"depth": 2}])
    study = new_study(KarpathyAgentSampler(warm_start=0, chat=chat, seed=0), 2)
    add(study, 4.0, params={"lr": 0.9}, constraints={"c": constraint})
    study.optimize(objective, n_trials=1)
    assert f"the best so far (trial {base})" in chat.requests[0].text


def test_when_all_failed_the_model_is_told_and_asked_all_the_same() -> None:
    chat = ScriptedChat([{"depth": 2}])
    study = new_study(KarpathyAgentSampler(warm_start=0, chat=chat, seed=0))
    add(study, 100.0, user_attrs={"status": "oom"})
    study.optimize(objective, n_trials=1)
    assert "which failed, as all did so far" in chat.requests[0].text
    assert study.trials[-1].params == {**BASELINE, "depth": 2}


@pytest.mark.parametrize("reply", ["changes", "menu", "full"])
def test_every_form_of_reply_leads_to_new_configurations(reply: Any) -> None:
    chat = SchemaChat()
    study = new_study(KarpathyAgentSampler(warm_start=0, chat=chat, reply=reply, seed=0), 3)
    study.optimize(objective, n_trials=8)
    assert {source(study, i) for i in range(3, 11)} == {"llm"}
    assert len({tuple(t.params.values()) for t in study.trials}) == 11
    assert ("Start from this configuration" in chat.requests[0].text) == (reply != "full")


@pytest.mark.parametrize(
    "model, offers", [("SmolLM2-135M.gguf", True), ("Qwen3.5-27B", False), ("gpt-5-mini", False)]
)
def test_a_model_that_is_small_by_its_name_chooses_from_a_menu(model: str, offers: bool) -> None:
    chat = SchemaChat()
    chat.model = model
    new_study(KarpathyAgentSampler(warm_start=0, chat=chat, seed=0), 3).optimize(
        objective, n_trials=1
    )
    assert chat.requests[0].schema is not None
    values = chat.requests[0].schema["properties"].values()
    assert all("enum" in value for value in values) == offers


def test_the_prompt_says_what_is_known_of_the_task_the_noise_and_the_trials_left() -> None:
    def rule(params: Mapping[str, Any]) -> dict[str, Any]:
        return {**params, "depth": 4}

    chat = ScriptedChat([{"lr": 0.3}])
    sampler = KarpathyAgentSampler(
        warm_start=0,
        chat=chat,
        task="Costs $5 {a} run.",
        noise=0.0003,
        n_trials=20,
        rule=rule,
        seed=0,
    )
    study = new_study(sampler, 2)
    study.optimize(objective, n_trials=1)
    text = chat.requests[0].text
    assert "Costs $5 {a} run." in text and "repetition is 0.0003" in text
    assert "trial 2 (18 are left, this one included)" in text
    assert "depth: int 1 to 12" in text and "lr: float 0.0001 to 1, log" in text
    assert "\n0,4,0.5,S,5," in text


def test_a_repeat_is_refused_once_and_then_replaced_and_tagged() -> None:
    chat = ScriptedChat(cycle([{"lr": 0.5}]))
    study = new_study(KarpathyAgentSampler(warm_start=0, chat=chat, seed=0), 2)
    study.optimize(objective, n_trials=1)
    assert len(chat.requests) == 2
    assert "trial 0" in chat.requests[1].messages[-1]["content"]
    assert source(study) == "llm-duplicate"
    assert study.trials[-1].params not in [t.params for t in study.trials[:-1]]


def test_a_re_ask_may_succeed() -> None:
    study = new_study(
        KarpathyAgentSampler(warm_start=0, chat=ScriptedChat(["Sorry?", {"lr": 0.25}]), seed=0), 2
    )
    study.optimize(objective, n_trials=1)
    assert source(study) == "llm"
    assert study.trials[-1].params == {**BASELINE, "lr": 0.25}
    assert study.trials[-1].user_attrs["llm_attempts"] == 2


def test_useless_replies_are_never_hidden_as_the_models_own() -> None:
    study = new_study(
        KarpathyAgentSampler(warm_start=0, chat=ScriptedChat(cycle(["I refuse."])), seed=0), 2
    )
    with pytest.raises(TooManyLLMErrors):
        study.optimize(objective, n_trials=10)
    new = study.trials[2:]
    assert [t.user_attrs["source"] for t in new] == ["llm-error"] * 5
    assert [t.state for t in new] == [TrialState.COMPLETE] * 4 + [TrialState.FAIL]
    assert all("JSON" in t.user_attrs["llm_reason"] for t in new)


def test_on_error_raise_raises_at_once() -> None:
    lost = ScriptedChat(cycle([ChatUnavailable("lost")]))
    study = new_study(KarpathyAgentSampler(warm_start=0, chat=lost, on_error="raise", seed=0), 2)
    with pytest.raises(ChatError, match="lost"):
        study.optimize(objective, n_trials=1)
    assert (source(study), study.trials[-1].state) == ("llm-error", TrialState.FAIL)


def test_a_turn_without_room_is_recorded_before_it_is_raised() -> None:
    sampler = KarpathyAgentSampler(
        warm_start=0, chat=ScriptedChat(), on_error="raise", max_prompt_tokens=5, seed=0
    )
    study = new_study(sampler, 2)
    with pytest.raises(ValueError, match="fit into 5 tokens"):
        study.optimize(objective, n_trials=1)
    assert source(study) == "llm-error"


@pytest.mark.parametrize(
    "wrong",
    [
        {"reply": "poem"},
        {"on_error": "ignore"},
        {"warm_start": -1},
        {"n_startup_trials": -1},
        {"n_trials": -1},
        {"noise": -0.1},
        {"max_prompt_tokens": 0},
    ],
)
def test_arguments_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        KarpathyAgentSampler(**{"warm_start": 0, **wrong})


def test_partly_enqueued_values_are_told_to_the_model_and_kept() -> None:
    chat = ScriptedChat([{"lr": 0.3, "pattern": "S"}])
    study = new_study(KarpathyAgentSampler(warm_start=0, chat=chat, seed=0), 2)
    study.enqueue_trial({"pattern": None})
    study.optimize(objective, n_trials=1)
    assert 'Decided already: {"pattern": "None"}.' in chat.requests[0].text
    assert study.trials[-1].params == {"depth": 8, "lr": 0.3, "pattern": None}
    assert source(study) == "llm"


@pytest.mark.parametrize("n,more", [(500, 5), (2000, 2)])
def test_requests_stay_within_the_budget_however_long_the_history(n: int, more: int) -> None:
    space: dict[str, BaseDistribution] = {
        f"PARAMETER_{i}": FloatDistribution(1e-4, 1.0, log=True) for i in range(14)
    }
    chat = SchemaChat(context_tokens=8192)
    sampler = KarpathyAgentSampler(
        warm_start=0, chat=chat, task="t" * 20_000, max_prompt_tokens=2600, seed=0
    )
    study = optuna.create_study(sampler=sampler)
    rng = np.random.default_rng(0)
    values = [{name: float(10 ** rng.uniform(-4, 0)) for name in space} for _ in range(n)]
    study.add_trials(
        [create_trial(params=v, distributions=space, value=sum(v.values())) for v in values]
    )
    study.optimize(lambda t: sum(suggest(t, space).values()), n_trials=more)
    assert max(chat.count_tokens(r.text) for r in chat.requests) <= 2600
    assert [source(study, i) for i in range(n, n + more)] == ["llm"] * more


def test_a_resumed_study_asks_what_an_uninterrupted_one_would(
    own_storage: StorageFactory,
) -> None:
    def run(name: str, parts: tuple[int, ...]) -> tuple[list[str], list[dict[str, Any]]]:
        texts = []
        for n_trials in parts:
            chat = ScriptedChat(cycle([new_lr]))
            study = optuna.create_study(
                storage=own_storage(),
                study_name=name,
                sampler=KarpathyAgentSampler(warm_start=0, chat=chat, seed=5),
                load_if_exists=True,
            )
            study.optimize(objective, n_trials=n_trials)
            texts += [r.text for r in chat.requests]
        return texts, [t.params for t in study.trials]

    assert run("whole", (6,)) == run("parts", (1, 2, 3))


def test_threads_repeat_no_configuration_and_share_no_seed() -> None:
    chat = ScriptedChat(cycle([new_lr]))
    study = new_study(KarpathyAgentSampler(warm_start=0, chat=chat, seed=0), 1)
    study.optimize(objective, n_trials=24, n_jobs=4)
    assert len({tuple(t.params.values()) for t in study.trials}) == 25
    assert len({r.seed for r in chat.requests}) == len(chat.requests)


def test_what_is_drawn_at_random_in_the_models_trials_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def conditional(trial: optuna.Trial) -> float:
        kind = trial.suggest_categorical("kind", ["a", "b"])
        return trial.suggest_float(f"only_{kind}", 0, 1) + trial.suggest_float("x", 0, 1)

    study = optuna.create_study(
        sampler=KarpathyAgentSampler(warm_start=0, chat=SchemaChat(), seed=0)
    )
    for kind in "ab":
        study.enqueue_trial({"kind": kind, f"only_{kind}": 0.5, "x": 0.5})
    optuna.logging.enable_propagation()
    try:
        study.optimize(conditional, n_trials=10)
    finally:
        optuna.logging.disable_propagation()
    (said,) = {id(r): r.getMessage() for r in caplog.records if r.levelname == "WARNING"}.values()
    assert said.startswith("Drawn at random: only_a, only_b. ")


def test_what_ran_in_another_bracket_of_hyperband_is_not_run_again() -> None:
    def reporting(trial: optuna.Trial) -> float:
        value = objective(trial)
        trial.report(value, 1)
        trial.should_prune()  # the first one makes the brackets
        return value

    chat = ScriptedChat(cycle([{"depth": 2, "lr": 0.3, "pattern": "L"}]))
    sampler = KarpathyAgentSampler(warm_start=0, chat=chat, reply="full", seed=0)
    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=9)
    study = new_study(sampler, 1, pruner=pruner)
    study.optimize(reporting, n_trials=15)
    assert Counter(t.user_attrs["source"] for t in study.trials[1:]) == {
        "llm": 1,
        "llm-duplicate": 14,
    }


class _SameForAll(ScriptedChat):
    """Proposes to every worker the smallest depth that its prompt does not show."""

    def __init__(self) -> None:
        super().__init__(cycle([self._next]))

    @staticmethod
    def _next(request: Request) -> dict[str, Any]:
        shown = {int(d) for d in re.findall(r"^\d+,(\d+),0\.5,", request.text, re.MULTILINE)}
        refused = {int(d) for d in re.findall(r'"depth": (\d+), "lr": 0\.5', request.text)}
        free = set(range(1, 60)) - shown - refused
        return {"depth": min(free)}


def work(url: str, path: str) -> None:
    """Eight trials of the study ``shared``; writes the first request of each to ``path``, see `two_processes`."""
    chat = _SameForAll()
    study = optuna.load_study(
        study_name="shared",
        storage=url,
        sampler=KarpathyAgentSampler(warm_start=0, chat=chat, seed=0),
    )
    space = {**SPACE, "depth": IntDistribution(1, 60)}
    requests = {}
    for _ in range(8):
        before, known = len(chat.requests), finished(study)
        trial = study.ask()
        study.tell(trial, float(suggest(trial, space)["depth"]))
        requests[trial.number] = known, chat.requests[before].text
    Path(path).write_text(json.dumps(requests))


def test_two_processes_see_each_others_trials_and_repeat_no_configuration(
    postgres_url: str, tmp_path: Path
) -> None:
    space = {**SPACE, "depth": IntDistribution(1, 60)}
    study = optuna.create_study(study_name="shared", storage=postgres_url)
    first = {**BASELINE, "depth": 60}
    study.add_trial(create_trial(params=first, distributions=space, value=60.0))
    check_they_see_each_others_trials(
        study, work, postgres_url, tmp_path, lambda t: format_row(t, space)
    )
    configurations = {tuple(t.params.values()) for t in study.trials}
    assert len(configurations) == len(study.trials) == 17


def test_changes_are_made_to_the_values_that_were_run() -> None:
    def rule(params: Mapping[str, Any]) -> dict[str, Any]:
        return {**params, "depth": 4 * math.ceil(params["depth"] / 4)}

    chat = ScriptedChat([{"lr": 0.3}])
    study = optuna.create_study(
        sampler=KarpathyAgentSampler(chat=chat, rule=rule, warm_start=0, seed=0)
    )
    add(study, 1.0, params={"depth": 5})
    study.optimize(objective, n_trials=1)
    assert '"depth": 8' in chat.requests[0].text  # as the table has it
    assert study.trials[-1].params == {**BASELINE, "depth": 8, "lr": 0.3}


def test_a_value_that_the_rule_takes_out_of_its_range_is_changed_as_it_was_suggested() -> None:
    chat = ScriptedChat([{"lr": 0.3}])
    sampler = KarpathyAgentSampler(
        chat=chat, rule=lambda params: {**params, "depth": 16}, warm_start=0, seed=0
    )
    study = optuna.create_study(sampler=sampler)
    add(study, 1.0, params={"depth": 11})
    study.optimize(objective, n_trials=1)
    assert study.trials[-1].params["depth"] == 11
