"""Several ideas of one reply are run in the order of their differences, each when it fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.trial import create_trial
from optuna.trial import FrozenTrial
import pytest

from studies.code_agent.history import PROPOSAL
from studies.code_agent.ideas import order
from studies.code_agent.ideas import waiting
from studies.code_agent.ideas import words
from studies.errors import Misuse
from studies.spec import Editing
from tests.studies.code_agent.conftest import Bench
from tests.studies.code_agent.conftest import BETTER_RATE
from tests.studies.code_agent.conftest import outcomes
from tests.studies.scripted import edit
from tests.studies.scripted import ScriptedChat


FLAT = edit("flat", "    return 1.0", "    return 0.5")
LINEAR = edit("linear", "    return abs(x)", "    return 0.5 * abs(x)")
SAME_RATE = edit("another rate", "RATE = 0.5", "RATE = 0.4")


def trial(number: int, attrs: Mapping[str, Any]) -> FrozenTrial:
    made = create_trial(value=1.0, user_attrs=dict(attrs))
    made.number = number
    return made


def test_the_idea_that_is_most_unlike_what_was_tried_comes_first() -> None:
    tried = [words(["-RATE = 0.5", "+RATE = 0.4"])]
    ideas = [words(["+RATE = 0.3"]), words(["+RATE = 0.3", "+DECAY = 1"]), words(["+x = gelu(x)"])]
    assert order(ideas, tried) == [2, 1, 0]


def test_ideas_that_are_equally_new_keep_the_models_order() -> None:
    assert order([words(["a"]), words(["b"]), words(["c"])], []) == [0, 1, 2]
    assert order([], []) == []


def test_an_idea_waits_until_a_trial_is_made_of_it_or_it_is_told_to_be_useless() -> None:
    given = trial(1, {"ideas_sha256": ["a", "b", "c"]})
    assert waiting([given]) == ["a", "b", "c"]
    made = trial(2, {"idea_sha256": "b"})
    assert waiting([given, made]) == ["a", "c"]
    assert waiting([given, made, trial(3, {"dropped_sha256": ["a", "c"]})]) == []


def test_all_ideas_of_one_reply_are_run_with_one_request(bench: Bench) -> None:
    chat = ScriptedChat([BETTER_RATE + SAME_RATE + FLAT])
    history = bench.run(chat, trials=3, proposals=3)
    assert "Reply with 3 changes" in chat.last_prompt
    assert outcomes(history) == ["baseline", "kept", "kept"]
    done = [s.trial.user_attrs for s in history.proposals]
    # Equally new all of them, then the one that is unlike the first.
    assert [attrs["description"] for attrs in done] == ["lower the rate", "flat"]
    assert "llm_prompt_tokens" in done[0] and "llm_prompt_tokens" not in done[1]
    assert len(chat.requests) == 1


def test_an_idea_that_fits_no_more_is_told_to_the_model_once(bench: Bench) -> None:
    chat = ScriptedChat([BETTER_RATE + SAME_RATE + FLAT, LINEAR, "no", "no"])
    history = bench.run(chat, trials=5, proposals=3)
    assert [s.trial.user_attrs.get("description") for s in history.proposals[:3]] == [
        "lower the rate",
        "flat",
        "linear",
    ]
    asked = [request.messages[-1]["content"] for request in chat.requests]
    assert "Your idea 'another rate' fits no more: Block 1 of 1 matches no lines" in asked[1]
    assert "fits no more" not in asked[2]


def test_ideas_that_wait_are_there_after_a_resume(bench: Bench) -> None:
    bench.run(ScriptedChat([FLAT + LINEAR + BETTER_RATE]), trials=2, proposals=3)
    history = bench.run(ScriptedChat([]), trials=4, proposals=3)
    assert outcomes(history)[1:] == ["kept"] * 3
    assert {s.trial.user_attrs["source"] for s in history.proposals} == {PROPOSAL}


def test_several_ideas_need_blocks() -> None:
    with pytest.raises(Misuse, match="--proposals must be 1 with --agent-command"):
        Editing(proposals=2, command="true")
