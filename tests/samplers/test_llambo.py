"""What LLAMBO asks, how it reads the answers, and what it does when they are of no use."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from itertools import cycle
import json
import math
from pathlib import Path
import re
import subprocess
import sys
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.study import StudyDirection
from optuna.trial import create_trial
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest

from samplers import ChatError
from samplers import Completion
from samplers import ScriptedChat
from samplers._llm.chat import BudgetExhausted
from samplers._llm.chat import ChatUnavailable
from samplers._llm.chat import ContextTooLong
from samplers._llm.propose import TooManyLLMErrors
from samplers._llm.schema_chat import SchemaChat
from samplers._llm.scripted import Request
from samplers.llambo_paper import LLAMBOSampler
from samplers.llambo_paper.candidates import candidates_schema
from samplers.llambo_paper.candidates import parse_candidates
from samplers.llambo_paper.candidates import screen
from samplers.llambo_paper.candidates import target_loss
from samplers.llambo_paper.examples import format_score
from samplers.llambo_paper.examples import row
from samplers.llambo_paper.examples import score_digits
from samplers.llambo_paper.examples import shuffled
from samplers.llambo_paper.surrogate import expected_improvement
from samplers.llambo_paper.surrogate import good_labels
from samplers.llambo_paper.surrogate import moments
from samplers.llambo_paper.surrogate import plausible
from samplers.llambo_paper.surrogate import rank_by_improvement
from samplers.llambo_paper.surrogate import rank_by_probability
from tests.conftest import StorageFactory
from tests.samplers.two_processes import check_they_see_each_others_trials
from tests.samplers.two_processes import finished


NAN = math.nan

SPACE: dict[str, BaseDistribution] = {
    "depth": IntDistribution(1, 12),
    "lr": FloatDistribution(1e-4, 1.0, log=True),
    "pattern": CategoricalDistribution(["S", "L", None]),
}


def suggest(trial: optuna.Trial, space: Mapping[str, BaseDistribution] = SPACE) -> dict[str, Any]:
    return {name: trial._suggest(name, d) for name, d in space.items()}


def score(params: Mapping[str, Any]) -> float:
    return abs(math.log(params["lr"] / 0.01)) + 0.1 * params["depth"]


def objective(trial: optuna.Trial) -> float:
    return score(suggest(trial))


def add(
    study: optuna.Study, params: dict[str, Any], value: float | None = None, **kwargs: Any
) -> None:
    space = kwargs.pop("space", SPACE)
    study.add_trial(create_trial(params=params, distributions=space, value=value, **kwargs))


def add_history(study: optuna.Study, n: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(n):
        params = {
            "depth": int(rng.integers(1, 13)),
            "lr": float(10 ** rng.uniform(-4, 0)),
            "pattern": ["S", "L", None][rng.integers(3)],
        }
        add(study, params, score(params))


def new_study(sampler: LLAMBOSampler, n: int = 0) -> optuna.Study:
    study = optuna.create_study(sampler=sampler)
    add_history(study, n)
    return study


def kind(request: Request) -> str:
    assert request.schema is not None
    return "candidates" if "candidates" in request.schema["properties"] else "predictions"


def scripted(
    candidates: Callable[[Request], Any], predictions: Callable[[Request], Any]
) -> ScriptedChat:
    """A model that answers either kind of request by a function."""
    return ScriptedChat(
        cycle([lambda r: candidates(r) if kind(r) == "candidates" else predictions(r)])
    )


def fresh_candidates(request: Request) -> Any:
    """As many as are asked for, others in every request."""
    n = request.schema["properties"]["candidates"]["minItems"]  # type: ignore[index]
    rng = np.random.default_rng(request.seed)
    rows = [[int(rng.integers(1, 13)), round(rng.uniform(0.001, 1), 6), "S"] for _ in range(n)]
    return {"candidates": rows}


def listed_candidates(request: Request) -> dict[str, list[str]]:
    """The candidates that a request for predictions lists: name -> values as text."""
    rows = re.findall(r"^(c\d+): (.*)$", request.text, flags=re.MULTILINE)
    return {name: values.split(",") for name, values in rows}


def true_scores(request: Request) -> Any:
    """Predictions that are right but for a spread among requests."""
    noise = 1e-3 * (request.seed or 0) / 2**31
    return {
        name: score({"depth": int(values[0]), "lr": float(values[1])}) + noise
        for name, values in listed_candidates(request).items()
    }


def source(study: optuna.Study, number: int = -1) -> str:
    return str(study.trials[number].user_attrs["source"])


# The surrogate's arithmetic


def test_moments_are_numpys_over_the_predictions_that_are_there() -> None:
    predictions = np.array([[1.0, 2.0, 4.0], [5.0, NAN, 6.0]])
    mean, sd = moments(predictions)
    np.testing.assert_allclose(mean, np.nanmean(predictions, axis=1))
    np.testing.assert_allclose(sd, np.nanstd(predictions, axis=1, ddof=1))


def test_a_candidate_with_one_prediction_borrows_the_others_sd() -> None:
    mean, sd = moments(np.array([[1.0, 3.0], [2.0, NAN], [5.0, 9.0]]))
    assert mean[1] == 2.0
    assert sd[1] == pytest.approx(math.sqrt((2.0 + 8.0) / 2))
    assert moments(np.array([[1.0, NAN], [2.0, NAN]]))[1].tolist() == [0.0, 0.0]


def test_a_candidate_without_a_prediction_is_out_of_the_race() -> None:
    predictions = np.array([[NAN, NAN], [1.0, 1.2], [0.5, 0.6]])
    assert rank_by_improvement(predictions, np.array([1.0, 2.0])) == [2, 1]
    assert rank_by_probability(predictions) == [1, 2]
    assert rank_by_improvement(np.full((2, 2), NAN), np.array([1.0])) == []


@pytest.mark.parametrize("mean,sd,best", [(0.9, 0.2, 1.0), (1.5, 0.3, 1.0), (-4.0, 1.0, -5.0)])
def test_expected_improvement_is_the_mean_gain_of_normal_draws(
    mean: float, sd: float, best: float
) -> None:
    draws = np.random.default_rng(0).normal(mean, sd, 400_000)
    gain = float(np.maximum(best - draws, 0.0).mean())
    (computed,) = expected_improvement(np.array([mean]), np.array([sd]), best)
    assert computed == pytest.approx(gain, rel=0.02)


def test_expected_improvement_without_spread_is_the_gain_and_never_below_zero() -> None:
    improvement = expected_improvement(
        np.array([0.5, 1.5, 50.0]), np.array([0.0, 0.0, 1.0]), best=1.0
    )
    assert improvement.tolist() == [0.5, 0.0, 0.0]


@pytest.mark.parametrize("scale", [1e-300, 1e200, 1e308])
def test_no_improvement_is_too_large_or_too_small_to_be_ranked(scale: float) -> None:
    predictions = scale * np.array([[1.0, 1.5], [1.0, -1.5], [-1.0, -1.7]])

    order = rank_by_improvement(predictions, scale * np.array([-1.7, 1.7, 0.5]))

    assert sorted(order) == [0, 1, 2]
    assert order[-1] == 0 or scale > 1e150  # beyond it all that is bad is as bad


def test_an_improvement_of_any_number_of_deviations_is_a_number() -> None:
    improvement = expected_improvement(np.array([1.0, 3.0]), np.array([5e-324, 5e-324]), best=2.0)

    assert improvement.tolist() == [1.0, 0.0]


def test_among_candidates_that_promise_nothing_the_lower_mean_goes_first() -> None:
    predictions = np.array([[9.0, 9.0], [7.0, 7.0], [8.0, 8.0]])
    assert rank_by_improvement(predictions, np.array([1.0])) == [1, 2, 0]


@pytest.mark.parametrize("scale,shift", [(1.0, 0.0), (1e-6, 5.0), (1e6, -3e6)])
def test_the_choice_does_not_depend_on_the_range_of_the_scores(scale: float, shift: float) -> None:
    rng = np.random.default_rng(3)
    predictions, losses = rng.normal(1.0, 0.3, (10, 4)), rng.normal(1.0, 0.3, 20)
    assert rank_by_improvement(predictions, losses) == rank_by_improvement(
        scale * predictions + shift, scale * losses + shift
    )


def test_a_slip_of_the_decimal_point_does_not_win() -> None:
    losses = np.array([0.98, 1.02, 1.1])
    slip = np.array([[0.99, 98.0, 0.99, 0.99], [0.95, 0.96, 0.95, 0.96]])
    assert plausible(slip, losses).max() == pytest.approx(1.22)
    assert rank_by_improvement(slip, losses)[0] == 1


def test_labels_mark_the_best_share_and_always_at_least_one() -> None:
    assert good_labels([1.0, 2.0, 3.0, 4.0, 5.0], 0.25) == [1, 1, 0, 0, 0]
    assert good_labels([7.0], 0.25) == [1]


# The target


def test_the_target_is_alpha_of_the_range_beyond_the_best() -> None:
    losses = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert target_loss(losses, 0.1) == pytest.approx(1.0 - 0.1 * 3.0)
    assert target_loss(losses, -0.5) == pytest.approx(2.5)


def test_one_terrible_trial_does_not_move_the_target() -> None:
    losses = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7]
    assert target_loss([*losses, 1e9], 0.1) == pytest.approx(target_loss(losses, 0.1), abs=0.02)


@pytest.mark.parametrize(
    "losses,expected",
    [([-5.0], -5.05), ([2.0, 2.0, 2.0], 1.98), ([0.0], -0.01), ([-2.0, 0.0, 1e-6], -2.02)],
)
def test_the_target_is_below_the_best_for_any_losses(losses: list[float], expected: float) -> None:
    assert target_loss(losses, 0.1) < min(losses)
    if len(set(losses)) == 1:
        assert target_loss(losses, 0.1) == pytest.approx(expected)


def _target(request: Request) -> float:
    found = re.search(r"would score about (\S+)\.", request.text)
    assert found
    return float(found.group(1))


def test_failures_change_neither_the_target_nor_the_best() -> None:
    targets = []
    for failures in (0, 8):
        chat = scripted(fresh_candidates, true_scores)
        study = new_study(LLAMBOSampler(chat=chat, seed=0), n=8)
        for i in range(failures):
            params = {"depth": i + 1, "lr": 0.5, "pattern": "L"}
            if i % 4 == 0:
                add(study, params, state=TrialState.FAIL)
            elif i % 4 == 1:
                add(study, params, 100.0, user_attrs={"status": "oom"})
            elif i % 4 == 2:
                add(study, params, -9.0, constraints={"c": 1.0})
            else:
                add(study, params, math.inf)
        study.optimize(objective, n_trials=1)
        targets.append(_target(chat.requests[0]))
    assert targets[0] == targets[1]


def test_maximising_is_the_mirror_image_of_minimising() -> None:
    def run(direction: StudyDirection) -> tuple[list[dict[str, Any]], list[str]]:
        sign = -1.0 if direction == StudyDirection.MAXIMIZE else 1.0

        def predictions(request: Request) -> Any:
            return {name: sign * value for name, value in true_scores(request).items()}

        def signed(trial: optuna.Trial) -> float:
            return sign * objective(trial)

        chat = scripted(fresh_candidates, predictions)
        sampler = LLAMBOSampler(chat=chat, seed=0)
        study = optuna.create_study(sampler=sampler, direction=direction)
        rng = np.random.default_rng(1)
        for _ in range(7):
            lr = float(rng.uniform(0.01, 1))
            params = {"depth": int(rng.integers(1, 13)), "lr": lr, "pattern": "S"}
            add(study, params, sign * score(params))
        for _ in range(3):  # one at a time: the templates' requests come in either order
            study.optimize(signed, n_trials=1)
        unsigned = [re.sub(r"(?<=[ ,:])-(?=\d)", "", r.text) for r in chat.requests]
        return [t.params for t in study.trials], sorted(unsigned)

    params, prompts = run(StudyDirection.MINIMIZE)
    mirrored_params, mirrored_prompts = run(StudyDirection.MAXIMIZE)
    assert params == mirrored_params
    assert prompts == sorted(p.replace("higher", "lower") for p in mirrored_prompts)


# Candidates


def test_candidates_are_arrays_in_the_order_of_the_space() -> None:
    schema = candidates_schema(SPACE, 5)["properties"]["candidates"]
    assert schema["minItems"] == schema["maxItems"] == 5
    assert [v["type"] for v in schema["items"]["prefixItems"]] == ["integer", "number", "string"]


@pytest.mark.parametrize(
    "text",
    [
        '{"candidates":[[3,0.1,"S"],[4,0.2,"L"]]}',
        '[[3,0.1,"S"],[4,0.2,"L"]]',
        'Here:\n```json\n{"candidates":[[3,0.1,"S"],[4,0.2,"L"]]}\n```\nGood luck!',
        '{"candidates":[{"depth":3,"lr":0.1,"pattern":"S"},{"depth":4,"lr":"0.2","pattern":"L"}]}',
        '{"candidates":[[3,0.1,"S"],[4,0.2,"L"],[5,0.3,"',
    ],
)
def test_candidates_are_read_from_any_shape_of_reply(text: str) -> None:
    usable, _ = parse_candidates(text, SPACE, {})
    assert usable == [
        {"depth": 3, "lr": 0.1, "pattern": "S"},
        {"depth": 4, "lr": 0.2, "pattern": "L"},
    ]


def test_values_are_rounded_and_clipped_but_nothing_is_filled_in() -> None:
    text = json.dumps([[99, 0, "none"], [2.6, 5e-5, "L"], [1, 0.1], [1, NAN, "S"], [1, 0.1, "X"]])
    usable, problems = parse_candidates(text, SPACE, {})
    assert usable == [
        {"depth": 12, "lr": 1e-4, "pattern": None},
        {"depth": 3, "lr": 1e-4, "pattern": "L"},
    ]
    assert len(problems) == 3


def test_repeats_are_told_after_rounding_and_the_objectives_rule() -> None:
    def rule(params: Mapping[str, Any]) -> dict[str, Any]:
        return {**params, "depth": 4 * round(params["depth"] / 4)}

    stored = {"depth": 8, "lr": 0.1, "pattern": "S"}
    chat = SchemaChat()
    study = new_study(LLAMBOSampler(chat=chat))
    add(study, stored, 1.0)
    from samplers._llm.reply import known_configurations

    known = known_configurations(study, SPACE, rule)
    same = {**stored, "depth": 9}
    other = {**stored, "depth": 3}
    screened = screen([same, {**stored, "lr": 0.10000001}, other, other], known, SPACE, rule)
    assert screened.new == [other]
    assert screened.repeats == ["repeats trial 0", "repeats trial 0", "repeats another candidate"]


# Whole trials


def test_a_trial_is_two_requests_for_candidates_and_four_for_predictions() -> None:
    chat = scripted(fresh_candidates, true_scores)
    study = new_study(LLAMBOSampler(chat=chat, seed=0), n=6)
    study.optimize(objective, n_trials=1)
    assert [kind(r) for r in chat.requests] == ["candidates"] * 2 + ["predictions"] * 4
    assert len({r.seed for r in chat.requests}) == 6
    assert source(study) == "llm"
    candidates = listed_candidates(chat.requests[-1])
    assert len(candidates) == 10
    best = min(true_scores(chat.requests[-1]).items(), key=lambda item: item[1])[0]
    assert study.trials[-1].params["depth"] == int(candidates[best][0])


def test_requests_of_a_template_share_their_beginning_up_to_the_last_trial() -> None:
    chat = scripted(fresh_candidates, true_scores)
    study = new_study(LLAMBOSampler(chat=chat, seed=0), n=20)
    study.optimize(objective, n_trials=1)
    by_template: dict[str, list[str]] = {}
    for request in chat.requests:
        table, question = re.split(r"\n\n(?=The best score|Predict)", request.text)
        by_template.setdefault(table, []).append(question)
    assert [len(questions) for questions in by_template.values()] == [3, 3]
    first, second = by_template
    assert first != second
    assert sorted(first.splitlines()) == sorted(second.splitlines())


def test_a_new_trial_leaves_the_rows_of_earlier_blocks_in_their_place() -> None:
    study = new_study(LLAMBOSampler(chat=SchemaChat()), n=25)
    before = [t.number for t in shuffled(study.trials[:24], 0, 1)]
    after = [t.number for t in shuffled(study.trials, 0, 1)]
    assert before[:20] == after[:20]
    assert sorted(after) == list(range(25)) != after


def test_the_table_begins_with_the_same_row_until_it_is_cut() -> None:
    chat = scripted(fresh_candidates, true_scores)
    sampler = LLAMBOSampler(
        chat=chat, n_templates=1, n_predictions=1, max_prompt_tokens=700, seed=0
    )
    study = new_study(sampler, n=100)
    study.optimize(objective, n_trials=10)
    tables = [r.text.split("score\n")[1] for r in chat.requests if kind(r) == "candidates"]
    assert len(tables) == 10
    assert len({table.splitlines()[0] for table in tables}) == 2


def test_scores_get_the_digits_that_tell_them_apart() -> None:
    assert score_digits([0.98, 1.02, 1.5]) == 6
    scores = [1e6, 1e6 + 0.01, 1e6 + 0.02, 1e6 + 0.03]
    digits = score_digits(scores)
    assert len({format_score(s, digits) for s in scores}) == 4
    assert score_digits([3.0, 3.0]) == score_digits([0.0]) == 6
    assert score_digits([1e300, 0.0, 0.0, 5e-324, 5e-324]) == 15


def test_warm_start_asks_once_for_all_startup_trials() -> None:
    chat = scripted(fresh_candidates, true_scores)
    study = new_study(LLAMBOSampler(chat=chat, n_startup_trials=5, seed=0))
    study.optimize(objective, n_trials=5)
    assert len(chat.requests) == 1
    assert "Evaluated configurations" not in chat.requests[0].text
    assert [source(study, i) for i in range(5)] == ["startup"] + ["llm"] * 4
    recommended = {tuple(row[:2]) for row in fresh_candidates(chat.requests[0])["candidates"]}
    run = {(t.params["depth"], t.params["lr"]) for t in study.trials[1:]}
    assert run < recommended and len(run) == 4


def test_nothing_is_conditioned_on_while_nothing_has_succeeded() -> None:
    chat = scripted(fresh_candidates, true_scores)
    study = new_study(LLAMBOSampler(chat=chat, n_startup_trials=2, seed=0))
    for i in range(4):
        params = {"depth": i + 1, "lr": 0.5, "pattern": "L"}
        add(study, params, 100.0, user_attrs={"status": "oom"})
    study.optimize(objective, n_trials=1)
    (request,) = chat.requests
    assert "4 oom" in request.text and "100" not in request.text
    assert source(study) == "llm"


def test_failed_and_pruned_trials_are_shown_by_class_and_not_by_number() -> None:
    chats = {}
    for failures in ("shown", "hidden"):
        chat = chats[failures] = scripted(fresh_candidates, true_scores)
        study = new_study(LLAMBOSampler(chat=chat, failures=failures, seed=0), n=6)  # type: ignore[arg-type]
        for i, status in enumerate(["oom", "oom", "timeout"]):
            params = {"depth": 7, "lr": 0.777 + i / 100, "pattern": "L"}
            add(study, params, 100.0, user_attrs={"status": status})
        add(study, {"depth": 7, "lr": 0.888, "pattern": "L"}, state=TrialState.PRUNED)
        params = {"depth": 7, "lr": 0.999, "pattern": "L"}
        add(study, params, -9.0, constraints={"c": 1.0})
        study.optimize(objective, n_trials=1)
    shown, hidden = chats["shown"].requests[0].text, chats["hidden"].requests[0].text
    assert "2 oom, 1 timeout, 1 pruned, 1 infeasible in all" in shown
    assert "7,0.999,L,infeasible" in shown
    assert "7,0.797,L,timeout" in shown and "7,0.888,L,pruned" in shown
    for text in (shown, hidden):
        assert ",100" not in text
    assert "oom" not in hidden and "0.797" not in hidden


def test_the_model_sees_the_values_that_were_run() -> None:
    def rule(params: Mapping[str, Any]) -> dict[str, Any]:
        return {**params, "depth": 4 * math.ceil(params["depth"] / 4)}

    chat = scripted(fresh_candidates, true_scores)
    study = new_study(LLAMBOSampler(chat=chat, rule=rule, seed=0), n=12)
    study.optimize(objective, n_trials=1)
    rows = re.findall(r"^(?:c\d+: )?(\d+),[\d.e-]+,(?:S|L|None)", chat.requests[-1].text, re.M)
    assert {int(depth) for depth in rows} <= {4, 8, 12}


@pytest.mark.parametrize("n,more", [(500, 5), (2000, 2)])
def test_requests_stay_bounded_however_long_the_history(n: int, more: int) -> None:
    space: dict[str, BaseDistribution] = {
        f"PARAMETER_{i}": FloatDistribution(1e-4, 1.0, log=True) for i in range(14)
    }
    chat = SchemaChat(context_tokens=8192)
    study = optuna.create_study(sampler=LLAMBOSampler(chat=chat, task="t" * 9000, seed=0))
    rng = np.random.default_rng(0)
    trials = []
    for _ in range(n):
        params = {name: float(10 ** rng.uniform(-4, 0)) for name in space}
        failed = rng.random() < 0.3
        trials.append(
            create_trial(
                params=params,
                distributions=space,
                value=100.0 if failed else sum(params.values()),
                user_attrs={"status": "oom" if failed else "ok"},
            )
        )
    study.add_trials(trials)
    for _ in range(more):
        before = len(chat.requests)
        study.optimize(lambda t: sum(suggest(t, space).values()), n_trials=1)
        sent = chat.requests[before:]
        assert len(sent) <= 6
        assert all(chat.count_tokens(r.text) + r.max_tokens <= 8192 for r in sent)
        assert source(study) == "llm"


def test_a_baselines_score_is_told_before_the_models_first_proposals() -> None:
    chat = scripted(fresh_candidates, true_scores)
    study = new_study(LLAMBOSampler(chat=chat, n_startup_trials=3, seed=0))
    add(study, {"depth": 7, "lr": 0.777, "pattern": "L"}, 1.25)
    study.optimize(objective, n_trials=1)
    text = chat.requests[0].text
    assert "7,0.777,L,1.25" in text and "No score is known" not in text
    assert source(study) == "llm"


def test_a_large_model_is_shown_more_trials() -> None:
    rows = {}
    for model in ("smollm-135m", "big-70b"):
        chat = SchemaChat()
        chat.model = model
        study = new_study(LLAMBOSampler(chat=chat, task="long " * 500, seed=0), n=100)
        chat.count_tokens = lambda text: len(text)  # type: ignore[method-assign]
        study.optimize(objective, n_trials=1)
        assert source(study) == "llm"
        rows[model] = len(re.findall(r"^\d+,[\d.e-]+,\w+,[\d.]+$", chat.requests[0].text, re.M))
    assert 0 < rows["smollm-135m"] < 40 < rows["big-70b"]


def test_a_small_context_shows_fewer_trials_instead_of_failing() -> None:
    rows = {}
    for context in (700, None):
        chat = SchemaChat(context_tokens=context)
        study = new_study(LLAMBOSampler(chat=chat, n_candidates=4, seed=0), n=100)
        study.optimize(objective, n_trials=1)
        assert source(study) == "llm"
        rows[context] = chat.requests[0].text.count("\n")
    assert rows[700] < rows[None]


@pytest.mark.parametrize("on_error", ["base", "raise"])
def test_a_prompt_that_the_server_cannot_hold_is_made_shorter(on_error: Any) -> None:
    sizes: list[int] = []
    answered: list[str] = []

    def answer(request: Request) -> Any:
        sizes.append(len(request.text))
        if sizes[-1] > 0.6 * sizes[0]:
            return ContextTooLong("too long")
        answered.append(kind(request))
        return fresh_candidates(request) if answered[-1] == "candidates" else true_scores(request)

    chat = scripted(answer, answer)
    study = new_study(LLAMBOSampler(chat=chat, on_error=on_error, seed=0), n=100)
    study.optimize(objective, n_trials=1)
    assert source(study) == "llm"
    assert answered == ["candidates"] * 2 + ["predictions"] * 4


def test_a_server_that_can_hold_no_prompt_is_not_asked_without_end() -> None:
    chat = scripted(lambda r: ContextTooLong("too long"), true_scores)
    study = new_study(LLAMBOSampler(chat=chat, seed=0), n=100)
    study.optimize(objective, n_trials=1)
    assert 4 <= len(chat.requests) <= 12
    assert source(study) == "llm-error"
    assert study.trials[-1].user_attrs["llm_reason"] == "too long"


def test_a_limit_that_cannot_hold_the_search_space_is_said_at_once() -> None:
    sampler = LLAMBOSampler(chat=SchemaChat(), max_prompt_tokens=100, on_error="raise", seed=0)
    study = new_study(sampler, n=6)
    with pytest.raises(ValueError, match="max_prompt_tokens"):
        study.optimize(objective, n_trials=1)
    assert source(study) == "llm-error"


# Answers of no use


def test_repeated_candidates_are_asked_for_again_by_name_and_then_replaced() -> None:
    def repeat(request: Request) -> Any:
        first = re.search(r"^(\d+),([\d.e-]+),(S|L|None),[\d.]+$", request.text, re.MULTILINE)
        assert first
        return {"candidates": [[int(first[1]), float(first[2]), first[3]]] * 5}

    chat = scripted(repeat, true_scores)
    study = new_study(LLAMBOSampler(chat=chat, seed=0), n=6)
    study.optimize(objective, n_trials=1)
    assert len(chat.requests) == 4
    assert "repeats trial" in chat.requests[2].text
    assert source(study) == "llm-duplicate"
    assert "repeats trial" in study.trials[-1].user_attrs["llm_reason"]
    assert study.trials[-1].params not in [t.params for t in study.trials[:-1]]


def test_a_second_round_of_candidates_is_taken_from_the_predictions_requests() -> None:
    replies = iter(["no", "no"])
    chat = scripted(lambda r: next(replies, None) or fresh_candidates(r), true_scores)
    study = new_study(LLAMBOSampler(chat=chat, seed=0), n=6)
    study.optimize(objective, n_trials=1)
    assert [kind(r)[0] for r in chat.requests] == ["c"] * 4 + ["p"] * 2
    assert source(study) == "llm"
    assert "refused" in study.trials[-1].user_attrs["llm_reason"]


def test_a_model_that_only_thought_is_not_asked_the_same_again() -> None:
    chat = ScriptedChat(lambda r: Completion("", truncated=True, completion_tokens=16484))
    study = new_study(LLAMBOSampler(chat=chat, seed=0), n=6)
    study.optimize(objective, n_trials=1)
    assert len(chat.requests) == 2
    assert source(study) == "llm-error"
    assert "spent 16484 tokens thinking" in study.trials[-1].user_attrs["llm_reason"]


def test_a_single_candidate_needs_no_predictions() -> None:
    chat = scripted(lambda r: [[5, 0.0123, "S"]], true_scores)
    study = new_study(LLAMBOSampler(chat=chat, seed=0), n=6)
    study.optimize(objective, n_trials=1)
    assert {kind(r) for r in chat.requests} == {"candidates"}
    assert study.trials[-1].params == {"depth": 5, "lr": 0.0123, "pattern": "S"}


@pytest.mark.parametrize("reply", ["I can't tell.", {"c1": None, "c2": "high"}, {"c99": 1.0}])
def test_without_any_prediction_the_trial_is_the_base_proposal_and_says_so(reply: Any) -> None:
    chat = scripted(fresh_candidates, lambda r: reply)
    study = new_study(LLAMBOSampler(chat=chat, seed=0), n=6)
    study.optimize(objective, n_trials=1)
    assert source(study) == "llm-error"
    assert "no usable prediction" in study.trials[-1].user_attrs["llm_reason"]


def test_partial_predictions_are_counted_and_made_do_with() -> None:
    def only_c3(request: Request) -> Any:
        return {"c3": true_scores(request)["c3"]}

    chat = scripted(fresh_candidates, only_c3)
    study = new_study(LLAMBOSampler(chat=chat, seed=0), n=6)
    study.optimize(objective, n_trials=1)
    assert source(study) == "llm"
    assert "36 of 40 predictions missing" in study.trials[-1].user_attrs["llm_reason"]
    assert study.trials[-1].params["depth"] == int(listed_candidates(chat.requests[-1])["c3"][0])


def test_an_unreachable_model_costs_no_trial_and_stops_after_five_in_a_row() -> None:
    study = new_study(
        LLAMBOSampler(chat=ScriptedChat(cycle([ChatUnavailable("no route")])), seed=0), n=6
    )
    with pytest.raises(TooManyLLMErrors):
        study.optimize(objective, n_trials=10)
    new = study.trials[6:]
    assert [t.user_attrs["source"] for t in new] == ["llm-error"] * 5
    assert [t.state for t in new] == [TrialState.COMPLETE] * 4 + [TrialState.FAIL]
    assert all("no route" in t.user_attrs["llm_reason"] for t in new)


def test_one_lost_request_of_six_is_made_do_with() -> None:
    lost = iter([True])

    def predict(request: Request) -> Any:
        return ChatUnavailable("lost") if next(lost, False) else true_scores(request)

    study = new_study(LLAMBOSampler(chat=scripted(fresh_candidates, predict), seed=0), n=6)
    study.optimize(objective, n_trials=1)
    assert source(study) == "llm"
    assert "1 of 4 requests failed" in study.trials[-1].user_attrs["llm_reason"]


def test_on_error_raise_raises_at_once_and_an_exhausted_budget_always_does() -> None:
    lost = ScriptedChat(cycle([ChatUnavailable("lost")]))
    study = new_study(LLAMBOSampler(chat=lost, on_error="raise", seed=0), n=6)
    with pytest.raises(ChatError, match="lost"):
        study.optimize(objective, n_trials=1)
    spent = scripted(fresh_candidates, lambda r: BudgetExhausted("spent"))
    study = new_study(LLAMBOSampler(chat=spent, seed=0), n=6)
    with pytest.raises(BudgetExhausted):
        study.optimize(objective, n_trials=1)
    assert study.trials[-1].state == TrialState.FAIL


def test_what_is_no_failure_of_a_chats_is_a_bug_and_stops_the_study() -> None:
    chat = ScriptedChat(lambda request: ZeroDivisionError())
    study = new_study(LLAMBOSampler(chat=chat, seed=0), n=6)
    with pytest.raises(ZeroDivisionError):
        study.optimize(objective, n_trials=1)


INTERRUPTED = """
import os, signal, threading
import optuna
from samplers.llambo_paper import LLAMBOSampler
from samplers import ScriptedChat

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background jobs

