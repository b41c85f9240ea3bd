"""A prompt ends with what a run costs, what is left, what was tuned, and what stands still."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial
import pytest

from studies.code_agent.history import CodeHistory
from studies.code_agent.history import read_history
from studies.code_agent.outlook import format_outlook
from studies.code_agent.outlook import Outlook
from studies.code_agent.outlook import profile
from tests.studies.code_agent.conftest import Bench
from tests.studies.code_agent.conftest import finished
from tests.studies.scripted import edit
from tests.studies.scripted import ScriptedChat


def history(*told: tuple[str, float]) -> CodeHistory:
    trials = [finished(i, source, value) for i, (source, value) in enumerate(told)]
    return read_history(trials, min_gain=0.01)


def with_attrs(**attrs: Any) -> FrozenTrial:
    trial = finished(0, "startup", 1.0)
    trial.user_attrs.update(attrs)
    return trial


def test_a_profile_tells_time_by_phase_steps_and_memory() -> None:
    trial = with_attrs(
        training_seconds=10.02,
        total_seconds=14.1,
        measured_seconds=10.1,
        optimizer_seconds=1.26,
        steps=740,
        tokens_m=0.758,
        tokens_per_second=75_800,
        peak_memory_mb=310.4,
    )
    assert profile(trial) == (
        "10.0 s of training and 4.1 s for start and evaluation, optimizer 1.3 s, 740 steps,"
        " 0.76 M tokens, 75,800 tokens a second, 310 MB of memory at most"
    )
    assert profile(with_attrs()) == ""
    charged = with_attrs(training_seconds=14.1, total_seconds=14.1)
    assert profile(charged) == "14.1 s from start to end"


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (1, "This is the last trial."),
        (2, "2 trials are left, this one included, some 1 of them yours."),
        (9, "9 trials are left, this one included, some 2 of them yours."),
    ],
)
def test_the_trial_that_is_asked_for_is_counted_among_the_models(left: int, said: str) -> None:
    assert said in format_outlook(history(("startup", 1.0)), Outlook(left, tuning=0.75))


@pytest.mark.parametrize("source", ["llm", "tuner"])
def test_a_standstill_is_said(source: str) -> None:
    started = [("startup", 1.0), (source, 0.8)]
    said = format_outlook(history(*started, *[(source, 2.0)] * 4), Outlook(tuning=0.5))
    expected = {
        "llm": "None of your last 4 changes was kept",
        "tuner": "The last 4 trials of tuning gained nothing.",
    }
    assert expected[source] in said
    said = format_outlook(history(*started, *[(source, 2.0)] * 3), Outlook(tuning=0.5))
    assert expected[source] not in said


def test_the_constants_that_matter_most_are_named() -> None:
    shares = {"MATRIX_LR": 0.62, "DEPTH": 0.3, **{f"C{i}": 0.01 for i in range(8)}}
    said = format_outlook(history(("startup", 1.0)), Outlook(tuning=0.5, sensitivities=shares))
    assert (
        "these constants matter most: MATRIX_LR 62%, DEPTH 30%, C0 1%, C1 1%, C2 1%, C3 1%."
        in (said)
    )


def test_the_tuners_sensitivities_reach_the_prompt(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    chat = ScriptedChat([edit("flat", "    return 1.0", "    return 0.0"), *["no"] * 20])
    bench.run(chat, trials=10, tune=0.8)
    assert "these constants matter most: RATE " in chat.requests[-1].text
