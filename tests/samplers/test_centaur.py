"""Who decides which trial, what CMA-ES learns from it, and what the model is told."""

from __future__ import annotations

from collections import Counter
import itertools
import json
import math
from pathlib import Path
import pickle
import socket
from typing import Any

import cmaes
import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.samplers import CmaEsSampler
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState
import pytest

from samplers import KarpathyAgentSampler
from samplers import LLAMBOSampler
from samplers import OpenAIChat
from samplers import ScriptedChat
from samplers._llm.chat import BudgetExhausted
from samplers._llm.chat import ChatError
from samplers._llm.chat import ChatUnavailable
from samplers._llm.connect import open_embedded
from samplers._llm.propose import TooManyLLMErrors
from samplers._llm.schema_chat import SchemaChat
from samplers._llm.scripted import Request
from samplers.centaur import CentaurSampler
from samplers.centaur import model_turns
from samplers.centaur.internals import StudyView
from samplers.centaur.state import clip_steps
from samplers.centaur.state import limit_mean_step
from samplers.centaur.state import read_state
from samplers.centaur.state import UnitCube

from ..conftest import die
from ..conftest import in_a_process_that_dies
from ..conftest import StorageFactory
from ._llm.conftest import only_llama_cpp


SPACE = {
    "lr": FloatDistribution(1e-4, 1.0, log=True),
    "momentum": FloatDistribution(0.0, 1.0),
    "batch": IntDistribution(8, 512, log=True),
    "depth": IntDistribution(1, 12),
    "schedule": CategoricalDistribution(["cosine", "linear", "constant"]),
}
NUMERICAL = {n: SPACE[n] for n in ("batch", "depth", "lr", "momentum")}  # CMA-ES's order
REPLY = {"lr": 0.02, "momentum": 0.75, "batch": 60, "depth": 7, "schedule": "linear"}


def objective(trial: optuna.Trial) -> float:
    p = {name: trial._suggest(name, d) for name, d in SPACE.items()}
    return (
        math.log10(p["lr"] / 0.02) ** 2
        + (p["momentum"] - 0.9) ** 2
        + math.log2(p["batch"] / 64) ** 2 / 10
        + (p["depth"] - 6) ** 2 / 10
        + (p["schedule"] != "cosine")
    )


def sources(study: optuna.Study) -> list[str]:
    return [t.user_attrs.get("source", "") for t in study.trials]


def distinct_replies() -> Any:
    """REPLY again and again with another momentum, for models that never repeat themselves."""
    return ({**REPLY, "momentum": 0.7 + i / 1000} for i in itertools.count())