def never(request):
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait()

study = optuna.create_study(sampler=LLAMBOSampler(chat=ScriptedChat([never]), seed=0))
study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
"""


def test_ctrl_c_does_not_wait_for_the_replies() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr.splitlines()[-1] == "KeyboardInterrupt"


# The form on OptunaHub


def as_on_optunahub(chat: Any) -> LLAMBOSampler:
    return LLAMBOSampler(
        chat=chat,
        labels="binary",
        warm_start="random",
        categoricals="random",
        failures="hidden",
        seed=0,
    )


def test_the_form_on_optunahub_shows_labels_and_chooses_by_probability() -> None:
    def numeric(request: Request) -> Any:
        return {"candidates": [row[:2] for row in fresh_candidates(request)["candidates"]]}

    def c7_is_good(request: Request) -> Any:
        return {name: 0.9 if name == "c7" else 0.2 for name in listed_candidates(request)}

    chat = scripted(numeric, c7_is_good)
    study = new_study(as_on_optunahub(chat), n=12)
    study.optimize(objective, n_trials=1)
    assert source(study) == "llm"
    assert all("pattern" not in r.text for r in chat.requests)
    question = chat.requests[-1]
    labels = re.findall(r"^\d+,[\d.e-]+,([01])$", question.text, re.MULTILINE)
    assert len(labels) == 12 and labels.count("1") == 3
    chosen = listed_candidates(question)["c7"]
    assert study.trials[-1].params["depth"] == int(chosen[0])


def test_the_generative_surrogate_may_see_scores_and_is_told_what_is_good() -> None:
    chat = scripted(fresh_candidates, lambda r: {"c2": 0.8, "c4": 70, "c5": 0.7})
    study = new_study(LLAMBOSampler(chat=chat, surrogate="generative", seed=0), n=9)
    threshold = np.quantile([t.values[0] for t in study.trials], 0.25)
    study.optimize(objective, n_trials=1)
    question = chat.requests[-1].text
    assert f"its score is {threshold:.6g} or lower" in question and "score\n" in question
    assert study.trials[-1].params["depth"] == int(listed_candidates(chat.requests[-1])["c2"][0])


def test_categories_drawn_at_random_take_every_value() -> None:
    def numeric(request: Request) -> Any:
        return {"candidates": [row[:2] for row in fresh_candidates(request)["candidates"]]}

    chat = scripted(numeric, lambda r: {n: 0.5 for n in listed_candidates(r)})
    study = new_study(as_on_optunahub(chat), n=6)
    study.optimize(objective, n_trials=15)
    assert {t.params["pattern"] for t in study.trials[6:]} == {"S", "L", None}
    assert all(t.user_attrs["source"] == "llm" for t in study.trials[6:])


def test_a_space_of_nothing_but_hidden_categories_is_drawn_at_random_without_a_request() -> None:
    chat = ScriptedChat()
    study = optuna.create_study(sampler=as_on_optunahub(chat))
    choices = list("abcdefgh")
    study.optimize(lambda t: ord(t.suggest_categorical("x", choices)), n_trials=8)
    assert {t.params["x"] for t in study.trials} == set(choices)
    assert [source(study, i) for i in range(8)] == ["startup"] + ["base"] * 7


@pytest.mark.parametrize(
    "wrong",
    [
        {"labels": "binary", "surrogate": "discriminative"},
        {"labels": "ternary"},
        {"n_predictions": 3},
        {"n_templates": 0},
        {"n_candidates": 1},
        {"good_fraction": 1.0},
        {"on_error": "ignore"},
        {"alpha": math.nan},
        {"alpha": math.inf},
        {"n_startup_trials": -1},
        {"max_prompt_tokens": 0},
    ],
)
def test_arguments_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must|goes with"):
        LLAMBOSampler(**wrong)


# Optuna's other ways to make trials


def test_enqueued_trials_are_not_asked_for_and_are_learned_from() -> None:
    chat = scripted(fresh_candidates, true_scores)
    study = new_study(LLAMBOSampler(chat=chat, seed=0), n=6)
    enqueued = {"depth": 3, "lr": 0.0321, "pattern": "L"}
    study.enqueue_trial(enqueued)
    study.optimize(objective, n_trials=1)
    assert not chat.requests
    assert study.trials[-1].params == enqueued and source(study) == "enqueued"
    study.optimize(objective, n_trials=1)
    assert "\n3,0.0321,L," in chat.requests[0].text


def test_partly_enqueued_values_are_told_to_the_model_and_kept() -> None:
    chat = scripted(fresh_candidates, true_scores)
    study = new_study(LLAMBOSampler(chat=chat, seed=0), n=6)
    study.enqueue_trial({"pattern": None})
    study.optimize(objective, n_trials=1)
    assert "Decided already: pattern = None." in chat.requests[0].text
    assert study.trials[-1].params["pattern"] is None
    assert {values[2] for values in listed_candidates(chat.requests[-1]).values()} == {"None"}
    assert source(study) == "llm"


def test_steps_log_ranges_and_single_values_are_kept() -> None:
    space: dict[str, BaseDistribution] = {
        "half": FloatDistribution(0.0, 2.0, step=0.5),
        "log": IntDistribution(1, 1024, log=True),
        "odd": IntDistribution(1, 9, step=2),
        "only": CategoricalDistribution(["x"]),
        "truth": CategoricalDistribution([True, False, 1.5]),
    }
    study = optuna.create_study(sampler=LLAMBOSampler(chat=SchemaChat(), seed=0))
    study.optimize(lambda t: float(suggest(t, space)["log"]), n_trials=12)
    sources = [t.user_attrs["source"] for t in study.trials]
    assert sources == ["startup"] + ["llm"] * 11
    for trial in study.trials:
        assert all(
            d._contains(d.to_internal_repr(trial.params[name])) for name, d in space.items()
        )
    assert len({tuple(t.params.values()) for t in study.trials}) == 12


# Resuming, threads and processes


def test_a_resumed_study_asks_what_an_uninterrupted_one_would(
    own_storage: StorageFactory,
) -> None:
    def run(name: str, parts: tuple[int, ...]) -> list[str]:
        texts = []
        for n_trials in parts:
            chat = scripted(fresh_candidates, true_scores)
            study = optuna.create_study(
                storage=own_storage(),
                study_name=name,
                sampler=LLAMBOSampler(chat=chat, n_startup_trials=3, seed=5),
                load_if_exists=True,
            )
            study.optimize(objective, n_trials=n_trials)
            texts += sorted(r.text for r in chat.requests)
        return [*texts, str([t.params for t in study.trials])]

    whole = run("whole", (1, 1, 1, 1, 1, 1))
    halves = run("halves", (1, 1, 4))
    assert sorted(whole) == sorted(halves)


def test_without_a_seed_two_samplers_differ_and_seed_zero_is_a_seed() -> None:
    def first(seed: int | None) -> dict[str, Any]:
        study = new_study(LLAMBOSampler(chat=SchemaChat(), seed=seed))
        study.optimize(objective, n_trials=1)
        return study.trials[0].params

    assert first(0) == first(0) != first(1)
    assert first(None) != first(None)


def test_threads_repeat_no_configuration_and_share_no_seed() -> None:
    chat = scripted(fresh_candidates, true_scores)
    study = new_study(LLAMBOSampler(chat=chat, seed=0))
    study.optimize(objective, n_trials=16, n_jobs=4)
    assert all(t.state == TrialState.COMPLETE for t in study.trials)
    configurations = [tuple(t.params.values()) for t in study.trials]
    assert len(set(configurations)) == 16
    seeds = [r.seed for r in chat.requests]
    assert len(set(seeds)) == len(seeds)


class _SameForAll(ScriptedChat):
    """Proposes to every worker the same configurations, in the same order."""

    def __init__(self) -> None:
        rows = [[d, lr, p] for p in ("S", "L") for lr in (0.01, 0.02, 0.03) for d in range(1, 10)]
        super().__init__(
            cycle(
                [
                    lambda r: (
                        {"candidates": rows}
                        if kind(r) == "candidates"
                        else {name: 1.0 for name in listed_candidates(r)}
                    )
                ]
            )
        )


def work(url: str, path: str) -> None:
    """Eight trials of the study ``shared``; writes the last request of each to ``path``, see `two_processes`."""
    chat = _SameForAll()
    study = optuna.load_study(
        study_name="shared",
        storage=url,
        sampler=LLAMBOSampler(chat=chat, n_startup_trials=2, seed=0),
    )
    last_requests = {}
    for _ in range(8):
        known = finished(study)
        trial = study.ask()
        study.tell(trial, objective(trial))
        last_requests[trial.number] = known, chat.requests[-1].text
    Path(path).write_text(json.dumps(last_requests))


def test_two_processes_see_each_others_trials_and_repeat_no_configuration(
    postgres_url: str, tmp_path: Path
) -> None:
    study = optuna.create_study(study_name="shared", storage=postgres_url)
    for depth in (10, 11):
        add(study, {"depth": depth, "lr": 0.5, "pattern": "L"}, 5.0 + depth)

    def shown(trial: FrozenTrial) -> str:
        return row(trial.params, SPACE, format_score(trial.values[0], 6))

    check_they_see_each_others_trials(study, work, postgres_url, tmp_path, shown)
    configurations = {tuple(t.params.values()) for t in study.trials}
    assert len(configurations) == len(study.trials) == 18


def test_numpys_numbers_may_be_enqueued() -> None:
    chat = scripted(fresh_candidates, true_scores)
    study = new_study(LLAMBOSampler(chat=chat, seed=0), n=1)
    study.enqueue_trial({"lr": np.float64(0.0321)})
    study.enqueue_trial({"depth": np.int64(3)})
    study.optimize(objective, n_trials=2)
    assert [source(study, -2), source(study, -1)] == ["llm", "llm"]
    assert study.trials[-2].params["lr"] == 0.0321 and study.trials[-1].params["depth"] == 3


def test_a_prompt_without_room_costs_the_turn_and_never_the_study() -> None:
    study = new_study(LLAMBOSampler(chat=ScriptedChat(), seed=0, max_prompt_tokens=10), n=1)
    study.optimize(objective, n_trials=7)
    assert [source(study, i) for i in range(-7, 0)] == ["llm-error"] * 7
