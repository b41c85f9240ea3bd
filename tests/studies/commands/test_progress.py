"""The lines of trials, and the estimate of the time that a comparison still takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from optuna.distributions import FloatDistribution
from optuna.trial import create_trial
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest

from objective.testbed.metric import METRIC
from objective.testbed.metric import Metric
from samplers._trials.internals import repeating
from studies.budget import Budget
from studies.commands import progress
from studies.commands.progress import ComparisonProgress
from studies.commands.progress import describe
from studies.commands.progress import Progress
from studies.comparison import Standing
from studies.facts import common_result
from studies.spec import Editing
from studies.spec import Spec
from studies.spec import Where


LABELS = {"tpe-seed0": "tpe", "tpe-seed1": "tpe", "centaur-seed0": "centaur"}


def study_of(trials: int) -> Spec:
    return Spec(Where("sqlite://"), "s", "tpe", 0, Budget(trials=trials))


def run(state: str, evaluated: int) -> Standing:
    return Standing(state, evaluated=evaluated, left=100 - evaluated)


def ended(number: int, value: float, lr: float = 0.3, **attrs: Any) -> FrozenTrial:
    """Return a trial that succeeded, unless another status is given."""
    trial = create_trial(
        value=value,
        params={"lr": lr},
        distributions={"lr": FloatDistribution(0.0, 1.0)},
        user_attrs={"status": "ok", "accuracy": 0.25, "training_seconds": 1.5, **attrs},
    )
    trial.number = number
    return trial


def left(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    workers: int,
    events: Sequence[tuple[float, dict[str, Standing]]],
) -> str:
    """Return the estimate after these standings at these times."""
    now = 0.0
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now))
    shown = ComparisonProgress(LABELS, workers)
    for now, board in events:
        shown.update(board, ["tpe-seed0"])
    return capsys.readouterr().err.splitlines()[-1].rpartition("  ")[2]


def test_what_is_left_of_each_method_is_told_by_its_own_pace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = {name: run("running", 0) for name in ("tpe-seed0", "centaur-seed0")}
    board = {**begun, "tpe-seed1": run("missing", 0)}
    later = {"tpe-seed0": run("done", 100), "centaur-seed0": run("running", 5)}
    # 95 % of a run at 100 s for 5 %, and a run at 100 s, by two processes.
    events = [(0.0, board), (100.0, {**board, **later})]
    assert left(monkeypatch, capsys, 2, events) == "left 16:40"


def test_a_method_without_a_trial_counts_as_a_mean_one_and_a_failed_run_not_at_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    board = {name: run("missing", 0) for name in LABELS}
    there = {**board, "tpe-seed0": run("running", 50)}
    later = {**board, "tpe-seed0": run("done", 100), "tpe-seed1": run("failed", 0)}
    # Half a run took 60 s, what was there before the start none.
    assert left(monkeypatch, capsys, 2, [(10.0, there), (70.0, later)]) == "left 2:00"


def test_nothing_is_said_before_the_first_trial(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    board = {name: run("running", 0) for name in LABELS}
    assert left(monkeypatch, capsys, 3, [(0.0, board), (50.0, board)]) == "trials 0"


def test_values_that_do_not_reach_the_training_are_noticed_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = Progress(study_of(9), Metric("loss"), "conf.yaml")
    trials = [ended(number, 0.53217, lr=0.1 * (number + 1)) for number in range(5)]
    for done in range(6):
        shown.update(trials[:done])
        assert capsys.readouterr().err.count("loss 0.53217, so these seem not") == (done == 3)


def test_baselines_that_are_alike_tell_no_noise(capsys: pytest.CaptureFixture[str]) -> None:
    code = replace(study_of(9), method="karpathy-code")
    trials = [ended(n, 2.5, source="startup") for n in range(3)] + [ended(3, 2.6, source="llm")]
    shown = Progress(code, Metric("loss"), "train.py")
    for done in range(5):
        shown.update(trials[:done])
        said = (
            "warning: all baselines came to loss 2.5, so the noise between trainings isn't known"
        )
        assert capsys.readouterr().err.count(said) == (done == 4)
    given = replace(code, editing=Editing(min_gain=0.1))
    Progress(given, Metric("loss"), "train.py").update(trials)
    trials[1] = ended(1, 2.51, source="startup", train_seed=999)
    Progress(code, Metric("loss"), "train.py").update(trials)
    assert "warning" not in capsys.readouterr().err


def test_a_script_whose_trainings_cannot_be_stopped_early_is_noticed_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    trials = [ended(0, 9.0, status="crash"), ended(1, 0.5), ended(2, 0.6)]
    for rule, said in ((None, 0), ("median", 1)):
        shown = Progress(replace(study_of(9), prune=rule), Metric("loss"), "conf.yaml")
        for done in range(4):
            shown.update(trials[:done])
        assert capsys.readouterr().err.count("--prune median stops nothing") == said
    trials[1] = create_trial(value=0.5, user_attrs={"status": "ok"}, intermediate_values={10: 1})
    trials[1].number = 1
    shown = Progress(replace(study_of(9), prune="median"), Metric("loss"), "conf.yaml")
    for done in range(4):
        shown.update(trials[:done])
    assert "stops nothing" not in capsys.readouterr().err


def test_what_makes_most_trials_fail_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Progress(study_of(9), Metric("loss"), "conf.yaml")
    why = "ValueError: subsample must be in (0, 1]. Got"
    trials = [
        ended(n, 9.0, status="crash" if n % 4 else "ok", reason=f"{why} {n}.5") for n in range(9)
    ]
    for done in range(9):
        shown.update(trials[:done])
        said = f"warning: 5 of 7 trials failed alike: crash: {why} 6.5 (train.log of trial 6 in"
        assert capsys.readouterr().err.count(said) == (done == 7)
    resumed = Progress(study_of(9), Metric("loss"), "conf.yaml")
    resumed.update(trials)
    assert "failed alike" not in capsys.readouterr().err, "these may be mended"


@pytest.mark.parametrize(
    "last",
    [
        ended(2, 0.53217, lr=0.1),
        ended(2, 0.53218),
        ended(2, 0.53217, accuracy=0.5),
        ended(2, 0.53217, status="oom"),
    ],
)
def test_three_successes_are_alike_in_all_but_their_values_before_that_is_said(
    last: FrozenTrial,
) -> None:
    first = [ended(0, 0.53217, lr=0.1), ended(1, 0.53217, lr=0.2, training_seconds=2.5)]
    assert common_result([*first, last]) is None
    assert common_result([*first, ended(2, 0.53217)]) == 0.53217


@pytest.mark.parametrize("value", [11 / 12, 8.41, 97.53, 0.975, 0.1135])
def test_a_coarse_value_must_come_more_often_before_that_is_said(value: float) -> None:
    coarse = [ended(number, value, lr=0.1 * (number + 1)) for number in range(6)]
    assert common_result(coarse[:5]) is None
    assert common_result(coarse) == value
    assert common_result([*coarse, ended(6, value + 0.01)]) is None


def test_lines_of_trials_stand_in_columns_and_say_where_a_reason_was_cut() -> None:
    why = {"status": "oom", "reason": "out of memory " * 9, "source": "llm-screened"}
    failed = describe(create_trial(state=TrialState.FAIL, user_attrs=why), "loss")
    tiny = {"status": "ok", "source": "enqueued", "training_seconds": 1.0}
    first = create_trial(value=0.000031, user_attrs=tiny)
    first.number = 0
    ok = describe(first, "loss")
    assert failed.index("oom") == ok.index("ok ") and failed.endswith("…")
    assert ok.startswith("trial   0  baseline") and "loss 3.1e-05" in ok
    first.number, first.system_attrs = 1, repeating(0)
    assert describe(first, "loss").startswith("trial   1  baseline"), "after an interruption"
    first.user_attrs.update(source="startup")
    assert describe(first, "loss").startswith("trial   1  startup"), "a sampler's, at random"
    first.user_attrs.update(source_sha256="0" * 64)
    assert describe(first, "loss").startswith("trial   1  baseline"), "the code agent's"


def test_a_trial_that_is_repeated_is_done_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn: list[tuple[float, float | None]] = []
    monkeypatch.setattr(
        Progress, "show", lambda self, done, total, text: drawn.append((done, total))
    )
    failed = create_trial(state=TrialState.FAIL, user_attrs={"status": "crash"})
    ok = {"status": "ok", "training_seconds": 1.0}
    again = create_trial(value=1.0, user_attrs=ok, system_attrs=repeating(0))
    last = create_trial(value=1.0, user_attrs=ok)
    failed.number, again.number, last.number = 0, 1, 2
    shown = Progress(study_of(2), METRIC, "train.py")
    shown.update([])
    shown.update([failed, again])
    shown.update([failed, again, last])
    first, *others = capsys.readouterr().err.splitlines()
    assert "trial   0" in first and "crash" in first
    assert [line.split("|")[1].split("best")[0] for line in others] == [
        "  done 1/2  failed 0  ",
        "  done 2/2  failed 0  ",
    ]
    assert drawn == [(0, 2), (1, 2), (2, 2)]


def test_a_study_has_gained_by_successes_since_the_first_look() -> None:
    shown = Progress(study_of(9), METRIC, "train.py")
    earlier, failed, new = ended(0, 2.0), ended(1, 3.0, status="crash"), ended(2, 1.0)
    assert not shown.has_gained([earlier]), "there was no look yet"
    shown.update([earlier])
    assert not shown.has_gained([earlier, failed])
    shown.update([earlier, failed, new])
    assert shown.has_gained([earlier, failed, new])