class Told:
    """What was told to cmaes, a generation each: state before, and (point, value) best first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.generations: list[tuple[Any, list[tuple[np.ndarray, float]]]] = []
        tell = cmaes.CMA.tell

        def spy(cma: cmaes.CMA, solutions: list[tuple[np.ndarray, float]]) -> None:
            ordered = sorted(((x.copy(), y) for x, y in solutions), key=lambda s: s[1])
            self.generations.append((read_state(cma), ordered))
            tell(cma, solutions)

        monkeypatch.setattr(cmaes.CMA, "tell", spy)

    @property
    def points(self) -> np.ndarray:
        return np.array([x for _, solutions in self.generations for x, _ in solutions])


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    return Told(monkeypatch)


# --- Whose turn it is ---------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.3, 0.5, 0.8, 1.0])
def test_the_models_share_is_exact_and_evenly_spread(ratio: float) -> None:
    sampler = CentaurSampler(critic=None, llm_ratio=ratio, n_startup_trials=10)
    turns = [sampler.is_llm_turn(number) for number in range(210)]
    assert sum(turns[:10]) == 0
    assert sum(turns) == round(200 * ratio)
    for n in range(1, 200):
        assert abs(sum(turns[10 : 10 + n]) - n * ratio) < 1


def test_a_killed_turn_of_the_model_is_the_models_again() -> None:
    """However often; and those of the others are not shifted."""
    killed = {3: 2, 5: 1, 12: 3, 13: 1}  # turn -> times
    sampler = CentaurSampler(
        critic=None, chat=SchemaChat(), seed=0, n_startup_trials=10, llm_ratio=0.5
    )
    study = optuna.create_study(sampler=sampler)
    finished = 0
    while finished < 30:
        trial = study.ask()
        again = study.trials[-1].system_attrs.get("retry_history", [])
        if len(again) < killed.get(finished, 0):
            # The worker died while its sampler was at work: nothing is known of the trial yet.
            study.tell(trial, state=TrialState.FAIL)
            RetryHeartbeatStaleTrialCallback()(study, study.trials[-1])
        else:
            study.tell(trial, objective(trial))
            finished += 1
    done = [t.user_attrs["source"] for t in study.trials if t.state == TrialState.COMPLETE]
    assert len(study.trials) == 30 + sum(killed.values())
    assert [n for n, source in enumerate(done) if source.startswith("llm")] == [
        n for n in range(30) if sampler.is_llm_turn(n)
    ]
    assert done[:10] == ["startup"] * 10


@pytest.mark.parametrize("make", [CentaurSampler, KarpathyAgentSampler, LLAMBOSampler])
def test_after_a_killed_trial_requests_have_the_seeds_of_an_uninterrupted_study(make: Any) -> None:
    def seeds(killed: tuple[int, ...]) -> list[int | None]:
        chat = ScriptedChat(lambda r: SchemaChat().complete(r.messages, schema=r.schema))
        study = optuna.create_study(sampler=make(chat=chat, seed=0, n_startup_trials=2))
        for number in range(6):
            if number in killed:  # before its sampler was at work
                study.tell(study.ask(), state=TrialState.FAIL)
                RetryHeartbeatStaleTrialCallback()(study, study.trials[-1])
            study.optimize(objective, n_trials=1)
        return [request.seed for request in chat.requests]

    uninterrupted = seeds(())
    assert len(set(uninterrupted)) > 1 and seeds((1, 3)) == uninterrupted


def test_the_share_stays_exact_whatever_the_model_and_the_objective_do() -> None:
    usable = ({**REPLY, "momentum": i / 1000} for i in itertools.count())
    turns = itertools.cycle(["usable", "same", "unusable", "down"])

    def replies() -> Any:
        for turn in turns:
            if turn == "usable":
                yield (last := next(usable))
            elif turn == "same":
                yield from (last, last)
            elif turn == "unusable":
                yield from ("no JSON", "still none")
            else:
                yield ChatUnavailable("the server is down")

    def fails(trial: optuna.Trial) -> float:
        value = objective(trial)
        if trial.number % 3 == 0:
            raise ValueError("out of memory")
        return value

    study = optuna.create_study(
        sampler=CentaurSampler(critic=None, chat=ScriptedChat(replies()), seed=0)
    )
    study.optimize(fails, n_trials=60, catch=ValueError)
    of_the_model = [n for n, source in enumerate(sources(study)) if source.startswith("llm")]
    assert of_the_model == [n for n in range(60) if CentaurSampler(critic=None).is_llm_turn(n)]
    assert len(of_the_model) == 15
    assert {"llm", "llm-error", "llm-duplicate"} <= set(sources(study))


def test_threads_share_one_sampler_and_keep_the_ratio() -> None:
    study = optuna.create_study(sampler=CentaurSampler(critic=None, chat=SchemaChat(), seed=0))
    study.optimize(objective, n_trials=60, n_jobs=4)
    # Two threads that choose the same configuration at once may both refuse it as a duplicate.
    turns = Counter("llm" if source.startswith("llm") else source for source in sources(study))
    assert turns == {"startup": 10, "llm": 15, "base": 35}
    assert "llm-error" not in sources(study)
    llm = [t for t in study.trials if t.user_attrs["source"] == "llm"]
    assert len({json.dumps(t.params, sort_keys=True) for t in llm}) == len(llm)


def test_without_llm_turns_it_is_cmaes_to_the_last_digit(own_storage: StorageFactory) -> None:
    def run(sampler: optuna.samplers.BaseSampler, name: str) -> optuna.Study:
        study = optuna.create_study(storage=own_storage(), sampler=sampler, study_name=name)
        study.optimize(objective, n_trials=30)
        return study

    ours = run(CentaurSampler(critic=None, llm_ratio=0, seed=1), "ours")
    theirs = run(CmaEsSampler(seed=1, warn_independent_sampling=False), "theirs")
    assert [t.params for t in ours.trials] == [t.params for t in theirs.trials]
    assert _tags(ours) == _tags(theirs)


@pytest.mark.parametrize(
    "options",
    [
        {"use_separable_cma": True},
        {"with_margin": True},
        {"lr_adapt": True},
        {"popsize": 6},
        {"consider_pruned_trials": True},
    ],
)
def test_without_llm_turns_cmaes_options_do_what_they_do(options: dict[str, Any]) -> None:
    def pruning(trial: optuna.Trial) -> float:
        value = objective(trial)
        trial.report(value, 0)
        if "consider_pruned_trials" in options and trial.number % 4 == 3:
            raise optuna.TrialPruned
        return value

    def run(sampler: optuna.samplers.BaseSampler) -> list[dict[str, Any]]:
        study = optuna.create_study(sampler=sampler)
        study.optimize(pruning, n_trials=50)
        return [t.params for t in study.trials]

    theirs = run(CmaEsSampler(seed=0, warn_independent_sampling=False, **options))
    assert run(CentaurSampler(critic=None, llm_ratio=0, seed=0, **options)) == theirs


def test_a_trial_that_was_pruned_for_a_nan_is_no_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    monkeypatch.setattr(
        cmaes.CMA, "tell", lambda _, solutions: told.extend(v for _, v in solutions)
    )

    def pruning(trial: optuna.Trial) -> float:
        value = objective(trial)
        if trial.number % 3 == 1:
            trial.report(math.nan, 0)
            raise optuna.TrialPruned
        return value

    sampler = CentaurSampler(critic=None, llm_ratio=0, seed=0, consider_pruned_trials=True)
    optuna.create_study(sampler=sampler).optimize(pruning, n_trials=40)
    assert told and all(map(math.isfinite, told))


def test_source_trials_start_cmaes_where_they_were_good() -> None:
    numerical = NUMERICAL
    good = {"lr": 0.5, "momentum": 0.2, "batch": 300, "depth": 11}
    sources_ = [
        optuna.trial.create_trial(
            params={**good, "lr": 0.5 - i / 100}, distributions=numerical, value=float(i)
        )
        for i in range(20)
    ]
    chat = SchemaChat()
    study = optuna.create_study(
        sampler=CentaurSampler(
            critic=None, chat=chat, source_trials=sources_, seed=0, n_startup_trials=2
        )
    )
    study.optimize(
        lambda t: float(sum(t._suggest(n, d) for n, d in numerical.items())), n_trials=14
    )
    row = chat.requests[0].text.split("\nmean,")[1].split("\n")[0].split(",")
    mean = dict(zip(NUMERICAL, map(float, row)))
    assert mean["batch"] == pytest.approx(300, rel=0.2)
    assert mean["lr"] == pytest.approx(0.49, rel=0.2)


def _tags(study: optuna.Study) -> list[Any]:
    """A trial's generation, and the mean and step size of the optimizer that is stored on it."""
    tags = []
    for t in study.trials:
        optimizer = CmaEsSampler()._restore_optimizer([t])
        state = optimizer and (optimizer.mean.tolist(), read_state(optimizer).sigma)
        tags.append((t.system_attrs.get("cma:generation"), state))
    return tags


# --- What is run is what the model said, and CMA-ES learns it -------------------------------------


