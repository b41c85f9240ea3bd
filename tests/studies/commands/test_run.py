"""``run`` on a testbed that only sleeps; in real processes where it matters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import replace
import json
import os
from pathlib import Path
import pickle
import shlex
import signal
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest

from studies import stopping
from studies.budget import Budget
from studies.budget import charge
from studies.budget import is_evaluated
from studies.commands.work import revalidate
from studies.commands.work import run as work
from studies.loop import evaluate
from studies.revalidation import queue_repetitions
from studies.revalidation import run_repetitions
from studies.revalidation import Work
from studies.spec import load_testbed
from studies.spec import Spec
from studies.spec import Where
from studies.storage.open import open_storage
from studies.storage.open import StorageError
from studies.study import open_study
from studies.study import run_study
from studies.workers.processes import Event
from studies.workers.processes import Job
from tests.samplers._llm.conftest import only_llama_cpp
from tests.studies.conftest import Cli
from tests.studies.conftest import Gate
from tests.studies.conftest import status_after
from tests.studies.test_methods import here
from tests.toy_testbed import write_testbed


STATES = {TrialState.COMPLETE, TrialState.FAIL}


def run(testbed: Path, method: str = "random", **others: object) -> list[object]:
    """Arguments of a ``run`` of study ``s``; ``--testbed`` and ``--study`` are given."""
    words: list[object] = ["run", "--testbed", testbed, "--study", "s", "--method", method]
    for name, value in others.items():
        words += [f"--{name.replace('_', '-')}", value]
    return words


def evaluated(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [t for t in trials if is_evaluated(t)]


def test_a_study_ends_with_a_table_and_the_commands_to_type_next(cli: Cli, testbed: Path) -> None:
    done = cli(*run(testbed, trials=4, confirm=0))
    assert done.returncode == 0, done.stderr
    assert "val_bpb" in done.stdout and "LR" in done.stdout
    lines = [line.split("  |")[0].split()[:3] for line in done.stderr.splitlines()]
    assert [line[:2] for line in lines] == [["trial", str(n)] for n in range(4)]
    assert "done 4/4" in done.stderr.splitlines()[-1]
    commands = [
        line.strip()
        for line in done.stdout.splitlines()
        if line.strip().startswith("optuna-autoresearch ")
    ]
    assert [shlex.split(command)[1] for command in commands if "revalidate" not in command] == [
        "best",
        "status",
        "dashboard",
    ]
    best, status, _ = commands[-3:]
    assert cli(*shlex.split(best)[1:]).returncode == 0
    again = cli(*shlex.split(status)[1:])
    assert again.returncode == 0 and "4 ok" in again.stdout


def test_json_is_all_that_is_on_stdout(cli: Cli, testbed: Path) -> None:
    done = cli(*run(testbed, "cma-es", trials=3, seed=5, confirm=0), "--json")
    facts = json.loads(done.stdout)
    assert facts.pop("winner") == json.loads(cli("best", "--json").stdout)
    assert facts["method"] == "cma-es" and facts["seed"] == 5
    assert facts["evaluated"] == 3
    assert facts["baseline"]["params"] == {"DEPTH": 4, "LR": 0.01, "PATTERN": "ab"}
    assert facts["baseline"]["val_bpb"] == pytest.approx(2.1)
    best = min(t.value for t in cli.trials("s") if t.value is not None)
    assert facts["best"]["val_bpb"] == pytest.approx(best)
    assert json.loads(cli("status", "--json").stdout) == [facts]


def test_failures_are_counted_by_class_and_never_the_best(cli: Cli, testbed: Path) -> None:
    train = testbed / "train.py"
    train.write_text(train.read_text().replace("if DEPTH == 8", 'if PATTERN == "ba"'))
    facts = json.loads(cli(*run(testbed, trials=8), "--json").stdout)
    failed = [t for t in cli.trials("s") if t.params["PATTERN"] == "ba"]
    assert failed and facts["failures"] == {"oom": len(failed)}
    assert facts["ok"] == 8 - len(failed)
    assert facts["best"]["params"]["PATTERN"] == "ab"


def test_what_looks_like_markup_is_shown_as_it_is(cli: Cli, testbed: Path) -> None:
    train = testbed / "train.py"
    fails = 'if PATTERN == "ba":\n    raise OSError("no room in [/data/x]")'
    train.write_text(train.read_text().replace("if DEPTH == 8:\n    raise MemoryError", fails))
    done = cli(*run(testbed, trials=8), "--study", "[/bed]")
    assert done.returncode == 0, done.stderr
    assert "OSError: no room in [/data/x]" in done.stderr and "study [/bed]" in done.stdout
    assert " [/bed] " in cli("status").stdout


def test_the_same_command_goes_on_and_adds_nothing_to_what_is_done(
    cli: Cli, testbed: Path
) -> None:
    assert cli(*run(testbed, trials=2)).returncode == 0
    more = cli(*run(testbed, trials=4))
    assert "2 finished" in more.stderr
    assert cli(*run(testbed, trials=4)).returncode == 0
    trials = cli.trials("s")
    assert len(trials) == 4
    assert len({tuple(t.params.values()) for t in trials}) == 4


def test_a_budget_of_training_time_is_used_up_and_not_overrun(cli: Cli, testbed: Path) -> None:
    done = cli(*run(testbed, budget="4s", train_seconds="0.5s", confirm=0))
    assert done.returncode == 0, done.stderr
    charged = sum(map(charge, cli.trials("s")))
    dearest = max(map(charge, cli.trials("s")))
    assert 4 - dearest < charged <= 4
    assert cli.trials("s-revalidated") == []


def test_trainings_of_the_best_again_are_within_the_budget(cli: Cli, testbed: Path) -> None:
    done = cli(*run(testbed, budget="4s", train_seconds="0.5s"))
    assert done.returncode == 0, done.stderr
    again = cli.trials("s-revalidated")
    assert again, "a quarter of the time is kept for them"
    assert sum(map(charge, [*cli.trials("s"), *again])) <= 4


def test_two_processes_on_one_file_share_the_trials(cli: Cli, testbed: Path) -> None:
    gate = Gate(testbed, through=0)
    both = [cli.start(*run(testbed, trials=6, confirm=0)) for _ in range(2)]
    gate.wait(held=2)
    gate.open()
    for process in both:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    trials = cli.trials("s")
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 6
    assert len({tuple(t.params.values()) for t in trials}) == 6
    assert trials[0].params == {"DEPTH": 4, "LR": 0.01, "PATTERN": "ab"}
    workers = {tuple(t.system_attrs["autoresearch:worker"][:2]) for t in trials}
    assert len(workers) == 2


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, 1), (signal.SIGTERM, 2)])
def test_a_stopped_study_says_how_to_go_on_and_loses_nothing(
    number: signal.Signals, workers: int, cli: Cli, testbed: Path
) -> None:
    gate = Gate(testbed, through=2)
    arguments = run(testbed, trials=5, workers=workers)
    process = cli.start(*arguments)
    gate.wait(held=workers)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status_after(number)
    gate.open()
    stopped = cli.trials("s")
    assert not [t for t in stopped if t.state == TrialState.RUNNING]
    waiting = [t.params for t in stopped if t.state == TrialState.WAITING]
    assert waiting
    command = shlex.split(err.splitlines()[-1])
    assert command == ["optuna-autoresearch", *map(str, arguments)]
    assert cli(*command[1:]).returncode == 0
    trials = cli.trials("s")
    assert len(evaluated(trials)) == 5
    assert {t.state for t in trials} == STATES
    # One that was stopped while it got its parameters has only some of them.
    for params in waiting:
        assert any(params.items() <= t.params.items() for t in evaluated(trials)), (
            stopped,
            trials,
        )


def cma_es_states(trials: Sequence[FrozenTrial]) -> dict[int, Any]:
    """Trial number -> the optimizer that CMA-ES stored on it after a generation."""
    states = {}
    for trial in trials:
        parts = sorted(
            (int(key.rpartition(":")[2]), value)
            for key, value in trial.system_attrs.items()
            if key.startswith("cma:optimizer:")
        )
        if parts:
            states[trial.number] = pickle.loads(bytes.fromhex("".join(p for _, p in parts)))
    return states


def test_after_kill_9_the_killed_trial_is_repeated_and_cma_es_goes_on(
    cli: Cli, testbed: Path
) -> None:
    gate = Gate(testbed, through=9)
    arguments = run(testbed, "cma-es", trials=16, confirm=0)
    process = cli.start(*arguments)
    gate.wait(held=1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    gate.open()
    killed = cli.trials("s")[9]
    assert killed.state == TrialState.RUNNING
    before = cma_es_states(cli.trials("s"))

    assert cli(*arguments).returncode == 0
    trials = cli.trials("s")
    assert len(evaluated(trials)) == 16
    assert {t.state for t in trials} == STATES
    assert trials[9].state == TrialState.FAIL
    assert trials[10].params == killed.params
    assert trials[10].system_attrs["cma:generation"] == killed.system_attrs["cma:generation"]

    # The optimizer after the kill is the one before it, told the generation in between.
    states = cma_es_states(trials)
    (last_before,), (first_after, *_) = sorted(before), sorted(states.keys() - before.keys())
    expected, found = before[last_before], states[first_after]
    generation = [
        t
        for t in trials[:first_after]
        if t.state == TrialState.COMPLETE
        and t.system_attrs.get("cma:generation") == expected.generation
    ]
    assert 10 in [t.number for t in generation]
    space = {n: d for n, d in killed.distributions.items() if n != "PATTERN"}
    transform = optuna._transform._SearchSpaceTransform(space, transform_0_1=True)
    expected.tell(
        [
            (transform.transform({n: t.params[n] for n in space}), t.value)
            for t in generation[: expected.population_size]
        ]
    )
    assert found.generation == expected.generation
    np.testing.assert_allclose(found.mean, expected.mean)
    np.testing.assert_allclose(found._sigma, expected._sigma)


def test_the_limit_of_a_trials_real_time_reaches_it_and_is_stored(cli: Cli, testbed: Path) -> None:
    train = testbed / "train.py"
    train.write_text(train.read_text().replace("if DEPTH == 8", "time.sleep(60)\nif DEPTH == 8"))
    first = cli(*run(testbed, trials=2, wall_seconds="1s"))
    assert first.returncode == 1 and "a larger --wall-seconds" in first.stderr
    trial, *_ = cli.trials("s")
    assert trial.user_attrs["reason"] == "killed after 1 s of wall-clock time"
    assert json.loads(cli("status", "--json").stdout)[0]["wall_seconds"] == 1
    assert cli(*run(testbed, trials=4, wall_seconds="2s")).returncode == 1
    assert json.loads(cli("status", "--json").stdout)[0]["wall_seconds"] == 2, "as it is now"


def test_a_script_that_does_not_say_how_long_it_trains_has_a_limit_that_is_said(
    cli: Cli, testbed: Path
) -> None:
    (testbed / "prepare.py").unlink()
    (testbed / "train.py").write_text(
        "DEPTH = 4\nLR = 0.01\nPATTERN = 'ab'\nprint('---\\nval_bpb: 1')\n"
    )
    refused = cli.fails(2, *run(testbed, trials=1, train_seconds="5s"))
    assert "neither train.py nor prepare.py has one" in refused and "--wall-seconds" in refused
    assert list(cli.folder.iterdir()) == []
    said = cli(*run(testbed, trials=1)).stderr.splitlines()[0]
    assert "killed after 660 s" in said and "--wall-seconds" in said
    assert "killed after" not in cli(*run(testbed, trials=1, wall_seconds="9s")).stderr


@pytest.mark.llm
def test_a_study_with_the_embedded_model_says_who_decided_what(cli: Cli, testbed: Path) -> None:
    with only_llama_cpp():  # which starts sooner
        done = cli(*run(testbed, "centaur", trials=14, llm="local", confirm=0), "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    turns = {k: n for k, n in facts["sources"].items() if k.startswith("llm")}
    assert facts["llm"]["turns"] == sum(turns.values()) == 1
    assert facts["llm"]["prompt_tokens"] > 0 and facts["llm"]["seconds"] > 0
    assert "llm 1" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("train.py", "DEPTH = = 4\n", "train.py"),
        ("train.py", "print('no constants')\n", "search_space.toml names DEPTH"),
        ("train.py", "DEPTH = 4\nDEPTH = 5\nLR = 0.01\nPATTERN = 'ab'\n", "DEPTH"),
        ("search_space.toml", "[DEPTH]\ntype = 'int'\nlow = 9\nhigh = 1\n", "low"),
        ("search_space.toml", "[WIDTH]\ntype = 'int'\nlow = 1\nhigh = 2\n", "WIDTH"),
        ("search_space.toml", "[DEPTH\n", "search_space.toml"),
    ],
)
def test_a_testbed_that_cannot_work_is_refused_before_anything_runs(
    file: str, text: str, says: str, cli: Cli, testbed: Path
) -> None:
    (testbed / file).write_text(text)
    assert says in cli.fails(2, *run(testbed))
    assert list(cli.folder.iterdir()) == []


def test_a_name_that_no_database_takes_is_refused_before_anything_runs(
    cli: Cli, testbed: Path
) -> None:
    said = cli.fails(2, *run(testbed), "--study", os.fsdecode(b"caf\xe9"))
    assert "must be text in UTF-8" in said
    assert list(cli.folder.iterdir()) == []


def test_a_study_is_not_continued_with_other_parameters(cli: Cli, testbed: Path) -> None:
    assert cli(*run(testbed, trials=1, seed=1, memory_limit="1G")).returncode == 0
    stored = [t.params for t in cli.trials("s")]
    for others, says in (
        ({"method": "tpe", "seed": 1, "memory_limit": "1G"}, "method random, not tpe"),
        ({"seed": 2, "memory_limit": "1G"}, "seed 1, not 2"),
        ({"seed": 1, "memory_limit": "2G"}, "memory_limit_mb 1024, not 2048"),
        ({"seed": 1, "memory_limit": "1G", "train_seconds": "1s"}, "train_seconds 0.05, not 1.0"),
    ):
        assert says in cli.fails(2, *run(testbed, trials=3, **others))  # type: ignore[arg-type]
    toml = (testbed / "search_space.toml").read_text()
    (testbed / "search_space.toml").write_text(toml.replace("low = 1\n", "low = 2\n"))
    same = run(testbed, trials=3, seed=1, memory_limit="1G")
    said = cli.fails(2, *same)
    assert "another search space than the testbed (DEPTH)" in said
    assert said.endswith(
        "; to go on, begin search_space.toml with these lines, in place of what it says of them:"
        ' DEPTH = {type = "int", low = 1, high = 8}'
    )
    (testbed / "search_space.toml").write_text(toml)
    (testbed / "train.py").write_text((testbed / "train.py").read_text() + "# edited\n")
    assert "edited" in cli.fails(2, *same)
    assert [t.params for t in cli.trials("s")] == stored


def test_a_study_of_another_space_goes_on_with_the_lines_that_its_refusal_shows(
    cli: Cli, testbed: Path
) -> None:
    train, file = testbed / "train.py", testbed / "search_space.toml"
    train.write_text(f"MLP_RATIO = 0.7\nWARMUP = 1.0\n{train.read_text()}")
    own = file.read_text()
    ratio = "[MLP_RATIO]\ntype = 'float'\nlow = 0.007000000000000001\nhigh = 0.7\nlog = true\n"
    file.write_text(f"{own}{ratio}[WARMUP]\ntune = false\n")
    assert cli(*run(testbed, trials=2, confirm=0)).returncode == 0
    file.write_text(own)  # WARMUP is tuned, and MLP_RATIO in another range
    said = cli.fails(2, *run(testbed, trials=3, confirm=0))
    assert "(MLP_RATIO, WARMUP); to begin another, add --study s-2; to go on, begin" in said
    lines = said.partition("in place of what it says of them: ")[2].split(" and ")
    file.write_text("\n".join([*lines, own]))
    done = cli(*run(testbed, trials=3, confirm=0))
    assert done.returncode == 0, done.stderr
    trials = cli.trials("s")
    assert len(trials) == 3 and trials[2].distributions == trials[1].distributions


def test_a_study_that_only_failed_says_what_its_space_lacks(cli: Cli, testbed: Path) -> None:
    train = testbed / "train.py"
    whole = train.read_text()
    train.write_text(BROKEN + whole)
    cli.fails(1, *run(testbed, trials=1))
    train.write_text("WIDTH = 4\n" + whole)
    said = cli.fails(2, *run(testbed, trials=1))
    assert "than the testbed (WIDTH); " in said and said.endswith(": WIDTH = {tune = false}")


def test_a_memory_limit_below_what_the_interpreter_needs_is_a_classified_failure(
    cli: Cli, testbed: Path
) -> None:
    done = cli(*run(testbed, trials=2, memory_limit="1M"), "--json")
    statuses = {t.user_attrs["status"] for t in cli.trials("s")}
    assert statuses <= {"oom", "crash"}
    assert "Traceback" not in done.stderr


def test_a_script_that_never_works_stops_the_study(cli: Cli, testbed: Path) -> None:
    (testbed / "train.py").write_text(
        "DEPTH = 4\nLR = 0.01\nPATTERN = 'ab'\nraise OSError('mamba_x')\n"
    )
    done = cli(*run(testbed, trials=9))
    assert done.returncode == 1
    assert "mamba_x" in done.stderr.splitlines()[-1]
    assert len(cli.trials("s")) == 1


def test_a_run_ends_with_what_its_trials_failed_by(cli: Cli, testbed: Path) -> None:
    train = testbed / "train.py"
    train.write_text(train.read_text() + "if DEPTH != 4:\n    raise ValueError(f'no {DEPTH}')\n")
    done = cli(*run(testbed, trials=6, confirm=0), "--no-check")
    failed = [t for t in cli.trials("s") if t.user_attrs["status"] == "crash"]
    last = f"crash: ValueError: no {failed[-1].params['DEPTH']} (trial {failed[-1].number})"
    assert f"commonest failure ({len(failed)} of {len(failed)}): {last}\n" in done.stdout


BROKEN = "raise OSError('no data yet')\n"


def test_a_mended_script_goes_on_from_the_same_command(cli: Cli, testbed: Path) -> None:
    train = testbed / "train.py"
    whole = train.read_text()
    train.write_text(BROKEN + whole)
    error = cli.fails(1, *run(testbed, trials=1))
    assert "no data yet" in error and "run the same command again" in error
    train.write_text(whole)
    done = cli(*run(testbed, trials=1), "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["baseline"]["status"] == "ok" and facts["baseline"]["trial"] == 1
    assert facts["best"]["trial"] == 1
    train.write_text(whole + "\n")
    assert "--study s-2" in cli.fails(2, *run(testbed, trials=2)), "now values would not compare"


def test_a_mended_environment_goes_on_from_the_same_command(cli: Cli, testbed: Path) -> None:
    data = cli.folder / "data"
    train = testbed / "train.py"
    train.write_text(f"open({str(data)!r})\n" + train.read_text())
    same = run(testbed, trials=2)
    assert "data" in cli.fails(1, *same)
    again = cli(*same)
    assert again.returncode == 1 and "No such file" in again.stderr
    data.touch()
    assert cli(*same).returncode == 0
    trials = cli.trials("s")
    assert [t.user_attrs["status"] for t in trials] == ["crash", "crash", "ok", "ok"]
    assert trials[2].params == trials[1].params == {"DEPTH": 4, "LR": 0.01, "PATTERN": "ab"}


def test_what_is_advised_about_changed_ranges_works(cli: Cli, testbed: Path) -> None:
    assert cli(*run(testbed, trials=1)).returncode == 0
    space = testbed / "search_space.toml"
    space.write_text(space.read_text().replace("high = 8", "high = 7"))
    error = cli.fails(2, *run(testbed, trials=1))
    advice = shlex.split(error.rpartition("add ")[2].partition(";")[0])
    words = run(testbed, trials=1)
    assert advice == ["--study", "s-2"]
    assert cli(*words[:3], *advice, *words[5:]).returncode == 0
    assert len(cli.trials("s-2")) == 1


def test_a_study_goes_on_in_the_scripts_own_folder_whatever_lies_there_by_now(
    cli: Cli, testbed: Path
) -> None:
    stored = f"sqlite:///{testbed}/autoresearch.db"
    words = [*run(testbed, trials=2, confirm=0), "--storage", stored]
    assert cli(*words).returncode == 0
    assert cli("report", "--storage", stored, "--out", testbed / "report").returncode == 0
    (testbed / "run.out").write_text("printed\n")
    more = [*run(testbed, trials=3, confirm=0), "--storage", stored]
    done = cli(*more)
    assert done.returncode == 0, done.stderr


def test_after_a_timeout_more_time_helps(cli: Cli, testbed: Path) -> None:
    error = cli.fails(1, *run(testbed, trials=1, wall_seconds="0.01s"))
    assert "(timeout" in error and "a larger --wall-seconds" in error
    assert cli(*run(testbed, trials=1, wall_seconds="60s")).returncode == 0
    assert [t.user_attrs["status"] for t in cli.trials("s")] == ["timeout", "ok"]


def test_an_edited_module_is_named_and_can_be_accepted(cli: Cli, testbed: Path) -> None:
    (testbed / "helper.py").touch()
    assert cli(*run(testbed, trials=1, confirm=0)).returncode == 0
    (testbed / "helper.py").write_text("A = 1\n")
    (testbed / "README.md").write_text("no input of a training\n")
    refused = cli(*run(testbed, trials=2, confirm=0))
    assert refused.returncode == 2
    assert "(helper.py was edited); undo that" in refused.stderr
    assert cli(*run(testbed, trials=2, confirm=0), "--accept-changes").returncode == 0
    assert cli(*run(testbed, trials=3, confirm=0)).returncode == 0, "accepted once and for all"


def test_trials_may_have_seeds_of_their_own(cli: Cli, testbed: Path) -> None:
    varied = [*run(testbed, confirm=0), "--vary-seed"]
    refused = cli.fails(2, *varied, "--trials", 2)
    assert "must have a place that nothing else sets" in refused and "AUTORESEARCH_SEED" in refused
    train = testbed / "train.py"
    train.write_text("SEED = 42\n" + train.read_text() + "print(f'own: {SEED}')\n")
    assert cli(*varied, "--trials", 2).returncode == 0
    conflict = cli.fails(2, *run(testbed, trials=3, confirm=0))
    assert "was made with vary_seed True, not False" in conflict
    assert cli(*varied, "--trials", 3).returncode == 0
    attrs = [t.user_attrs for t in cli.trials("s")]
    assert [a["own"] for a in attrs] == [a["train_seed"] for a in attrs]
    assert len({a["own"] for a in attrs}) == 3


def test_a_new_file_that_nothing_imports_is_no_obstacle(cli: Cli, testbed: Path) -> None:
    again = run(testbed, trials=2, confirm=0)
    assert cli(*run(testbed, trials=1, confirm=0)).returncode == 0
    written = testbed / "best_train.py"
    assert cli("best", "--storage", cli.storage, "--write", written).returncode == 0
    assert cli(*again).returncode == 0
    revalidate = ("revalidate", "--storage", cli.storage, "--study", "s", "--repeats", "1")
    assert cli(*revalidate).returncode == 0
    written.write_text("not part of the study\n")
    assert cli(*run(testbed, trials=3, confirm=0)).returncode == 0, "nor has it become a part"
    written.unlink()
    (testbed / "queue.py").touch()
    refused = cli.fails(2, *run(testbed, trials=4, confirm=0))
    assert "(queue.py is new); undo that" in refused


def test_what_a_script_lacks_is_said_before_anything_is_stored(cli: Cli, tmp_path: Path) -> None:
    folder = write_testbed(
        tmp_path / "bed", "import not_there\nLR = 1\nprint('---\\nval_bpb: 1')\n"
    )
    done = cli(*run(folder, trials=1), "--env", "NOT_SET_HERE", "--copy", "gone/*")
    assert done.returncode == 2
    for part in (
        "find not_there, but",
        "--env NOT_SET_HERE must be set",
        "'gone/*' matches nothing",
    ):
        assert part in done.stderr
    assert len(done.stderr.splitlines()) == 1
    with pytest.raises(KeyError):
        optuna.load_study(study_name="s", storage=cli.storage)
    dry = cli(*run(folder, trials=1), "--dry-run")
    assert dry.returncode == 2 and "LR" in dry.stdout and "find not_there, but" in dry.stderr
    begun = cli(*run(folder, trials=1, confirm=0), "--no-check")
    assert "No module named 'not_there'" in begun.stdout + begun.stderr


def test_a_signal_to_finish_is_heeded_while_the_best_is_trained_again_too(
    cli: Cli, testbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told_to_finish(
        jobs: Sequence[Job], workers: int, watch: Callable[[Sequence[Event]], None]
    ) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        here(jobs, workers, watch)

    monkeypatch.setattr(stopping, "_told", stopping._told)  # this process is put back as it was
    monkeypatch.setattr(revalidate, "run_jobs", told_to_finish)
    command = run(testbed, trials=5, workers=2)
    done = cli(*command)
    assert done.returncode == status_after(signal.SIGUSR1)
    assert "stopped; to go on" in done.stderr
    assert {t.state for t in cli.trials("s-revalidated")} == {TrialState.WAITING}
    monkeypatch.undo()
    assert cli(*command).returncode == 0
    assert TrialState.WAITING not in {t.state for t in cli.trials("s-revalidated")}


@pytest.mark.parametrize(
    ("repeats", "seconds", "confirm", "done"),
    [
        (0, 25.0, 2, (2, 4, 4)),  # two trainings fit, and then another two
        (3, 15.0, 3, (4, 5, 6, 7, 7)),  # `revalidate` has trained the best more often than `run`
    ],
)
def test_of_the_repetitions_as_many_follow_later_as_fit_into_the_time_that_is_left(
    repeats: int,
    seconds: float,
    confirm: int,
    done: Sequence[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    where = Where(f"sqlite:///{tmp_path}/s.db", surrogate="embedded")
    spec = Spec(where, "s", "random", 0, Budget(trials=8))
    run_study(spec)
    storage = open_storage(where.storage)
    study = optuna.load_study(study_name="s", storage=storage)
    queue_repetitions(Work(where, "s"), storage, repeats)
    run_repetitions(Work(where, "s"), lambda what: None)
    for module in ("budget", "revalidation"):
        monkeypatch.setattr(f"studies.{module}.now", lambda: 0.0)
    monkeypatch.setattr(Budget, "expected_span", lambda *_: 10.0)
    spec = replace(spec, budget=Budget(until=seconds, confirm=confirm))
    for n in done:
        work.confirm(spec, study, 1)
        again = optuna.load_study(study_name="s-revalidated", storage=storage)
        assert len(evaluated(again.trials)) == n


def test_what_is_left_out_of_the_repetitions_is_said_with_the_command_that_makes_it(
    cli: Cli, testbed: Path
) -> None:
    def said() -> str:
        done = cli(*run(testbed, trials=4))
        assert done.returncode == 0
        (line,) = (line for line in done.stderr.splitlines() if "exceed the limit" in line)
        return line

    line = said()
    assert line.startswith(
        "5 more trainings of the best configurations would exceed the limit"
        " (one for every 3 trials); to make them all the same: optuna-autoresearch revalidate"
    )
    assert said() == line, "also where there is nothing else to be done"
    _, _, command = line.partition("optuna-autoresearch ")
    assert cli(*command.split()).returncode == 0
    again = cli.trials("s-revalidated")
    assert sorted(Counter(t.user_attrs["repeats_trial"] for t in again).values()) == [2, 2, 2]


def test_no_study_goes_on_whose_name_a_database_only_takes_for_the_same(mariadb_url: str) -> None:
    storage = open_storage(mariadb_url)
    spec = Spec(Where(mariadb_url, surrogate="embedded"), "foo", "random", 0, Budget(trials=8))
    open_study(spec, load_testbed(spec), storage)
    with pytest.raises(StorageError, match="by more than case.*'foo' beside 'Foo'"):
        open_study(replace(spec, name="Foo"), load_testbed(spec), storage)


@pytest.mark.parametrize("workers", [1, 2])
def test_repetitions_that_wait_already_begin_only_if_they_end_in_time(
    workers: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    where = Where(f"sqlite:///{tmp_path}/s.db", surrogate="embedded")
    spec = Spec(where, "s", "random", 0, Budget(trials=8))
    study = run_study(spec)
    storage = open_storage(where.storage)
    queue_repetitions(Work(where, "s"), storage, repeats=2, best=3)
    time = 0.0

    def takes_ten_seconds(*arguments: Any) -> None:
        nonlocal time
        evaluate(*arguments)
        time += 10.0

    monkeypatch.setattr("studies.revalidation.evaluate", takes_ten_seconds)
    for module in ("budget", "revalidation"):
        monkeypatch.setattr(f"studies.{module}.now", lambda: time)
    monkeypatch.setattr(Budget, "expected_span", lambda *_: 10.0)
    monkeypatch.setattr(revalidate, "run_jobs", here)
    work.confirm(replace(spec, budget=Budget(until=25.0, confirm=3)), study, workers)
    again = optuna.load_study(study_name="s-revalidated", storage=storage)
    assert len(evaluated(again.trials)) == 2
    said = capsys.readouterr().err
    assert f": {2 * workers} trainings\n" in said
    assert f"{6 - 2 * workers} more trainings of the best" in said and "limit (--until); " in said
    assert sum(t.state == TrialState.WAITING for t in again.trials) == 4


@pytest.mark.parametrize(
    ("until", "trials", "named"),
    [(25.0, 18, "--until"), (99.0, 8, "one for every 3 trials")],
)
def test_of_several_limits_the_one_that_leaves_repetitions_out_is_named(
    until: float,
    trials: int,
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    where = Where(f"sqlite:///{tmp_path}/s.db", surrogate="embedded")
    spec = Spec(where, "s", "random", 0, Budget(trials=trials))
    study = run_study(spec)
    for module in ("budget", "revalidation"):
        monkeypatch.setattr(f"studies.{module}.now", lambda: 0.0)
    monkeypatch.setattr(Budget, "expected_span", lambda *_: 10.0)
    limits = Budget(trials=trials, seconds=1e6, until=until, confirm=3)
    work.confirm(replace(spec, budget=limits), study, 1)
    assert f" would exceed the limit ({named}); " in capsys.readouterr().err


@pytest.mark.parametrize("workers", [1, 2])
def test_what_keeps_the_best_from_being_trained_again_is_said_after_the_result(
    workers: int, cli: Cli, testbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = testbed / "train.py"
    whole = train.read_text()

    def edited_meanwhile(*arguments: Any) -> int:
        train.write_text(whole + "# edited\n")
        return queue_repetitions(*arguments)

    command = run(testbed, trials=5, workers=workers)
    with monkeypatch.context() as patch:
        patch.setattr(work, "queue_repetitions", edited_meanwhile)
        done = cli(*command)
    assert done.returncode == 1
    assert "optuna-autoresearch best" in done.stdout and "s-revalidated" not in done.stdout
    said = done.stderr.splitlines()[-1]
    assert "s: its testbed or surrogate was edited since" in said
    assert "run the same command again: optuna-autoresearch run" in said
    train.write_text(whole)
    assert cli(*command).returncode == 0
    assert {t.state for t in cli.trials("s-revalidated")} <= STATES
