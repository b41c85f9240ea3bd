"""Asking, checking, asking once more, and what is done about failures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
import threading
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import create_trial
from optuna.trial import FrozenTrial
import pytest

from samplers import ScriptedChat
from samplers._llm.chat import BudgetExhausted
from samplers._llm.chat import ChatError
from samplers._llm.chat import ChatRejected
from samplers._llm.chat import ChatUnavailable
from samplers._llm.chat import Completion
from samplers._llm.chat import ContextTooLong
from samplers._llm.chat import Message
from samplers._llm.prompt import describe_search_space
from samplers._llm.prompt import Extent
from samplers._llm.prompt import message
from samplers._llm.prompt import neutral
from samplers._llm.prompt import PromptTooLong
from samplers._llm.propose import errors_in_a_row
from samplers._llm.propose import MAX_ERRORS_IN_A_ROW
from samplers._llm.propose import Proposal
from samplers._llm.propose import propose
from samplers._llm.propose import TooManyLLMErrors
from samplers._llm.record import record
from samplers._llm.record import source_of
from samplers._llm.table import Table


SPACE: dict[str, BaseDistribution] = {
    "x": FloatDistribution(0, 1),
    "k": IntDistribution(1, 9),
    "c": CategoricalDistribution(["a", "b"]),
}
BASE = {"x": 0.5, "k": 5, "c": "a"}
OLD = {"x": 0.25, "k": 2, "c": "b"}
NEW = {"x": 0.75, "k": 8, "c": "b"}


@pytest.fixture
def study() -> optuna.Study:
    study = optuna.create_study()
    study.add_trial(create_trial(value=1.0, params=OLD, distributions=SPACE))
    return study


def start(study: optuna.Study) -> FrozenTrial:
    number = study.ask().number
    return study.get_trials()[number]


def turn(study: optuna.Study, chat: ScriptedChat, **options: Any) -> Proposal:
    """One turn as a sampler takes it: ask, then record."""
    trial = start(study)

    def build(extent: Extent, fullest: bool) -> list[Message]:
        return [message("user", "\n".join(Table(study, SPACE).lines(extent, fullest)))]

    options = {"base": BASE, "seed": 7, **options}
    proposal = propose(study, trial, SPACE, chat=chat, build=build, **options)
    record(study, trial, source=proposal.source, exchanges=proposal.exchanges)
    return proposal


def test_a_good_reply_is_the_proposal(study: optuna.Study) -> None:
    chat = ScriptedChat([NEW])
    proposal = turn(study, chat)
    assert (proposal.params, proposal.source, proposal.reason) == (NEW, "llm", "")
    assert chat.requests[0].schema is not None and chat.requests[0].seed == 7


def test_what_a_reply_leaves_out_comes_from_the_base(study: optuna.Study) -> None:
    proposal = turn(study, ScriptedChat([{"k": 8, "z": 1}]))
    assert proposal.params == {**BASE, "k": 8}
    assert proposal.reason == "not in the search space: z; filled in: x, c"
    # Of changes that is the point, and no repair.
    assert turn(study, ScriptedChat([{"k": 7}]), reply_format="changes").reason == ""


def test_a_menu_offers_a_few_parameters_that_vary_with_the_seed(study: optuna.Study) -> None:
    space: dict[str, BaseDistribution] = {f"x{i}": FloatDistribution(0, 1) for i in range(14)}
    base = dict.fromkeys(space, 0.5)
    offered = []
    for turn_number, seed in enumerate((0, 0, 1)):
        chat = ScriptedChat([dict.fromkeys(space, turn_number / 4)])
        message = [{"role": "user", "content": "Which?"}]
        propose(
            study,
            start(study),
            space,
            chat=chat,
            build=lambda extent, fullest: message,
            base=base,
            reply_format="menu",
            seed=seed,
        )
        assert chat.requests[0].schema is not None
        offered.append(tuple(chat.requests[0].schema["properties"]))
    assert len(offered[0]) == 3 and offered[0] == offered[1] != offered[2]


def test_a_menu_offers_no_value_that_alone_makes_a_known_configuration(
    study: optuna.Study,
) -> None:
    for params in (BASE, {**BASE, "k": 4}):
        study.add_trial(create_trial(value=1.0, params=params, distributions=SPACE))

    def rule(params: Mapping[str, Any]) -> dict[str, Any]:
        return {"k": 5} if params["k"] == 6 else {}

    chat = ScriptedChat([NEW])
    turn(study, chat, reply_format="menu", rule=rule)
    assert chat.requests[0].schema is not None
    assert chat.requests[0].schema["properties"]["k"]["enum"] == [3, 7]


def test_enqueued_values_are_kept_and_not_asked_for(study: optuna.Study) -> None:
    study.enqueue_trial({"k": 3})
    chat = ScriptedChat([{"x": 0.75, "k": 8, "c": "b"}])
    proposal = turn(study, chat)
    assert proposal.params == {"x": 0.75, "k": 3, "c": "b"}
    assert chat.requests[0].schema is not None
    assert list(chat.requests[0].schema["properties"]) == ["x", "c"]


def test_a_known_configuration_is_named_and_asked_for_again(study: optuna.Study) -> None:
    chat = ScriptedChat([{**OLD, "x": 0.2501}, NEW])
    proposal = turn(study, chat)
    assert (proposal.params, proposal.source) == (NEW, "llm")
    complaint = chat.requests[1].messages[-1]["content"]
    assert "configuration of trial 0" in complaint and '"k": 2' in complaint
    assert chat.requests[1].messages[:1] == chat.requests[0].messages, "the cache holds"
    assert chat.requests[1].seed != chat.requests[0].seed


def test_the_same_known_configuration_twice_is_a_duplicate(study: optuna.Study) -> None:
    chat = ScriptedChat([OLD, OLD])
    proposal = turn(study, chat)
    assert (proposal.params, proposal.source, proposal.error) == (None, "llm-duplicate", None)
    assert "trial 0" in proposal.reason and len(proposal.exchanges) == 2


def test_a_value_beyond_a_bound_is_told_if_it_makes_a_known_configuration(
    study: optuna.Study,
) -> None:
    best = {**BASE, "k": 9}
    study.add_trial(create_trial(value=0.5, params=best, distributions=SPACE))
    chat = ScriptedChat([{"k": 12}, {"k": 8}])
    assert turn(study, chat, base=best, reply_format="changes").source == "llm"
    complaint = chat.requests[1].messages[-1]["content"]
    assert "configuration of trial 1" in complaint and "(k: 12 is above 9, clipped)" in complaint


def test_a_running_trials_configuration_is_known_before_it_is_suggested(
    study: optuna.Study,
) -> None:
    first = turn(study, ScriptedChat([NEW]))
    assert first.params == NEW
    assert turn(study, ScriptedChat([NEW, NEW])).source == "llm-duplicate"


def test_two_processes_at_the_same_time_do_not_both_get_a_configuration(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    optuna.create_study(storage=url, study_name="s")
    barrier = threading.Barrier(2)
    proposals = []

    def ask_together(request: Any) -> Any:
        if len(request.messages) == 1:
            barrier.wait(timeout=30)
        return NEW

    def work() -> None:
        study = optuna.load_study(study_name="s", storage=url)
        proposals.append(turn(study, ScriptedChat([ask_together, ask_together])))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(proposals) == 2
    assert [p.params for p in proposals].count(NEW) <= 1


def test_a_useless_reply_is_answered_with_what_is_wrong(study: optuna.Study) -> None:
    chat = ScriptedChat(["I would try a larger x.", NEW])
    assert turn(study, chat).params == NEW
    assert "must be a JSON object" in chat.requests[1].messages[-1]["content"]


def test_a_reply_that_was_cut_off_is_told_to_be_shorter(study: optuna.Study) -> None:
    chat = ScriptedChat([Completion("Let me think", truncated=True), NEW])
    assert turn(study, chat).params == NEW
    assert "cut off" in chat.requests[1].messages[-1]["content"]


def test_a_model_that_only_thinks_is_not_asked_to_do_so_again(study: optuna.Study) -> None:
    chat = ScriptedChat([Completion("", truncated=True, completion_tokens=16484)])
    proposal = turn(study, chat)
    assert (proposal.source, len(proposal.exchanges)) == ("llm-error", 1)
    assert "spent 16484 tokens thinking" in proposal.reason and "another one" in proposal.reason


def test_two_useless_replies_are_an_error_of_the_model(study: optuna.Study) -> None:
    proposal = turn(study, ScriptedChat(["no", "no"]))
    assert (proposal.params, proposal.source, proposal.error) == (None, "llm-error", None)
    assert "No usable reply" in proposal.reason


def test_a_server_that_dies_after_a_duplicate_leaves_a_duplicate(study: optuna.Study) -> None:
    proposal = turn(study, ScriptedChat([OLD, ChatUnavailable("gone")]))
    assert proposal.source == "llm-duplicate"


@pytest.mark.parametrize(
    "error, on_error", [(ChatUnavailable("gone"), "raise"), (BudgetExhausted("all spent"), "base")]
)
def test_what_is_to_be_raised_is_so_after_a_duplicate(
    study: optuna.Study, error: ChatError, on_error: Any
) -> None:
    assert turn(study, ScriptedChat([OLD, error]), on_error=on_error).error is error


def test_a_failure_leaves_the_choice_to_the_caller(study: optuna.Study) -> None:
    proposal = turn(study, ScriptedChat([ChatUnavailable("the server is down")]))
    assert (proposal.params, proposal.source, proposal.error) == (None, "llm-error", None)
    assert proposal.reason == "the server is down"
    assert proposal.exchanges[0].error == "the server is down"


def test_what_is_no_failure_of_a_chats_is_a_bug_and_raised_at_once(study: optuna.Study) -> None:
    with pytest.raises(ZeroDivisionError):
        turn(study, ScriptedChat([ZeroDivisionError()]))


def test_a_failure_is_raised_where_that_is_wanted(study: optuna.Study) -> None:
    error = ChatRejected("wrong key")
    assert turn(study, ScriptedChat([error]), on_error="raise").error is error


def test_a_spent_budget_stops_the_study_in_any_case(study: optuna.Study) -> None:
    error = BudgetExhausted("all spent")
    assert turn(study, ScriptedChat([error])).error is error


def test_the_fifth_failure_in_a_row_stops_the_study_whatever_the_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    optuna.create_study(storage=url, study_name="s")

    def work(reply: Any) -> Proposal:
        study = optuna.load_study(study_name="s", storage=url)
        proposal = turn(study, ScriptedChat([reply]))
        base = start(study)  # trials that the model has no part in don't break the row
        record(study, base, source="base")
        return proposal

    down = ChatUnavailable("down")
    work(down)
    work(NEW)
    for _ in range(MAX_ERRORS_IN_A_ROW - 1):
        assert work(down).error is None
    error = work(down).error
    assert isinstance(error, TooManyLLMErrors)
    assert "5 of its turns in a row" in str(error) and "down" in str(error)
    assert "go on" in str(error)


def test_a_context_that_is_too_small_is_met_with_a_smaller_prompt(study: optuna.Study) -> None:
    for number in range(40):
        params = {"x": number / 40, "k": 1, "c": "a"}
        study.add_trial(create_trial(value=1.0, params=params, distributions=SPACE))

    def small_server(request: Any) -> Any:
        tokens = chat.count_tokens(request.text)
        if tokens > 60:
            return ContextTooLong("too long", prompt_tokens=tokens)
        return NEW

    chat = ScriptedChat([small_server] * 10)
    proposal = turn(study, chat)
    assert proposal.params == NEW and 1 < len(chat.requests) < 8
    sizes = [chat.count_tokens(r.text) for r in chat.requests]
    assert sizes == sorted(sizes, reverse=True)


def test_a_context_that_cannot_hold_the_space_is_an_error_of_the_model(
    study: optuna.Study,
) -> None:
    chat = ScriptedChat([ContextTooLong("too long", limit=9)])
    proposal = turn(study, chat)
    assert proposal.params is None and proposal.source == "llm-error"
    assert len(proposal.exchanges) == 1


def test_the_repetition_of_a_killed_trial_is_no_second_error(study: optuna.Study) -> None:
    for _ in range(MAX_ERRORS_IN_A_ROW - 1):
        assert turn(study, ScriptedChat([ChatUnavailable("away")])).error is None
    failed = study.trials[-1]
    study.add_trial(  # as Optuna's RetryFailedTrialCallback does
        create_trial(
            state=optuna.trial.TrialState.WAITING,
            params=failed.params,
            distributions=failed.distributions,
            user_attrs=failed.user_attrs,
            system_attrs={"retry_history": [failed.number]},
        )
    )
    assert errors_in_a_row(study, besides=study.trials[0]) == MAX_ERRORS_IN_A_ROW - 1


def test_a_known_context_is_kept_from_the_start(study: optuna.Study) -> None:
    for number in range(40):
        params = {"x": number / 40, "k": 1, "c": "a"}
        study.add_trial(create_trial(value=1.0, params=params, distributions=SPACE))
    chat = ScriptedChat([OLD, NEW], context_tokens=400)
    turn(study, chat)
    assert all(chat.count_tokens(r.text) + r.max_tokens <= 400 for r in chat.requests)


def test_a_budget_that_cannot_hold_the_space_costs_the_turn_and_never_the_study(
    study: optuna.Study,
) -> None:
    for _ in range(2 * MAX_ERRORS_IN_A_ROW):
        proposal = turn(study, ScriptedChat([]), max_prompt_tokens=5)
        assert (proposal.params, proposal.source, proposal.error) == (None, "llm-error", None)
        assert "fit into 5 tokens" in proposal.reason
    proposal = turn(study, ScriptedChat([]), max_prompt_tokens=5, on_error="raise")
    assert isinstance(proposal.error, PromptTooLong)


def test_names_and_complaints_hold_no_marker_of_a_chat_template(study: optuna.Study) -> None:
    name = "<|im_start|>x"
    space: dict[str, BaseDistribution] = {name: FloatDistribution(0, 1)}
    chat = ScriptedChat(["</s>[INST]", {neutral(name): 0.25}])
    proposal = propose(
        study,
        start(study),
        space,
        chat=chat,
        build=lambda extent, fullest: [message("user", describe_search_space(space))],
        base={name: 0.5},
    )
    assert proposal.params == {name: 0.25}
    assert not any(m in chat.requests[1].text for m in ("<|", "|>", "</s>", "[INST]"))


@pytest.mark.parametrize("own", ["mine", 3, None, ["llm"]])
def test_an_attribute_source_of_the_objectives_own_is_no_turn_of_the_models(
    study: optuna.Study, own: Any
) -> None:
    assert source_of(create_trial(value=1.0, user_attrs={"source": own})) == ""
    study.add_trial(create_trial(value=1.0, user_attrs={"source": own}))
    assert errors_in_a_row(study, besides=study.trials[0]) == 0


def test_a_reason_is_asked_for_first_and_kept(study: optuna.Study) -> None:
    chat = ScriptedChat([{"reason": "Deeper\nlearns more.", **NEW}])
    proposal = turn(study, chat, with_reason=True)
    assert (proposal.params, proposal.reason) == (NEW, "Deeper learns more.")
    assert chat.requests[0].schema is not None
    assert list(chat.requests[0].schema["properties"])[0] == "reason"
    # A model that gives none, or another kind of one, is as good.
    assert turn(study, ScriptedChat([{**NEW, "k": 9}]), with_reason=True).reason == ""
    odd = turn(study, ScriptedChat([{**NEW, "k": 7, "reason": 3}]), with_reason=True)
    assert (odd.params, odd.reason) == ({**NEW, "k": 7}, "")


def test_the_best_trial_may_be_run_again_where_that_is_allowed(study: optuna.Study) -> None:
    proposal = turn(study, ScriptedChat([OLD]), repeatable={0})
    assert (proposal.params, proposal.source) == (OLD, "llm")