def test_what_the_model_says_is_run_and_told_to_cmaes(
    own_storage: StorageFactory, told: Told
) -> None:
    chat = ScriptedChat(distinct_replies())
    study = optuna.create_study(
        storage=own_storage(), sampler=CentaurSampler(critic=None, chat=chat, seed=0)
    )
    study.optimize(objective, n_trials=30)
    llm = [t for t in study.trials if t.user_attrs["source"] == "llm"]
    assert [t.params for t in llm] == list(itertools.islice(distinct_replies(), len(llm)))
    cube = UnitCube(NUMERICAL, with_margin=False)
    last = told.generations[-1]
    n_told = len(told.generations) * len(last[1])
    learned = [t for t in study.trials[1 : 1 + n_told] if t in llm]
    assert len(learned) >= 4
    nearest = [
        np.min(np.linalg.norm(told.points - x, axis=1))
        for x in cube.points([t.params for t in learned])
    ]
    # All of these are near enough not to be clipped.
    assert np.max(nearest) < 1e-9


def test_with_margin_cmaes_is_told_the_models_point_and_not_its_own() -> None:
    chat = ScriptedChat(distinct_replies())
    study = optuna.create_study(
        sampler=CentaurSampler(critic=None, chat=chat, seed=0, with_margin=True)
    )
    study.optimize(objective, n_trials=30)
    cube = UnitCube(NUMERICAL, with_margin=True)
    optimizer = None
    for trial in study.trials:
        attributes = {k: v for k, v in trial.system_attrs.items() if "cmawm:optimizer" in k}
        if attributes:
            text = "".join(attributes[f"cmawm:optimizer:{i}"] for i in range(len(attributes)))
            optimizer = pickle.loads(bytes.fromhex(text))
        if trial.user_attrs["source"] == "llm":
            x_for_tell = np.array(trial.system_attrs["x_for_tell"])
            x = cube.points([trial.params])[0]
            if optimizer is not None:
                # What CMA-ES with margin would have had to draw to evaluate this configuration.
                x_for_tell[optimizer._discrete_idx] = optimizer._encode_discrete_params(
                    x_for_tell[optimizer._discrete_idx]
                )
            assert np.allclose(x_for_tell, x)


@pytest.mark.parametrize("with_margin", [False, True])
@pytest.mark.parametrize("odd", [5, "[", {}, [["x"]], [math.nan] * 20, [10**400], None])
def test_a_point_to_tell_that_is_none_is_that_of_the_parameters(
    odd: Any, with_margin: bool
) -> None:
    study = optuna.create_study(
        sampler=CentaurSampler(critic=None, llm_ratio=0, seed=0, with_margin=with_margin)
    )
    study.optimize(objective, n_trials=4)
    for trial in study.trials:
        study._storage._get_trial(trial._trial_id).system_attrs["x_for_tell"] = odd  # type: ignore[attr-defined]
    study.enqueue_trial({"depth": 3})  # a foreign point, with which a generation is told anew
    study.optimize(objective, n_trials=12)
    assert all(t.state == TrialState.COMPLETE for t in study.trials)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"lr": None, "momentum": None}, {"batch": 60, "depth": 7, "schedule": "linear"}),
        ({"width": 12}, REPLY),
        ({"schedule": "exponential"}, {n: v for n, v in REPLY.items() if n != "schedule"}),
        ({"depth": 99}, {**REPLY, "depth": 12}),
        ({"lr": "1e-3"}, {**REPLY, "lr": 1e-3}),
        ({"lr": float("nan")}, {n: v for n, v in REPLY.items() if n != "lr"}),
        ({"batch": 60.4}, REPLY),
    ],
)
def test_a_faulty_reply_is_repaired_and_what_is_stored_is_what_was_run(
    change: dict[str, Any], expected: dict[str, Any]
) -> None:
    reply = {name: value for name, value in {**REPLY, **change}.items() if value is not None}
    run = []

    def spy(trial: optuna.Trial) -> float:
        value = objective(trial)
        run.append(dict(trial.params))
        return value

    chat = ScriptedChat([json.dumps(reply)])
    study = optuna.create_study(
        sampler=CentaurSampler(
            critic=None, chat=chat, n_startup_trials=3, llm_ratio=1, seed=0, reply="full"
        )
    )
    study.optimize(spy, n_trials=4)
    assert study.trials[3].user_attrs["source"] == "llm"
    assert study.trials[3].params == run[3]
    assert run[3].keys() == SPACE.keys()
    assert expected.items() <= run[3].items()


def test_a_parameter_that_the_model_leaves_out_keeps_the_base_value() -> None:
    chat = ScriptedChat([{"momentum": 0.5}, {"depth": 3}])
    study = optuna.create_study(
        sampler=CentaurSampler(
            critic=None, chat=chat, n_startup_trials=3, llm_ratio=1, reply="changes", seed=0
        )
    )
    study.optimize(objective, n_trials=5)
    for trial in study.trials[3:]:
        earlier = [t for t in study.trials if t.number < trial.number]
        best = min(earlier, key=lambda t: t.values[0]).params
        (changed,) = {n for n in SPACE if trial.params[n] != best[n]}
        assert changed in {"momentum", "depth"}


# --- When the model has no answer -----------------------------------------------------------------


def test_an_error_runs_cmaes_own_proposal_says_so_and_does_not_move_the_next_turn() -> None:
    chat = ScriptedChat([ChatUnavailable("the server is down"), REPLY])
    with_llm = CentaurSampler(critic=None, chat=chat, seed=0, n_startup_trials=4, llm_ratio=0.25)
    study = optuna.create_study(sampler=with_llm)
    study.optimize(objective, n_trials=12)
    assert sources(study)[7] == "llm-error"
    assert "the server is down" in study.trials[7].user_attrs["llm_reason"]
    assert sources(study)[8:] == ["base", "base", "base", "llm"]
    # A sample of CMA-ES's, as good as any other for its generation: the one of its own turn.
    alone = CentaurSampler(critic=None, llm_ratio=0, seed=0, n_startup_trials=4)
    without = optuna.create_study(sampler=alone)
    without.optimize(objective, n_trials=8)
    assert study.trials[7].params == without.trials[7].params
    assert study.trials[7].system_attrs["cma:generation"] == 0


