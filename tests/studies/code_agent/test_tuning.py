"""The tuner finds constants, learns from what a script was made of, and takes the turns it earns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from optuna.trial import create_trial
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest

from objective import Testbed
from objective.testbed.source import read_constants
from studies.code_agent.history import CodeHistory
from studies.code_agent.history import PROPOSAL
from studies.code_agent.history import read_history
from studies.code_agent.history import TUNER
from studies.code_agent.outlook import format_outlook
from studies.code_agent.outlook import Outlook
from studies.code_agent.sources import digest
from studies.code_agent.sources import Sources
from studies.code_agent.tuning import structure_of
from studies.code_agent.tuning import Tuner
from studies.code_agent.validator import fingerprint
from studies.storage.open import open_artifacts
from tests.studies.code_agent.conftest import Bench
from tests.studies.code_agent.conftest import outcomes
from tests.studies.scripted import edit
from tests.studies.scripted import ScriptedChat
from tests.toy_testbed import write_testbed


SCRIPT = """\
from prepare import evaluate_bpb
from prepare import TIME_BUDGET

RATE = 0.5
DECAY = 0.2
WIDTH = 64


def model(x):
    return x


print("---")
print(f"val_bpb: {evaluate_bpb(model(RATE))}")
"""
WIDER = SCRIPT.replace("    return x\n", "    return 2 * x * SCALE\n").replace(
    "WIDTH = 64", "WIDTH = 64\nSCALE = 0.3"
)


def loss(source: str) -> float:
    """What the scripts are worth; the edit gains 0.2, and more with its constant at 0.6."""
    value = {name: float(c.value or 0) for name, c in read_constants(source).items()}
    total = 1 + (value["RATE"] - 0.9) ** 2 + (value["DECAY"] - 0.05) ** 2
    if "SCALE" in value:
        total += (value["SCALE"] - 0.6) ** 2 - 0.29
    return total


class Desk:
    """Trials of scripts that are evaluated by a formula."""

    def __init__(self, folder: Path, source: str = SCRIPT, baselines: int = 1) -> None:
        bed = write_testbed(folder / "bed", train=source)
        self.testbed = Testbed.load(bed)
        self.sources = Sources(open_artifacts(f"sqlite:///{folder}/study.db"), source)
        self.trials: list[FrozenTrial] = []
        for _ in range(baselines):
            self.run(source, "startup")

    def tuner(self, **options: Any) -> Tuner:
        chosen = {"seed": 0, "share": 0.5, "edit_trials": 2, **options}
        return Tuner(self.testbed, self.sources, **chosen)

    def history(self, min_gain: float = 0.01) -> CodeHistory:
        return read_history(self.trials, min_gain)

    def run(self, source: str, by: str, parent: int = 0, value: float | None = None) -> None:
        self.sources.save(source)
        attrs: dict[str, Any] = {"source": by, "status": "ok", "source_sha256": digest(source)}
        attrs["fingerprint"] = fingerprint(source)
        if by != "startup":
            attrs["parent"] = parent
            attrs["parent_sha256"] = self.trials[parent].user_attrs["source_sha256"]
        trial = create_trial(value=loss(source) if value is None else value, user_attrs=attrs)
        trial.number = len(self.trials)
        self.trials.append(trial)

    def fail(self, source: str, parent: int = 0) -> None:
        self.run(source, TUNER, parent)
        self.trials[-1].state, self.trials[-1].values = TrialState.FAIL, None
        self.trials[-1].user_attrs["status"] = "oom"

    def tune(self, n: int, tuner: Tuner | None = None) -> None:
        tuner = tuner or self.tuner()
        for _ in range(n):
            tuned = tuner.propose(self.history(), len(self.trials))
            assert tuned is not None
            self.run(tuned.source, TUNER, tuned.parent.number)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_scripts_that_differ_in_constants_alone_are_one_structure() -> None:
    other = SCRIPT.replace("RATE = 0.5", "RATE = 1").replace("WIDTH = 64", "WIDTH = 2**7  # wide")
    assert structure_of(other) == structure_of(SCRIPT)
    assert structure_of(WIDER) != structure_of(SCRIPT)


def test_tuning_gets_near_the_best_constants(desk: Desk) -> None:
    assert desk.history().best_value == pytest.approx(1.1825)
    desk.tune(25)
    assert desk.history().best_value == pytest.approx(1.0, abs=0.02)


def test_only_values_of_constants_change(desk: Desk) -> None:
    desk.tune(5)
    for trial in desk.trials:
        source = desk.sources.load(trial.user_attrs["source_sha256"])
        assert structure_of(source) == structure_of(SCRIPT)


def test_a_constant_is_changed_only_where_that_shows(tmp_path: Path) -> None:
    desk = Desk(tmp_path, SCRIPT.replace("RATE = 0.5", "RATE = 0.03"))
    for number in range(30):
        tuned = desk.tuner(seed=number).propose(desk.history(), 1)
        assert tuned is not None
        for change in tuned.description.split(", "):
            was, _, now = change.partition(" ")[2].partition(" -> ")
            assert was != now


def test_nothing_is_proposed_twice_and_a_resumed_study_proposes_the_same(desk: Desk) -> None:
    tuner = desk.tuner()
    for _ in range(8):
        tuned, again = (t.propose(desk.history(), len(desk.trials)) for t in (tuner, desk.tuner()))
        assert tuned is not None and tuned == again
        desk.run(tuned.source, TUNER, tuned.parent.number)
    prints = [t.user_attrs["fingerprint"] for t in desk.trials]
    assert len(set(prints)) == len(prints)


def test_what_runs_already_is_not_proposed_by_another_worker(desk: Desk) -> None:
    first = desk.tuner().propose(desk.history(), len(desk.trials))
    assert first is not None
    desk.run(first.source, TUNER)
    desk.trials[-1].state, desk.trials[-1].values = TrialState.RUNNING, None
    second = desk.tuner().propose(desk.history(), len(desk.trials))
    assert second is not None and second.source != first.source


def test_an_edit_begins_with_what_is_known_of_its_parent(desk: Desk) -> None:
    desk.tune(12)
    best = desk.history().best
    assert best is not None
    child = desk.sources.load(best.user_attrs["source_sha256"])
    child = child.replace("    return x\n", "    return 2 * x * SCALE\n").replace(
        "\n\n\ndef model", "\nSCALE = 0.3\n\n\ndef model"
    )
    desk.run(child, PROPOSAL, best.number)
    history = desk.history()
    assert history.steps[-1].outcome == "kept"
    trials = desk.tuner()._trials(history, structure_of(child), ["RATE", "SCALE"])
    # All of the parent's trials, by how much better the child is, and the child's own.
    assert len(trials.configurations) == len(desk.trials)
    assert loss(child) in list(trials.values)
    assert [v - loss(child) for v in trials.values[1:]] == pytest.approx(
        [t.values[0] - best.values[0] for t in desk.trials[:-1]]
    )
    assert {c["SCALE"] for c in trials.configurations} == {0.3}
    desk.tune(8)
    assert loss(child) - (desk.history().best_value or 9) > 0.02


def test_failures_count_as_failures(desk: Desk) -> None:
    desk.fail(SCRIPT.replace("WIDTH = 64", "WIDTH = 256"))
    trials = desk.tuner()._trials(desk.history(), structure_of(SCRIPT), ["WIDTH"])
    assert list(trials.failed) == [False, True]


def test_a_trial_that_trained_for_longer_is_no_model_for_others(desk: Desk) -> None:
    desk.trials[0].user_attrs["measured_seconds"] = 10.0
    desk.run(SCRIPT.replace("WIDTH = 64", "WIDTH = 256"), TUNER, value=0.5)
    desk.trials[-1].user_attrs["measured_seconds"] = 20.0
    trials = desk.tuner()._trials(desk.history(), structure_of(SCRIPT), ["WIDTH"])
    assert outcomes(desk.history()) == ["baseline", "overtime"]
    assert list(trials.failed) == [False, True]


def test_of_a_doubted_gain_nothing_is_known_yet(desk: Desk) -> None:
    desk.run(SCRIPT.replace("WIDTH = 64", "WIDTH = 256"), TUNER, value=0.01)
    trials = desk.tuner()._trials(desk.history(), structure_of(SCRIPT), ["WIDTH"])
    assert outcomes(desk.history()) == ["baseline", "doubted"]
    assert list(trials.failed) == [False, False] and list(trials.running) == [False, True]


def test_a_value_of_the_models_beyond_the_range_is_kept_and_searched_around(desk: Desk) -> None:
    desk.run(SCRIPT.replace("WIDTH = 64", "WIDTH = 999"), PROPOSAL, value=1.0)
    widths = []
    for _ in range(6):
        tuned = desk.tuner().propose(desk.history(), len(desk.trials))
        assert tuned is not None
        desk.run(tuned.source, TUNER, tuned.parent.number, value=2.0)
        widths.append(read_constants(tuned.source)["WIDTH"].value)
    assert 999 in widths


def test_the_model_is_told_which_constants_are_left_to_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path, SCRIPT.replace("RATE = 0.5", "RATE = 0.5\nSHIFT_PIXELS = 0\nSEED = 1"))
    untuned = desk.tuner().untuned(desk.history())
    assert untuned == ["SHIFT_PIXELS"]
    said = format_outlook(desk.history(), Outlook(9, tuning=0.5, untuned=untuned))
    assert "best script between your changes, but not SHIFT_PIXELS (0 trials" in said


def test_what_the_testbed_leaves_out_is_not_tuned(tmp_path: Path) -> None:
    (tmp_path / "bed").mkdir()
    (tmp_path / "bed" / "search_space.toml").write_text("[WIDTH]\ntune = false\n")
    desk = Desk(tmp_path)
    desk.tune(6)
    assert "WIDTH" not in desk.tuner()._space(desk.history(), structure_of(SCRIPT))


def test_turns_alternate_while_nobody_gains(desk: Desk) -> None:
    turns = []
    tuner = desk.tuner()
    for i in range(12):
        is_tuner = tuner.is_turn(desk.history())
        turns.append(is_tuner)
        source = SCRIPT.replace("RATE = 0.5", f"RATE = {0.5 + i / 1000}")
        desk.run(source, TUNER if is_tuner else PROPOSAL, value=9.0)
    assert turns == [False, True] * 6
    assert not any(desk.tuner(share=0.0).is_turn(desk.history()) for _ in range(3))


@pytest.mark.parametrize("winner", [TUNER, PROPOSAL])
def test_turns_go_where_gains_come_from(desk: Desk, winner: str) -> None:
    best = loss(SCRIPT)
    for i in range(12):
        by = (PROPOSAL, TUNER)[i % 2]
        best -= 0.1 if by == winner else 0
        source = SCRIPT.replace("RATE = 0.5", f"RATE = {0.5 + i / 1000}")
        desk.run(source, by, value=best if by == winner else 9.0)
    share = desk.tuner().share(desk.history())
    assert share == pytest.approx(0.75 if winner == TUNER else 0.25)


def test_the_constants_of_an_edit_that_was_nearly_better_are_tuned_first(desk: Desk) -> None:
    desk.run(WIDER, PROPOSAL, value=loss(SCRIPT) + 0.005)
    tuner = desk.tuner(share=0.01)
    assert tuner.is_turn(desk.history())
    tuned = tuner.propose(desk.history(), len(desk.trials))
    assert tuned is not None and structure_of(tuned.source) == structure_of(WIDER)
    for value in (9.0, 8.0):
        desk.run(
            tuned.source.replace("DECAY = ", "DECAY = 0.01 * "), TUNER, tuned.parent.number, value
        )
    assert not tuner.is_turn(desk.history())


def test_of_such_an_edit_only_what_it_touches_is_tuned(desk: Desk) -> None:
    desk.run(WIDER, PROPOSAL, value=loss(SCRIPT) + 0.005)
    for _ in range(2):
        desk.tune(1, desk.tuner(edit_trials=9))
        tuned = read_constants(desk.sources.load(desk.trials[-1].user_attrs["source_sha256"]))
        assert tuned["SCALE"].value != 0.3
        assert (tuned["RATE"].value, tuned["DECAY"].value) == (0.5, 0.2)


def test_an_edit_that_touches_no_constant_is_not_tuned_for_itself(desk: Desk) -> None:
    desk.run(SCRIPT.replace("return x", "return x + 0"), PROPOSAL, value=loss(SCRIPT) + 0.005)
    assert not desk.tuner(share=0.01).is_turn(desk.history())


def test_an_edit_that_is_far_behind_is_left(desk: Desk) -> None:
    desk.run(WIDER, PROPOSAL, value=loss(SCRIPT) + 0.5)
    assert not desk.tuner(share=0.01).is_turn(desk.history())


@pytest.mark.parametrize("source", [SCRIPT.replace("RATE", "rate").replace("DECAY", "decay")])
def test_a_script_without_new_constants_leaves_the_turn_to_the_model(
    tmp_path: Path, source: str
) -> None:
    desk = Desk(tmp_path)
    bare = source.replace("WIDTH = 64\n", "")
    desk.run(bare, PROPOSAL, value=1.0)
    assert desk.tuner().propose(desk.history(), len(desk.trials)) is None


def test_a_smaller_gain_is_enough_for_constants(desk: Desk) -> None:
    for by, gain in ((PROPOSAL, 0.006), (TUNER, 0.006), (TUNER, 0.004)):
        best = desk.history().best_value
        assert best is not None
        source = SCRIPT.replace("RATE = 0.5", f"RATE = {0.5 + gain + len(desk.trials)}")
        desk.run(source, by, value=best - gain)
    assert outcomes(desk.history())[1:] == ["reverted", "kept", "reverted"]


def test_a_study_tunes_between_edits_and_says_so_to_the_model(bench: Bench) -> None:
    steeper = edit("a steeper schedule", "    return 1.0", "    return 2.0")
    flat = edit("no schedule", "    return 1.0", "    return 0.0")
    chat = ScriptedChat([steeper, *[flat] * 9])
    history = bench.run(chat, trials=6, tune=0.5)
    by = [s.trial.user_attrs["source"] for s in history.steps]
    assert by[:3] == ["startup", PROPOSAL, TUNER] and by.count(PROPOSAL) > 1
    asked = chat.requests[1].messages[-1]["content"]
    assert "trials are left, this one included, some" in asked
    assert "An optimizer tunes the upper-case constants" in asked
    tuned = history.tuned[0].trial
    assert tuned.user_attrs["parent"] == 0
    assert "return 1.0" in bench.artifact(tuned, "train.py")
    assert "->" in tuned.user_attrs["description"]


def test_a_study_that_is_resumed_goes_on_as_it_would_have(tmp_path: Path) -> None:
    def changes(folder: str, *stops: int) -> list[Callable[..., Any]]:
        (tmp_path / folder).mkdir()
        bench = Bench(tmp_path / folder)
        chat = ScriptedChat([edit("flat", "    return 1.0", "    return 0.0")] * 9)
        for trials in stops:
            bench.run(chat, trials=trials, tune=0.8)
        return [t.user_attrs["source_sha256"] for t in bench.trials() if t.values]

    whole, parts = changes("a", 6), changes("b", 2, 4, 6)
    assert len(whole) > 3 and whole == parts
