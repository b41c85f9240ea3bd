"""Comparisons on a testbed that only sleeps, on a surrogate of it, and with a scripted model."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import replace
import json
import os
from pathlib import Path
import shlex
import signal
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import create_trial
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
from optuna_dashboard import get_note
import pytest

from objective.testbed.interface import Interface
from studies.budget import Budget
from studies.budget import is_evaluated
from studies.commands.work.compare import advice
from studies.commands.work.compare import default_workers
from studies.commands.work.compare import planned
from studies.comparison import Comparison
from studies.comparison import in_random_order
from studies.comparison import label
from studies.comparison import run_comparison
from studies.comparison import Standing
from studies.facts import run_state
from studies.spec import AGENT_TRIALS
from studies.spec import memory_share
from studies.spec import Spec
from studies.spec import Where
from studies.study import run_study
from studies.workers.processes import Event
from studies.workers.processes import Job
from tests.samplers._llm.conftest import Answer
from tests.samplers._llm.conftest import LoopbackServer
from tests.samplers._llm.conftest import reply
from tests.studies.conftest import Cli
from tests.studies.conftest import Gate
from tests.studies.conftest import needs_sandbox
from tests.studies.conftest import status_after
from tests.studies.scripted import edit
from tests.studies.scripted import make_testbed


BASELINE = {"DEPTH": 4, "LR": 0.01, "PATTERN": "ab"}


@pytest.mark.parametrize("devices", [("/dev/null",), ()])
def test_a_gpu_of_any_maker_goes_to_one_training_at_a_time(
    devices: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("objective.run.launch.GPU_FILES", devices)
    comparison = Comparison(["tpe"], [0], Where("sqlite://"), Budget(trials=1))
    assert default_workers(comparison) == (1 if devices else os.cpu_count())
    assert (memory_share(1) is None) == bool(devices)


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    server = LoopbackServer()
    yield server
    server.close()


def compare(testbed: Path, methods: str, **others: object) -> list[object]:
    """Arguments of a ``compare``."""
    words: list[object] = ["compare", "--testbed", testbed, "--methods", methods]
    for name, value in others.items():
        words += [f"--{name.replace('_', '-')}", value]
    return words


def states(cli: Cli) -> dict[str, str]:
    """Return the facts that ``status`` prints of each study."""
    return {row["study"]: row["state"] for row in json.loads(cli("status", "--json").stdout)}


def params(cli: Cli, study: str) -> list[dict[str, Any]]:
    return [t.params for t in cli.trials(study) if is_evaluated(t)]


def test_each_method_and_seed_is_a_study_that_begins_with_the_baseline(
    cli: Cli, testbed: Path
) -> None:
    command = compare(testbed, "random,tpe", seeds="0,2", trials=3)
    done = cli(*command, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    names = ["random-seed0", "tpe-seed0", "random-seed2", "tpe-seed2"]
    assert [run["study"] for run in facts["runs"]] == names
    assert {(run["state"], run["evaluated"]) for run in facts["runs"]} == {("done", 3)}
    for run in facts["runs"]:
        assert params(cli, run["study"])[0] == BASELINE
        measured = [t.value for t in cli.trials(run["study"]) if t.value is not None]
        assert run["best"] == pytest.approx(min(measured))
    first = {name: params(cli, name) for name in names}
    # TPE begins with ten random trials, the random ones of its seed.
    assert first["random-seed0"] == first["tpe-seed0"] != first["tpe-seed2"]
    study = optuna.load_study(study_name="tpe-seed2", storage=cli.storage)
    expected = {"method": "tpe", "seed": 2, "comparison": "main", "budget_trials": 3}
    assert expected.items() <= study.user_attrs.items()
    assert "optuna-autoresearch best --study tpe-seed2" in get_note(study)
    # Four processes of their own did it.
    workers = {cli.trials(n)[0].system_attrs["autoresearch:worker"][1] for n in names}
    assert len(workers) == 4 and os.getpid() not in workers

    again = cli(*command, "--json")
    assert again.returncode == 0 and json.loads(again.stdout) == facts
    assert "4 runs are done" in again.stderr
    more = cli(*compare(testbed, "random", seeds="2", trials=4))
    assert more.returncode == 0, more.stderr
    assert params(cli, "random-seed2")[:3] == first["random-seed2"]
    assert len(params(cli, "random-seed2")) == 4
    assert set(states(cli).values()) == {"done"}


def test_a_failed_run_stops_no_other_and_the_same_command_tries_it_again(
    cli: Cli, testbed: Path, server: LoopbackServer
) -> None:
    model = {"llm": server.url, "model": "m"}
    command = compare(testbed, "karpathy-hp,random", seeds=0, trials=8, **model)
    server.answers = lambda body: Answer({"error": "no such model"}, 400)
    done = cli(*command)
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    assert error.startswith("error: 1 of 2 runs failed (karpathy-hp-seed0-m: ")
    assert "The language model failed in 5 of its turns" in error
    assert "Traceback" not in done.stderr
    assert shlex.join(["optuna-autoresearch", *map(str, command)]) in error
    assert states(cli) == {"karpathy-hp-seed0-m": "failed", "random-seed0": "done"}
    said = " ".join(cli("status").stdout.split())
    assert "comparison main: 2 runs, 1 failed, 1 done" in said
    assert "karpathy-hp-seed0-m failed: the language model: " in said
    stopped = params(cli, "karpathy-hp-seed0-m")
    assert stopped[0] == BASELINE and len(stopped) < 8

    server.answers = lambda body: reply('{"changes": [{"name": "DEPTH", "value": 5}]}')
    done = cli(*command)
    assert done.returncode == 0, done.stderr
    assert set(states(cli).values()) == {"done"}
    went_on = params(cli, "karpathy-hp-seed0-m")
    assert len(went_on) == 8 and went_on[: len(stopped)] == stopped


def test_after_kill_9_the_same_command_repeats_the_killed_trials_and_ends(
    cli: Cli, testbed: Path
) -> None:
    names = ["random-seed0", "cma-es-seed0"]
    gate = Gate(testbed, through=2)
    command = compare(testbed, "random,cma-es", seeds=0, trials=4, train_seconds="0.05s")
    process = cli.start(*command, "--workers", 2)
    gate.wait(held=2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    gate.open()
    killed = {name: [t for t in cli.trials(name) if not is_evaluated(t)] for name in names}
    assert set(states(cli).values()) == {"running"}

    done = cli(*command)
    assert done.returncode == 0, done.stderr
    assert set(states(cli).values()) == {"done"}
    for name in names:
        assert len(params(cli, name)) == 4
        assert [t.params in params(cli, name) for t in killed[name]] == [True]


def test_a_stopped_comparison_says_how_to_go_on_and_leaves_nothing_running(
    cli: Cli, testbed: Path
) -> None:
    gate = Gate(testbed, through=2)
    command = compare(testbed, "random,tpe", seeds="0-1", trials=3, train_seconds="0.05s")
    command += ["--workers", 2]
    process = cli.start(*command)
    gate.wait(held=2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status_after(signal.SIGINT)
    assert shlex.split(err.splitlines()[-1])[1:] == [str(word) for word in command]
    found = states(cli)
    assert list(found) == ["random-seed0", "tpe-seed0", "random-seed1", "tpe-seed1"]
    assert "running" not in found.values() and "failed" not in found.values()
    assert found["tpe-seed0"] == "stopped" and found["tpe-seed1"] == "missing"


def on_surrogate(file: Path, trials: int) -> list[object]:
    words: list[object] = ["compare", "--methods", "cma-es", "--seeds", 1]
    return [*words, "--surrogate-file", file, "--trials", trials]


def test_on_a_surrogate_more_trials_of_a_run_continue_it_as_if_it_had_never_ended(
    cli: Cli, testbed: Path, surrogate: Path, tmp_path: Path
) -> None:
    for trials in (12, 28):
        done = cli(*on_surrogate(surrogate, trials))
        assert done.returncode == 0, done.stderr
    whole = {}
    for method, trials in (("cma-es", 28), ("random", 1)):
        url = f"sqlite:///{tmp_path}/whole.db"
        spec = Spec(Where(url, surrogate=str(surrogate)), method, method, 1, Budget(trials=trials))
        whole[method] = run_study(spec).trials
    parts = cli.trials("cma-es-seed1")
    assert [t.number for t in parts] == list(range(28))
    assert [(t.params, t.values) for t in parts] == [(t.params, t.values) for t in whole["cma-es"]]
    assert {t.user_attrs["status"] for t in parts} <= {"ok", "oom"}
    # With one seed all methods start from the same value, noise included.
    assert parts[0].params == whole["random"][0].params == BASELINE
    assert parts[0].value == whole["random"][0].value
    assert states(cli) == {"cma-es-seed1": "done"}
    # A training isn't one of its trials.
    error = cli.fails(2, *compare(testbed, "cma-es", seeds=1, trials=50))
    assert "surrogate" in error and "--name" in error


def test_a_comparison_is_not_advised_what_it_has_no_option_for(cli: Cli, testbed: Path) -> None:
    (testbed / "helper.py").touch()
    command = compare(testbed, "random", seeds=0, trials=1)
    assert cli(*command).returncode == 0
    for file in (testbed / "helper.py", testbed / "train.py"):
        file.write_text(file.read_text() + "# edited\n")
        done = cli(*compare(testbed, "random", seeds=0, trials=2))
        assert done.returncode == 2
        said = done.stderr.splitlines()[-1]
        assert "edited" in said and "add --name main-2" in said and "--accept" not in said


def test_random_steps_in_a_models_place_are_runs_beside_its_own(cli: Cli, surrogate: Path) -> None:
    methods = ("karpathy-hp", "centaur", "llambo-paper")
    words: list[object] = ["compare", "--methods", ",".join(methods), "--seeds", 0]
    done = cli(*words, "--surrogate-file", surrogate, "--trials", 16, "--llm", "random-steps")
    assert done.returncode == 0, done.stderr
    assert states(cli) == {f"{method}-seed0-random-steps": "done" for method in methods}
    for study in states(cli):
        sources = [t.user_attrs["source"] for t in cli.trials(study)]
        assert {"llm", "llm-screened"} & set(sources) and "llm-error" not in sources, study
    cli("report", "--out", cli.folder / "report")
    labels = (cli.folder / "report" / "methods.csv").read_text()
    assert all(f"{method} [random-steps]" in labels for method in methods)


def test_variants_are_runs_of_their_own_and_the_default_has_the_plain_name() -> None:
    comparison = Comparison(
        ["tpe", "centaur", "karpathy-hp"],
        [0, 1],
        Where("sqlite:///a.db"),
        Budget(trials=9),
        llm_ratios=[0.3, 0.5],
        models=["small", "big"],
    )
    names = [spec.name for spec in comparison.runs(2)]
    assert names[:7] == [
        "tpe-seed0",
        "centaur-seed0-small",
        "centaur-seed0-big",
        "centaur-seed0-r0.5-small",
        "centaur-seed0-r0.5-big",
        "karpathy-hp-seed0-small",
        "karpathy-hp-seed0-big",
    ]
    assert len(names) == len(set(names)) == 14
    second = replace(comparison, name="second")
    spec = second.runs(2)[3]
    assert spec.name == "second-centaur-seed0-r0.5-small"
    assert label(spec, "second") == "centaur-r0.5-small"


def test_a_storage_that_takes_no_note_of_a_failed_run_ends_no_other(
    testbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageInternalError("database or disk is full")

    def play(jobs: Sequence[Job], _: int, watch: Callable[..., None], **__: object) -> None:
        monkeypatch.setattr(optuna.Study, "set_user_attr", full)
        first, second = (job.name for job in jobs)
        watch([Event(first, "started"), Event(second, "started")])
        watch([Event(first, "failed", "the disk is full", 1), Event(second, "done")])

    monkeypatch.setattr("studies.comparison.run_jobs", play)
    where = Where(f"sqlite:///{tmp_path}/a.db", testbed)
    specs = Comparison(["random", "tpe"], [0], where, Budget(trials=9)).runs(2)
    board = run_comparison(specs, 2, lambda *_: None)
    assert sorted(run.state for run in board.values()) == ["done", "failed"]
    assert [run.error for run in board.values() if run.error] == ["the disk is full"]


def test_runs_that_a_full_disk_kept_from_beginning_are_counted() -> None:
    full = Standing("failed", "The disk of /tmp is full.")
    board = {"a": Standing("done"), "b": full, "c": Standing("missing"), "d": Standing("stopped")}
    said = advice(["b"], board, planned=False)
    assert said.startswith("1 of 4 runs failed (b: The disk of /tmp is full.). 2 others were not")
    del board["c"], board["d"]
    assert "The others are not affected; mend" in advice(["b"], board, planned=False)


def test_the_runs_of_a_seed_are_shuffled_in_the_same_way_each_time() -> None:
    methods = ["random", "tpe", "cma-es", "gp", "smac"]
    specs = Comparison(methods, range(4), Where("sqlite:///a.db"), Budget(trials=9)).runs(2)
    shuffled = in_random_order(specs)
    assert sorted(s.name for s in shuffled) == sorted(s.name for s in specs)
    assert [s.seed for s in shuffled] == [s.seed for s in specs]
    assert len({s.method for s in shuffled[::5]}) > 1
    assert in_random_order(shuffled[::-1]) == shuffled


def test_the_code_agent_has_the_same_budget_and_ends_even_if_all_its_proposals_are_refused() -> (
    None
):
    budget = Budget(seconds=100.0, train_seconds=5.0, charge_llm=True)
    [spec] = Comparison(["karpathy-code"], [3], Where("sqlite:///a.db"), budget).runs(2)
    assert spec.name == "karpathy-code-seed3" and spec.seed == 3
    assert spec.budget == Budget(AGENT_TRIALS * 20, 100.0, 5.0, True)


@needs_sandbox
def test_the_code_agent_is_compared_beside_the_others(
    cli: Cli, server: LoopbackServer, tmp_path: Path
) -> None:
    bed = make_testbed(tmp_path / "bed")
    (bed / "search_space.toml").write_text('[RATE]\ntype = "float"\nlow = 0.0\nhigh = 1.0\n')
    replies = [edit(f"step {i}", f"RATE = 0.{i}", f"RATE = 0.{i - 1}") for i in (5, 4, 3)]
    server.answers = [reply(text) for text in replies]
    command = compare(bed, "random,karpathy-code", seeds=0, trials=5, llm=server.url)
    done = cli(*command, "--model", "m", "--train-seconds", "0.2s", "--json")
    assert done.returncode == 0, done.stderr
    assert {run["study"]: run["evaluated"] for run in json.loads(done.stdout)["runs"]} == {
        "random-seed0": 5,
        "karpathy-code-seed0-m": 5,
    }
    code = cli.trials("karpathy-code-seed0-m")
    # Three baselines, then 0.4 and 0.3 instead of 0.5.
    assert [t.user_attrs["val_bpb"] for t in code] == pytest.approx([1.66] * 3 + [1.59, 1.54])
    assert code[0].user_attrs["val_bpb"] == cli.trials("random-seed0")[0].user_attrs["val_bpb"]
    study = optuna.load_study(study_name="karpathy-code-seed0-m", storage=cli.storage)
    assert study.user_attrs["comparison"] == "main" and study.user_attrs["model"] == "m"


def test_a_dry_run_says_what_would_be_run_and_writes_nothing(cli: Cli, testbed: Path) -> None:
    command = compare(testbed, "random,centaur", seeds="0-1", budget="60s", train_seconds="2s")
    command += ["--llm-ratio", "0.1,0.3", "--workers", 2, "--dry-run"]
    facts = json.loads(cli(*command, "--json").stdout)
    assert [run["study"] for run in facts["runs"]] == [
        f"{name}"
        for s in (0, 1)
        for name in (f"random-seed{s}", f"centaur-seed{s}-r0.1", f"centaur-seed{s}")
    ]
    assert facts["planned_seconds"] == 6 * 60 / 2
    assert {run["state"] for run in facts["runs"]} == {"missing"}
    assert "6 of 6 runs to do, 2 at a time: 3:00" in cli(*command).stdout
    facts = json.loads(cli(*command, "--json", "--workers", 20).stdout)
    assert facts["planned_seconds"] == 60, "no worker takes a part of a run"
    assert list(cli.folder.iterdir()) == []


def test_a_run_that_is_only_planned_has_the_testbeds_metric(testbed: Path, tmp_path: Path) -> None:
    accuracy = Interface(metric="accuracy", direction="maximize")
    where = Where(f"sqlite:///{tmp_path}/s.db", testbed=testbed, interface=accuracy)
    (run,) = planned(Comparison(["random"], [0], where, Budget(trials=1)).runs(1)).values()
    assert run.state == "missing" and run.metric.better == "higher"


def test_of_what_is_only_planned_nothing_has_failed() -> None:
    board = {"a": Standing("failed", error="no model"), "b": Standing("missing")}
    assert advice(["a"], board, planned=True) == "1 of 2 runs would fail (a: no model)"
    assert advice(["a"], board, planned=False).startswith("1 of 2 runs failed (a: no model). ")


@pytest.mark.parametrize(("method", "at_least"), [("tpe", 1), ("centaur", 4)])
def test_runs_on_a_surrogate_that_wait_for_a_model_are_more_than_the_cores(
    method: str, at_least: int, cli: Cli, surrogate: Path
) -> None:
    words: list[object] = ["compare", "--methods", method, "--trials", 9, "--dry-run", "--json"]
    planned = json.loads(cli(*words, "--surrogate-file", surrogate).stdout)["workers"]
    assert planned == max(at_least, os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--methods nonsense --trials 2", "nonsense"),
        ("--methods ,", "--methods must be some of"),
        ("--methods tpe", "--trials or --budget"),
        ("--methods tpe --trials 2 --seeds 3-1", "0-7"),
        ("--methods tpe --trials 2 --seeds x", "0-7"),
        ("--methods tpe --trials 2 --llm-ratio 0.5", "centaur"),
        ("--methods centaur --trials 2 --llm-ratio 1.5", "from 0 to 1"),
        ("--methods centaur --trials 2 --llm-ratio a", "numbers"),
        ("--methods tpe --trials 2 --model m", "--model must be with one of"),
        ("--methods tpe --trials 2 --charge-llm", "--budget"),
        ("--methods tpe --budget 1s --train-seconds 2s", "at least one trial"),
        ("--methods tpe --trials 2 --dry-run --llm local", "--llm must be with one of"),
        ("--methods tpe --trials 2 --dry-run --max-tokens 9", "--max-tokens must be with one of"),
        (
            "--methods karpathy-code --trials 2 --dry-run --failure-value 9",
            "--failure-value must be with",
        ),
        ("--methods tpe --trials 2 --surrogate --train-seconds 2s", "--train-seconds"),
        ("--methods karpathy-code --trials 2 --vary-seed", "--vary-seed must be with one of"),
        ("--methods tpe --trials 2 --surrogate --vary-seed", "--vary-seed must be without a surr"),
        (
            "--methods tpe --trials 2 --dry-run --surrogate --metric x",
            "--metric must be without a surr",
        ),
        (
            "--methods tpe --trials 2 --dry-run --surrogate --cwd ..",
            "--cwd must be without a surrogate",
        ),
        (
            "--methods tpe --trials 2 --dry-run --surrogate --env A=1",
            "--env must be without a surrogate",
        ),
        ("--methods karpathy-code --trials 2 --surrogate", "karpathy-code"),
        ("--methods tpe --trials 2 --surrogate-file no.xz", "no.xz"),
        ("--methods centaur --trials 2 --llm local --model big", ".gguf"),
        ("--methods centaur --trials 2 --llm random-steps --model big", "no --model"),
        ("--methods centaur,karpathy-code --trials 2 --llm random-steps", "leave karpathy-code"),
    ],
)
def test_misuse_is_one_line_before_anything_is_run(arguments: str, said: str, cli: Cli) -> None:
    assert said in cli.fails(2, "compare", *arguments.split())


def trial(number: int, state: TrialState = TrialState.COMPLETE, **attrs: Any) -> FrozenTrial:
    attrs = {"status": "ok", "val_bpb": 1.0, "training_seconds": 5.0, **attrs}
    value = 1.0 if state == TrialState.COMPLETE else None
    frozen = create_trial(state=state, value=value, user_attrs=attrs)
    frozen.number = number
    return frozen


def test_charging_the_model_ends_a_budget_earlier_and_the_study_says_so() -> None:
    trials = [trial(n, llm_seconds=3.0) for n in range(3)]
    free = Budget(seconds=24, train_seconds=5)
    charged = Budget(seconds=24, train_seconds=5, charge_llm=True)
    assert (free.spent(trials), charged.spent(trials)) == (15.0, 24.0)
    assert free.allows(trials, 3) and not charged.allows(trials, 3)
    failed = trial(3, status="nan", total_seconds=4.0, llm_seconds=2.0)
    assert (free.charge(failed), charged.charge(failed)) == (4.0, 6.0)
    facts = {**charged.metadata(), "charge_llm": True, "train_seconds": 5}
    assert Budget.of(facts) == charged
    assert run_state(facts, trials) == "done"


def test_the_state_of_a_run_follows_from_what_is_stored() -> None:
    facts = {"testbed_hash": "0", "method": "tpe", "budget_trials": 2}
    running, waiting = trial(1, TrialState.RUNNING), trial(1, TrialState.WAITING)
    assert run_state(facts, []) == "missing"
    assert run_state(facts, [trial(0)]) == "stopped"
    assert run_state(facts, [trial(0), waiting]) == "stopped"
    assert run_state(facts, [trial(0), running]) == "running"
    assert run_state(facts, [trial(0), trial(1)]) == "done"
    assert run_state({**facts, "run_error": "no model"}, [trial(0)]) == "failed"
    assert run_state({}, [trial(0)]) == "done"