def test_a_server_that_is_away_before_its_models_name_is_known_is_an_error_like_any_other() -> (
    None
):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    chat = OpenAIChat(base_url=f"http://127.0.0.1:{port}/v1", max_retries=0)
    sampler = CentaurSampler(critic=None, chat=chat, seed=0, n_startup_trials=2, llm_ratio=0.5)
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=8)
    assert sources(study)[2:] == ["base", "llm-error"] * 3
    assert "no connection" in study.trials[3].user_attrs["llm_reason"]


def test_on_error_raise_fails_the_trial_at_once() -> None:
    chat = ScriptedChat([ChatUnavailable("the server is down")])
    sampler = CentaurSampler(
        critic=None, chat=chat, seed=0, n_startup_trials=2, llm_ratio=1, on_error="raise"
    )
    study = optuna.create_study(sampler=sampler)
    with pytest.raises(ChatUnavailable, match="the server is down"):
        study.optimize(objective, n_trials=5)
    assert [t.state.name for t in study.trials] == ["COMPLETE", "COMPLETE", "FAIL"]
    assert sources(study)[2] == "llm-error"


def test_five_errors_in_a_row_stop_the_study_and_it_can_go_on_later() -> None:
    errors = [ChatUnavailable("the server is down")] * 5
    chat = ScriptedChat([*errors, REPLY])
    sampler = CentaurSampler(critic=None, chat=chat, seed=0, n_startup_trials=2, llm_ratio=1)
    study = optuna.create_study(sampler=sampler)
    with pytest.raises(TooManyLLMErrors, match="the server is down"):
        study.optimize(objective, n_trials=10)
    assert len(study.trials) == 7
    study.optimize(objective, n_trials=1)
    assert sources(study)[-1] == "llm"


@pytest.mark.parametrize("error", [ChatUnavailable("down"), BudgetExhausted("the cap is reached")])
@pytest.mark.parametrize("critic", ["gp", None])
def test_a_study_can_go_on_without_a_model_that_failed_for_good(
    error: ChatError, critic: Any
) -> None:
    chat = ScriptedChat([*[error] * 7, REPLY], model="m-8b")
    options: dict[str, Any] = {"chat": chat, "seed": 0, "n_startup_trials": 1, "warm_start": 0}
    study = optuna.create_study()
    for _ in range(9):  # whoever goes on with it knows no more than the storage does
        study.sampler = CentaurSampler(critic=critic, llm_ratio=1, on_error="continue", **options)
        study.optimize(objective, n_trials=1)
    assert sources(study)[1:] == ["llm-error"] * 7 + ["llm"]
    assert len({str(t.params) for t in study.trials}) == 9


def test_what_a_study_goes_on_without_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(model_turns._logger, "warning", said.append)
    chat = ScriptedChat([ChatUnavailable("the server is down")] * 8, model="m-8b")
    sampler = CentaurSampler(
        chat=chat, seed=0, n_startup_trials=1, warm_start=0, llm_ratio=1, on_error="continue"
    )
    optuna.create_study(sampler=sampler).optimize(objective, n_trials=9)
    (line,) = said
    assert "goes on without the language model" in line and "the server is down" in line


def test_the_same_configuration_is_never_run_twice_on_the_models_behalf() -> None:
    chat = ScriptedChat(itertools.repeat(REPLY))
    study = optuna.create_study(
        sampler=CentaurSampler(critic=None, chat=chat, seed=0, n_startup_trials=2, llm_ratio=1)
    )
    study.optimize(objective, n_trials=6)
    assert sources(study)[2:] == ["llm"] + ["llm-duplicate"] * 3
    assert len({json.dumps(t.params, sort_keys=True) for t in study.trials}) == 6


# --- What CMA-ES learns from failures and from foreign points --------------------------------------


def _status(trial: optuna.Trial) -> float:
    trial.set_user_attr("status", "oom")
    return 100.0


def _raise(trial: optuna.Trial) -> float:
    raise ValueError("out of memory")


@pytest.mark.parametrize("fail", [_status, _raise])
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_failures_rank_last_and_are_never_parents(fail: Any, direction: str, told: Told) -> None:
    failed: list[dict[str, Any]] = []

    def often_fails(trial: optuna.Trial) -> float:
        value = objective(trial)
        if trial.number % 5 in (1, 2, 4):
            failed.append(dict(trial.params))
            return float(fail(trial))
        return value if direction == "minimize" else -value

    study = optuna.create_study(
        direction=direction,  # type: ignore[arg-type]
        sampler=CentaurSampler(critic=None, llm_ratio=0, seed=0, popsize=6),
    )
    study.optimize(often_fails, n_trials=60, catch=ValueError)
    cube = UnitCube(NUMERICAL, with_margin=False)
    failures = cube.points(failed)
    assert len(told.generations) >= 5
    told_failures = 0
    for state, solutions in told.generations:
        is_failed = [np.min(np.linalg.norm(failures - x, axis=1)) < 1e-9 for x, _ in solutions]
        assert is_failed == sorted(is_failed)
        assert not any(is_failed[: len(state.weights)])
        told_failures += sum(is_failed)
    assert told_failures


def test_with_too_few_successes_the_missing_parents_take_no_step(told: Told) -> None:
    # One success in each generation of 8, whose four parents would otherwise be failures.
    def rarely_succeeds(trial: optuna.Trial) -> float:
        value = objective(trial)
        return value if trial.number % 16 == 5 else _status(trial)

    study = optuna.create_study(
        sampler=CentaurSampler(critic=None, llm_ratio=0, seed=0, popsize=8)
    )
    study.optimize(rarely_succeeds, n_trials=60)
    assert len(told.generations) >= 2
    for state, solutions in told.generations:
        parents = np.array([x for x, _ in solutions[: len(state.weights)]])
        n_real = int(np.sum(np.linalg.norm(parents - state.mean, axis=1) > 1e-9))
        assert 1 <= n_real < len(state.weights)
        assert np.allclose(parents[n_real:], state.mean)


