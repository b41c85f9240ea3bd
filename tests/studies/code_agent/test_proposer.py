"""A change with a mistake in its code goes back to the model once, and costs no trial."""

from __future__ import annotations

import pytest

from samplers import Completion
from studies.code_agent.history import crashed_at_once
from studies.code_agent.proposer import describe
from tests.studies.code_agent.conftest import Bench
from tests.studies.code_agent.conftest import BEST_RATE
from tests.studies.code_agent.conftest import BETTER_RATE
from tests.studies.code_agent.conftest import BUG
from tests.studies.code_agent.conftest import MISTAKE
from tests.studies.code_agent.conftest import outcomes
from tests.studies.code_agent.conftest import without_times
from tests.studies.scripted import edit
from tests.studies.scripted import insert
from tests.studies.scripted import ScriptedChat


def test_a_mistake_is_mended_in_the_place_of_its_trial(bench: Bench) -> None:
    chat = ScriptedChat([MISTAKE, BETTER_RATE, BEST_RATE])
    history = bench.run(chat, trials=3)
    assert outcomes(history) == ["baseline", "kept", "kept"]
    asked = chat.requests[1].messages[-1]["content"]
    assert "Your change #1 ended with an error before it trained: NameError" in asked
    assert "0 trials are left" not in asked
    mended = history.steps[1].trial.user_attrs
    tokens = [chat.count_tokens(request.text) for request in chat.requests[:2]]
    assert mended["llm_prompt_tokens"] == sum(tokens)
    assert [s.trial.user_attrs["parent"] for s in history.proposals] == [0, 1]


def test_it_is_mended_once_and_also_after_the_last_trial(bench: Bench) -> None:
    other = insert("another mistake", "None + 1")
    history = bench.run(ScriptedChat([MISTAKE, other]), trials=2)
    assert outcomes(history) == ["baseline", "crash"]
    assert "TypeError" in history.steps[-1].trial.user_attrs["reason"]
    assert len(bench.trials()) == 3


def test_a_reply_that_does_not_mend_it_takes_its_place(bench: Bench) -> None:
    history = bench.run(ScriptedChat([MISTAKE, "no", "no"]), trials=2)
    assert outcomes(history) == ["baseline", "rejected"]


def test_a_model_that_only_thought_is_not_asked_the_same_again(bench: Bench) -> None:
    chat = ScriptedChat([Completion("", truncated=True, completion_tokens=16484)])
    history = bench.run(chat, trials=2)
    assert outcomes(history) == ["baseline", "rejected"]
    assert "spent 16484 tokens thinking" in history.steps[-1].trial.user_attrs["reason"]
    assert len(chat.requests) == 1


@pytest.mark.parametrize(
    "change",
    [BUG, edit("fail after training", "seconds = train()", "seconds = train() + nothing")],
)
def test_what_trained_or_says_nothing_against_the_code_is_a_trial(
    bench: Bench, change: str
) -> None:
    history = bench.run(ScriptedChat([change]), trials=2)
    assert outcomes(history) == ["baseline", "crash"]
    assert crashed_at_once(bench.trials()) is None


def test_killed_before_it_was_mended_a_study_asks_for_the_same(bench: Bench) -> None:
    whole = ScriptedChat([MISTAKE, BETTER_RATE])
    bench.run(whole, trials=2)
    (bench.folder / "other").mkdir()
    other = Bench(bench.folder / "other")
    with pytest.raises(AssertionError, match="none is left"):  # as abrupt as a kill
        other.run(ScriptedChat([MISTAKE]), trials=2)
    resumed = ScriptedChat([BETTER_RATE])
    assert outcomes(other.run(resumed, trials=2)) == ["baseline", "kept"]
    asked, expected = resumed.requests[0], whole.requests[1]
    assert without_times(asked.messages) == without_times(expected.messages)
    assert asked.seed == expected.seed


def test_the_first_line_of_prose_describes_a_reply_without_a_description() -> None:
    assert describe("Description: try\ta thing\n") == "try a thing"
    assert describe("I lower the rate.\n<<<<<<< SEARCH\n") == "I lower the rate."
    assert describe("<<<<<<< SEARCH\n") == "(not described)"