def test_failed_trials_of_the_model_do_not_touch_cmaes(told: Told) -> None:
    def model_fails(trial: optuna.Trial) -> float:
        value = objective(trial)
        return _status(trial) if sampler.is_llm_turn(trial.number) else value

    sampler = CentaurSampler(
        critic=None, chat=ScriptedChat(distinct_replies()), seed=0, llm_ratio=0.5
    )
    study = optuna.create_study(sampler=sampler)
    study.optimize(model_fails, n_trials=60)
    own = [t for t in study.trials[1:] if t.user_attrs["source"] != "llm"]
    cube = UnitCube(NUMERICAL, with_margin=False)
    pure = cmaes.CMA(np.full(4, 0.5), 1 / 6, bounds=np.array([[0.0, 1.0]] * 4))
    size = pure.population_size
    n_generations = len(told.generations)
    for i in range(n_generations):
        population = own[i * size : (i + 1) * size]
        points = cube.points([t.params for t in population])
        pure.tell([(x, t.values[0]) for x, t in zip(points, population)])
    last = _last_state(study)
    assert last.generation == pure.generation >= 3
    assert np.allclose(last.mean, pure.mean)
    assert last.sigma == pytest.approx(read_state(pure).sigma)


def _last_state(study: optuna.Study) -> Any:
    trials = [t for t in study.trials if "cma:optimizer:0" in t.system_attrs]
    optimizer = CmaEsSampler()._restore_optimizer(trials)
    return read_state(optimizer)


def _optimizers() -> list[Any]:
    def bounds(n: int) -> np.ndarray:
        return np.array([[0.0, 1.0]] * n)

    def start(n: int) -> dict[str, Any]:
        return {"mean": np.full(n, 0.5), "sigma": 1 / 6, "bounds": bounds(n), "seed": 0}

    steps = np.array([0.1] * 3 + [0.0] * 4)
    return [
        pytest.param(lambda: cmaes.CMA(**start(13)), id="13 dimensions"),
        pytest.param(lambda: cmaes.CMA(**start(1)), id="1 dimension"),
        pytest.param(lambda: cmaes.CMA(**start(5), population_size=60), id="large population"),
        pytest.param(lambda: cmaes.SepCMA(**start(13)), id="separable"),
        pytest.param(lambda: cmaes.CMAwM(**start(7), steps=steps), id="margin"),
    ]


@pytest.mark.parametrize("make", _optimizers())
def test_foreign_points_move_the_mean_and_grow_sigma_by_no_more_than_hansens_limits(
    make: Any,
) -> None:
    rng = np.random.default_rng(0)
    optimizer = make()
    n = optimizer.dim
    for generation in range(25):
        state = read_state(optimizer)
        points = []
        for _ in range(optimizer.population_size):
            x = optimizer.ask()
            points.append(x[1] if isinstance(x, tuple) else x)
        x = np.array(points)
        if generation >= 10:  # three far points, the same corner again and again, are the best
            x[: min(3, len(x))] = 0.97 + 0.02 * rng.random((min(3, len(x)), n))
            x[:3] = clip_steps(state, x[:3])
            norms = np.linalg.norm(state.whiten((x - state.mean) / state.sigma), axis=1)
            assert norms[:3].max() <= math.sqrt(n) + 2 * n / (n + 2) + 1e-6
            mu = len(state.weights)
            x[:mu] = limit_mean_step(state, x[:mu])
        optimizer.tell([(x_i, float(i)) for i, x_i in enumerate(x)])
        after = read_state(optimizer)
        assert after.sigma <= math.e * state.sigma * (1 + 1e-9)
        step = state.whiten(((after.mean - state.mean) / state.sigma)[None])[0]
        if not isinstance(optimizer, cmaes.CMAwM):  # the margin moves the mean once more
            mu_eff = 1 / np.sum(state.weights**2)
            assert math.sqrt(mu_eff) * np.linalg.norm(step) <= (
                math.sqrt(2 * n) + 2 * n / (n + 2) + 1e-6
            )


def test_a_far_but_good_proposal_is_clipped_unless_all_is_to_be_learned(told: Told) -> None:
    space = {f"x{i}": FloatDistribution(0, 1) for i in range(8)}
    corner = {name: 0.999 for name in space}

    def corner_is_best(trial: optuna.Trial) -> float:
        x = [trial._suggest(name, d) for name, d in space.items()]
        return 8 - sum(x)

    longest = {}
    for rule in ("clipped", "all"):
        told.generations.clear()
        chat = ScriptedChat({**corner, "x0": 0.99 - i / 1000} for i in itertools.count())
        study = optuna.create_study(
            sampler=CentaurSampler(critic=None, chat=chat, seed=0, learn_from_llm=rule)  # type: ignore[arg-type]
        )
        study.optimize(corner_is_best, n_trials=24)
        state, solutions = told.generations[1]
        steps = (np.array([x for x, _ in solutions]) - state.mean) / state.sigma
        longest[rule] = float(np.linalg.norm(state.whiten(steps), axis=1).max())
    assert longest["clipped"] <= math.sqrt(8) + 16 / 10 + 1e-9 < longest["all"]


def test_the_stored_optimizer_is_cmaes_own_so_any_process_can_read_it() -> None:
    chat = ScriptedChat(distinct_replies())
    study = optuna.create_study(sampler=CentaurSampler(critic=None, chat=chat, seed=0))
    study.optimize(objective, n_trials=30)
    stored = [t for t in study.trials if "cma:optimizer:0" in t.system_attrs]
    assert stored
    optimizer: Any = CmaEsSampler()._restore_optimizer(stored)
    assert type(optimizer) is cmaes.CMA
    # And CmaEsSampler itself can take the study over.
    study.sampler = CmaEsSampler(warn_independent_sampling=False)
    study.optimize(objective, n_trials=1)
    assert study.trials[-1].system_attrs["cma:generation"] >= optimizer.generation


def test_cmaessampler_sees_the_trials_of_a_view_and_no_others() -> None:
    """What ``_trials_to_learn`` relies on; fails if Optuna reads trials in another way."""
    sampler = CmaEsSampler(seed=0)
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda t: t.suggest_float("x", 0, 1) + t.suggest_float("y", 0, 1), n_trials=20)
    space = {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)}

    def sample(trials: list[optuna.trial.FrozenTrial]) -> tuple[dict[str, Any], dict[str, Any]]:
        trial = study.ask()
        frozen = study._storage.get_trial(trial._trial_id)
        params = sampler.sample_relative(StudyView(study, trials), frozen, space)  # type: ignore[arg-type]
        return params, study._storage.get_trial(trial._trial_id).system_attrs

    assert sample([]) == ({}, {})
    assert sample(study.trials[:1])[1]["cma:generation"] == 0
    assert sample(study.trials)[1]["cma:generation"] > 0


@pytest.mark.parametrize("form", ["full", "changes", "menu"])
def test_each_form_of_reply_has_its_schema(form: Any) -> None:
    chat = SchemaChat()
    study = optuna.create_study(sampler=CentaurSampler(critic=None, chat=chat, reply=form, seed=0))
    study.optimize(objective, n_trials=14)
    schema = chat.requests[0].schema or {}
    required = {"full": ["reason", *sorted(REPLY)], "changes": ["reason"], "menu": []}
    assert schema.get("required", []) == required[form]
    assert all("enum" in values for values in schema["properties"].values()) is (form == "menu")
    assert ("by changing trial" in chat.requests[0].text) is (form != "full")


# --- Histories of every kind ----------------------------------------------------------------------


def test_an_enqueued_configuration_is_run_without_asking_the_model() -> None:
    chat = ScriptedChat([])
    study = optuna.create_study(
        sampler=CentaurSampler(critic=None, chat=chat, n_startup_trials=0, llm_ratio=1)
    )
    study.enqueue_trial(REPLY)
    study.optimize(objective, n_trials=1)
    assert study.trials[0].params == REPLY
    assert sources(study) == ["enqueued"]


def test_of_a_partly_enqueued_configuration_the_model_sets_the_rest() -> None:
    chat = ScriptedChat([REPLY])
    study = optuna.create_study(
        sampler=CentaurSampler(critic=None, chat=chat, n_startup_trials=1, llm_ratio=1, seed=0)
    )
    study.optimize(objective, n_trials=1)
    study.enqueue_trial({"depth": 3})
    study.optimize(objective, n_trials=1)
    assert study.trials[1].params == {**REPLY, "depth": 3}
    assert sources(study)[1] == "llm"
    assert '"depth": 3' in chat.requests[0].text.split("# Your turn")[1]


def test_the_model_is_asked_even_when_every_trial_so_far_raised() -> None:
    def fails(trial: optuna.Trial) -> float:
        objective(trial)
        raise ValueError("out of memory")

    chat = ScriptedChat([REPLY])
    study = optuna.create_study(
        sampler=CentaurSampler(critic=None, chat=chat, n_startup_trials=3, llm_ratio=1, seed=0)
    )
    study.optimize(fails, n_trials=4, catch=ValueError)
    assert study.trials[3].params == REPLY
    assert "3 of 3 trials failed" in chat.requests[0].text


def test_a_search_space_that_changes_goes_on_with_what_stays_the_same() -> None:
    def changes(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1) + trial.suggest_float("w", 0, 1)
        y = trial.suggest_float("y", 0, 1) if trial.number < 20 else 0.0
        z = trial.suggest_int("z", 1, 9) if trial.number >= 20 else 0
        return x + y + z

    chat = SchemaChat()
    study = optuna.create_study(
        sampler=CentaurSampler(critic=None, chat=chat, seed=0, warn_independent_sampling=False)
    )
    study.optimize(changes, n_trials=40)
    # CMA-ES has not started in the parameters that are left, and nothing is said of it.
    assert "# CMA-ES" not in chat.requests[-1].text
    assert all(t.state == TrialState.COMPLETE for t in study.trials)
    assert sum(source == "llm" for source in sources(study)) == 9


def test_several_objectives_are_refused() -> None:
    study = optuna.create_study(
        directions=["minimize", "minimize"], sampler=CentaurSampler(critic=None, chat=SchemaChat())
    )
    with pytest.raises(ValueError, match="multi-objective"):
        study.optimize(lambda t: (t.suggest_float("x", 0, 1), 0.0), n_trials=1)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"llm_ratio": 1.5}, "`llm_ratio` must be between 0 and 1, but got 1.5"),
        ({"reply": "short"}, "`reply` must be one of"),
        ({"learn_from_llm": "some"}, "`learn_from_llm` must be one of"),
        ({"on_error": "ignore"}, "`on_error` must be one of"),
        ({"n_startup_trials": -3}, "`n_startup_trials` must be 0 or more"),
        ({"warm_start": -1}, "`warm_start` must be 0 or more"),
        ({"noise": -1}, "`noise` must be 0 or more"),
        ({"noise": math.nan}, "`noise` must be 0 or more, but got nan"),
        ({"n_trials": -1}, "`n_trials` must be 0 or more"),
        ({"max_prompt_tokens": 0}, "`max_prompt_tokens` must be 1 or more"),
        ({"seed": -1}, "`seed` must be 0 or more"),
    ],
)
def test_a_wrong_argument_is_named(option: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CentaurSampler(critic=None, **option)


# --- Several workers, and a new process -----------------------------------------------------------


def test_two_workers_see_each_others_trials_and_never_propose_the_same(
    storage: StorageFactory,
) -> None:
    name = "shared"
    optuna.create_study(storage=storage(), study_name=name)
    chats = [SchemaChat(), SchemaChat()]  # the same prompt gets the same reply
    studies = [
        optuna.load_study(
            storage=storage(),  # type: ignore[arg-type]
            study_name=name,
            sampler=CentaurSampler(
                critic=None, chat=chat, n_startup_trials=2, llm_ratio=1, seed=0
            ),
        )
        for chat in chats
    ]
    for study in studies:
        study.optimize(objective, n_trials=1)
    for _ in range(4):
        running = [(study, study.ask()) for study in studies]
        values = [objective(trial) for _, trial in running]
        for (study, trial), value in zip(running, values):
            study.tell(trial, value)
    trials = studies[0].trials
    assert len({json.dumps(t.params, sort_keys=True) for t in trials}) == len(trials)
    for chat in chats:
        table = chat.requests[-1].text.split("# Trials")[1]
        assert all(f"\n{number}," in table for number in range(len(trials) - 2))


def resumed(url: str, name: str) -> optuna.Study:
    return optuna.create_study(
        storage=url,
        study_name=name,
        load_if_exists=True,
        sampler=CentaurSampler(critic=None, chat=SchemaChat(), seed=0),
    )


def test_a_killed_study_goes_on_where_it_was(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/t.db"

    def killed_in_trial_25(trial: optuna.Trial) -> float:
        value = objective(trial)
        if trial.number == 25:
            die()
        return value

    in_a_process_that_dies(lambda: resumed(url, "killed").optimize(killed_in_trial_25))
    at_kill = _last_state(optuna.load_study(storage=url, study_name="killed"))
    for name, n_trials in (("killed", 24), ("whole", 26)):
        resumed(url, name).optimize(objective, n_trials=n_trials)

    killed = optuna.load_study(storage=url, study_name="killed")
    whole = optuna.load_study(storage=url, study_name="whole")
    assert [t.params for t in killed.trials[:26]] == [t.params for t in whole.trials[:26]]
    uninterrupted = _last_state(whole)
    assert at_kill.generation == uninterrupted.generation >= 2
    assert np.array_equal(at_kill.mean, uninterrupted.mean)
    assert at_kill.sigma == uninterrupted.sigma
    # The first trial of the new process is sampled from the very same distribution.
    assert killed.trials[26].system_attrs["cma:generation"] == at_kill.generation
    generations = [t.system_attrs["cma:generation"] for t in killed.trials[1:]]
    assert generations == sorted(generations)
    assert generations[-1] > at_kill.generation
    assert [s == "llm" for s in sources(killed)] == [
        CentaurSampler(critic=None).is_llm_turn(number) for number in range(50)
    ]


# --- What the model is told -----------------------------------------------------------------------


def test_the_prompt_tells_the_trials_cmaes_state_and_the_rest() -> None:
    def with_failures(trial: optuna.Trial) -> float:
        value = objective(trial)
        if trial.number in (5, 15):
            trial.set_user_attr("reason", "80 GB were needed")
            return _status(trial)
        return value

    chat = SchemaChat()
    sampler = CentaurSampler(
        critic=None,
        chat=chat,
        seed=0,
        task="Tune the network.",
        n_trials=40,
        noise=0.01,
        reply="full",
    )
    study = optuna.create_study(sampler=sampler)
    study.optimize(with_failures, n_trials=40)
    text = chat.requests[-1].text
    number = max(t.number for t in study.trials if t.user_attrs["source"] == "llm")
    for part in (
        "Tune the network.",
        "The value is to be minimized. Its standard deviation on repetition is 0.01.",
        "lr: float 0.0001 to 1, log",
        "trial,batch,depth,lr,momentum,schedule,value",
        f"2 of {number} trials failed: 2 oom (last trial 15: 80 GB were needed)",
        f"Propose trial {number} (" + ("the last" if number == 39 else f"{40 - number} are left"),
    ):
        assert part in text, part
    mean, sd, proposal = (
        [float(v) for v in text.split(f"\n{label},")[1].split("\n")[0].split(",")[:4]]
        for label in ("mean", "sd", "proposal")
    )
    state = _state_before(study, number)
    assert sd == pytest.approx(list(state.standard_deviations), rel=0.05)
    assert proposal != mean
    cube = UnitCube(NUMERICAL, with_margin=False)
    assert mean == pytest.approx(list(cube.values(state.mean).values()), rel=1e-2)
    assert f"Generation {state.generation}," in text
    assert f"{state.sigma:.2g}." in text
    best = sorted((t for t in study.trials[:number] if t.value != 100), key=lambda t: t.values[0])
    named = text.split("# Best first\n")[1].split("\n")[0].split(", ")
    assert [name.split()[0] for name in named[:5]] == [f"#{t.number}" for t in best[:5]]
    table = text.split("# Trials")[1].split("\n\n")[0].split("\n")
    shown = {line.split(",")[0] for line in table}
    assert {str(n) for n in range(number - 10, number)} <= shown
    assert {str(t.number) for t in best[:5]} <= shown


def _state_before(study: optuna.Study, number: int) -> Any:
    trials = [t for t in study.trials[: number + 1] if "cma:optimizer:0" in t.system_attrs]
    return read_state(CmaEsSampler()._restore_optimizer(trials))


def test_from_turn_to_turn_the_prompt_is_the_same_up_to_new_rows() -> None:
    """What a prefix cache can serve, but for the few turns after which the table is cut back."""
    chat = SchemaChat()
    study = optuna.create_study(
        sampler=CentaurSampler(critic=None, chat=chat, seed=0, task="Tune it.")
    )
    study.optimize(objective, n_trials=130)
    parts = [request.text.partition("\n\n# Best first") for request in chat.requests]
    tables = [before for before, _, _ in parts]
    cut = 0
    for old, new in zip(tables, tables[1:]):
        if not new.startswith(old):
            cut += 1
            continue
        # What is added is new: three or four trials since the last turn.
        assert len(new[len(old) :].splitlines()) - 1 <= 4
    assert len(tables) >= 30 and 4 <= cut <= 130 / 20


def test_the_best_trials_are_in_the_table_however_old() -> None:
    chat = SchemaChat()
    study = optuna.create_study(sampler=CentaurSampler(critic=None, chat=chat, seed=0))
    study.optimize(objective, n_trials=130)
    for request in chat.requests:
        table = request.text.partition("# Trials")[2].partition("\n\n")[0]
        shown = {line.partition(",")[0] for line in table.splitlines()}
        best = request.text.partition("# Best first\n")[2].partition("\n")[0]
        assert {name.split()[0].removeprefix("#") for name in best.split(", ")} <= shown


@pytest.mark.llm
def test_the_embedded_model_answers_short_prompts_that_are_mostly_cached() -> None:
    space: dict[str, Any] = {f"log_{i}": FloatDistribution(1e-4, 1.0, log=True) for i in range(3)}
    space |= {f"float_{i}": FloatDistribution(0.0, 1.0) for i in range(4)}
    space["choice"] = CategoricalDistribution(["SSSL", "SSLL", "LLLL"])

    def many(trial: optuna.Trial) -> float:
        p = {name: trial._suggest(name, d) for name, d in space.items()}
        return sum(math.log10(v / 0.01) ** 2 if "log" in n else len(str(v)) for n, v in p.items())

    sampler = CentaurSampler(
        critic=None,
        chat=open_embedded(),
        n_startup_trials=14,
        task="Tune a network.",
        seed=0,
    )
    study = optuna.create_study(sampler=sampler)
    with only_llama_cpp():  # it tells what of a prompt came from its cache, OpenVINO doesn't
        study.optimize(many, n_trials=21)
    turns = [t for t in study.trials if sampler.is_llm_turn(t.number)]
    assert [t.user_attrs["source"] for t in turns] == ["llm"] * 2
    prompts = [t.user_attrs["llm_prompt_tokens"] / t.user_attrs["llm_attempts"] for t in turns]
    assert max(prompts) <= 2600
    cached = sum(t.user_attrs["llm_cached_tokens"] for t in turns[1:])
    assert cached / sum(t.user_attrs["llm_prompt_tokens"] for t in turns[1:]) >= 0.6


def test_two_thousand_trials_fit_into_the_budget() -> None:
    space = {f"parameter_{i}": FloatDistribution(0, 1) for i in range(14)}
    rng = np.random.default_rng(0)
    trials = [
        optuna.trial.create_trial(
            params=dict(zip(space, rng.random(14).tolist())),
            distributions=dict(space),
            value=float(rng.random()),
        )
        for _ in range(2000)
    ]

    def many(trial: optuna.Trial) -> float:
        return float(sum(trial._suggest(name, d) for name, d in space.items()))

    chat = SchemaChat()
    sampler = CentaurSampler(
        critic=None,
        chat=chat,
        llm_ratio=1,
        task="A long text. " * 500,
        max_prompt_tokens=2600,
        seed=0,
    )
    study = optuna.create_study(sampler=sampler)
    study.add_trials(trials)
    study.optimize(many, n_trials=3)
    assert sources(study)[-3:] == ["llm"] * 3
    assert all(chat.count_tokens(request.text) <= 2600 for request in chat.requests)


@pytest.mark.parametrize(
    ("model", "form"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "menu"),
        ("qwen3.5:0.8b", "menu"),
        ("Qwen/Qwen3.5-27B-FP8", "full"),
        ("meta-llama/Llama-3.1-8B-Instruct", "full"),
        ("claude-opus-4-6", "full"),
        ("gpt-5-mini", "full"),
    ],
)
def test_a_models_size_decides_what_it_is_asked_for(model: str, form: str) -> None:
    chat = SchemaChat()
    chat.model = model
    sampler = CentaurSampler(critic=None, chat=chat)
    assert sampler.reply_format(optuna.create_study(sampler=sampler)) == form


@pytest.mark.parametrize(("good", "form"), [(True, "full"), (False, "menu")])
def test_a_model_of_unknown_size_is_judged_by_its_first_answers(good: bool, form: str) -> None:
    def reply(request: Request) -> dict[str, Any]:
        best = {"lr": 0.02, "momentum": 0.9, "batch": 64, "depth": 6, "schedule": "cosine"}
        bad = {"lr": 1e-4, "momentum": 0.0, "batch": 8, "depth": 1, "schedule": "constant"}
        # No two answers may be the same.
        return {**(best if good else bad), "momentum": 0.3 + 0.01 * len(chat.requests)}

    chat = ScriptedChat(itertools.repeat(reply))
    sampler = CentaurSampler(critic=None, chat=chat, seed=0)
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=30)
    asked = ["a value for every parameter" in request.text for request in chat.requests]
    assert all(asked[:4])
    assert sampler.reply_format(study) == form
    assert all(asked[4:]) is good


@pytest.mark.parametrize(
    ("reply", "form"), [(ChatUnavailable("away"), "full"), ("no JSON", "menu")]
)
def test_an_outage_is_no_answer_by_which_a_model_is_judged(reply: Any, form: str) -> None:
    sampler = CentaurSampler(critic=None, chat=ScriptedChat(itertools.repeat(reply)), seed=0)
    study = optuna.create_study(sampler=sampler)
    while sources(study).count("llm-error") < 4:
        study.optimize(objective, n_trials=1)
    assert sampler.reply_format(study) == form


def test_prompts_and_replies_are_kept_as_artifacts(tmp_path: Path) -> None:
    store = optuna.artifacts.FileSystemArtifactStore(tmp_path)
    chat = SchemaChat()
    sampler = CentaurSampler(critic=None, chat=chat, seed=0, artifact_store=store)
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=14)
    kept = [path.read_text() for path in tmp_path.iterdir()]
    assert len(kept) == len(chat.requests) == 1
    assert chat.requests[0].text in kept[0]


def test_the_same_seed_gives_the_same_study_and_seed_0_is_a_seed() -> None:
    def run(seed: int) -> list[dict[str, Any]]:
        study = optuna.create_study(
            sampler=CentaurSampler(critic=None, chat=SchemaChat(), seed=seed)
        )
        study.optimize(objective, n_trials=20)
        return [t.params for t in study.trials]

    assert run(0) == run(0) != run(1)


def test_a_sampler_can_be_pickled() -> None:
    sampler = pickle.loads(pickle.dumps(CentaurSampler(critic=None, llm_ratio=0, seed=0)))
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=5)
