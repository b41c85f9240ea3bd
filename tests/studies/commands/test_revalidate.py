"""The best configurations again: which, with which seeds, and what becomes of the results."""

from __future__ import annotations

import json
import os
from pathlib import Path
import signal
import statistics

import optuna
from optuna.artifacts import get_all_artifact_meta
from optuna.trial import TrialState
from optuna_dashboard import get_note
import pytest

from objective.run.interpreter import find_interpreter
from objective.run.interpreter import Interpreter
from objective.testbed.runtime import Runtime
from objective.testbed.source import TestbedError
from studies.budget import Budget
from studies.budget import is_evaluated
from studies.code_agent.agent import run_agent
from studies.code_agent.sources import SourceLost
from studies.errors import Misuse
from studies.repetitions import repetitions
from studies.revalidation import FIRST_SEED
from studies.revalidation import queue_repetitions
from studies.revalidation import repetition_facts
from studies.revalidation import run_repetitions
from studies.revalidation import Work
from studies.spec import Editing
from studies.spec import Limits
from studies.spec import RUNTIME
from studies.spec import Spec
from studies.spec import stored_runtime
from studies.spec import Where
from studies.storage.open import open_storage
from studies.storage.recovery import MAX_RETRY
from studies.study import run_study
from tests.studies.conftest import Cli
from tests.studies.conftest import Gate
from tests.studies.conftest import needs_sandbox
from tests.studies.scripted import edit
from tests.studies.scripted import make_testbed
from tests.studies.scripted import ScriptedChat
from tests.studies.storage.test_recovery import kill


@pytest.fixture
def noisy(testbed: Path) -> Path:
    """The testbed with a value that its training seed moves by thousandths."""
    train = testbed / "train.py"
    text = train.read_text().replace("import math\n", "import math\nimport os\n")
    seed = 'int(os.environ.get("AUTORESEARCH_SEED", "42"))'
    text = text.replace("+ 3))\n", f"+ 3) + {seed} % 1000 / 1000)\n")
    assert "AUTORESEARCH_SEED" in text
    train.write_text(text)
    return testbed


def make_study(
    folder: Path,
    testbed: Path | None,
    trials: int = 1,
    limits: Limits = Limits(),
    surrogate: str | None = None,
    runtime: Runtime = Runtime(),
) -> Work:
    """A study of random search, stored, and the work of repeating its best."""
    url = f"sqlite:///{folder}/autoresearch.db"
    budget = Budget(trials=trials, train_seconds=None if testbed is None else 0.05)
    where = Where(url, testbed=testbed, surrogate=surrogate, runtime=runtime)
    run_study(Spec(where, "s", "random", 0, budget, limits))
    return Work(where, "s")


def repeat(work: Work, repeats: int) -> optuna.Study:
    """Do the command's work for one study, in this process."""
    queue_repetitions(work, open_storage(work.where.storage), repeats)
    run_repetitions(work, lambda message: None)
    return optuna.load_study(study_name="s-revalidated", storage=work.where.storage)


def load(work: Work) -> optuna.Study:
    return optuna.load_study(study_name="s", storage=work.where.storage)


def test_the_best_of_each_study_is_trained_again_with_seeds_that_no_trial_had(
    cli: Cli, noisy: Path
) -> None:
    common = ["--testbed", noisy, "--train-seconds", "0.05s", "--memory-limit", "500M"]
    for method in ("random", "cma-es"):
        words = ["run", "--method", method, "--study", method, "--trials", 4, *common]
        assert cli(*words).returncode == 0
    before = {name: [t.user_attrs for t in cli.trials(name)] for name in ("random", "cma-es")}
    done = cli("revalidate", "--repeats", 2, "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["study"]: row for row in json.loads(done.stdout)["studies"]}
    assert rows.keys() == before.keys()
    for name, row in rows.items():
        best = min(cli.trials(name), key=lambda t: t.value or 999)
        assert best.value is not None
        again = cli.trials(f"{name}-revalidated")
        assert [t.params for t in again] == [best.params] * 2
        seeds = [t.user_attrs["train_seed"] for t in again]
        assert seeds == [FIRST_SEED, FIRST_SEED + 1]
        # The script's own seed is 42; the value moves with it and with nothing else.
        expected = [best.value - 0.042 + seed % 1000 / 1000 for seed in seeds]
        assert [t.user_attrs["val_bpb"] for t in again] == pytest.approx(expected)
        assert row["values"] == pytest.approx(expected)
        assert row["mean"] == pytest.approx(statistics.fmean(expected))
        assert row["sd"] == pytest.approx(statistics.stdev(expected))
        assert (row["trial"], row["best"]) == (best.number, best.value)
        attrs = optuna.load_study(study_name=f"{name}-revalidated", storage=cli.storage).user_attrs
        assert attrs["revalidates"] == name and "method" not in attrs
        assert [t.user_attrs for t in cli.trials(name)] == before[name]
    again_twice = cli("revalidate", "--repeats", 2, "--json")
    assert json.loads(again_twice.stdout) == json.loads(done.stdout)


def test_a_repetition_whose_script_is_lost_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> float:
        raise SourceLost("the script is not there")

    work = make_study(tmp_path, None, surrogate="embedded")
    monkeypatch.setattr("studies.revalidation._objective", lambda *_: lost)
    for _ in range(MAX_RETRY + 2):
        with pytest.raises(SourceLost):
            repeat(work, 1)
    monkeypatch.undo()
    trials = repeat(work, 1).trials
    assert [is_evaluated(t) for t in trials] == [False] * (MAX_RETRY + 2) + [True]


def test_more_repeats_add_to_those_that_are_there(testbed: Path, tmp_path: Path) -> None:
    work = make_study(tmp_path, testbed)
    first = [t.datetime_complete for t in repeat(work, 2).trials]
    more = repeat(work, 3).trials
    assert [t.datetime_complete for t in more[:2]] == first
    assert [t.user_attrs["train_seed"] for t in more] == [FIRST_SEED + i for i in range(3)]


def test_the_interpreter_is_sought_once_for_all_repetitions(
    testbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = make_study(tmp_path, testbed, trials=1)
    sought: list[Path] = []

    def find(folder: Path, python: str | None) -> Interpreter:
        sought.append(folder)
        return find_interpreter(folder, python)

    monkeypatch.setattr("objective.objective.find_interpreter", find)
    assert [t.user_attrs["status"] for t in repeat(work, 3).trials] == ["ok"] * 3
    assert sought == [testbed]


def test_limits_are_those_that_the_study_recorded(testbed: Path, tmp_path: Path) -> None:
    train = testbed / "train.py"
    limit = "import resource\nprint('limit', resource.getrlimit(resource.RLIMIT_AS))\n"
    train.write_text(limit + train.read_text() + "print('budget', prepare.TIME_BUDGET)\n")
    work = make_study(tmp_path, testbed, limits=Limits(memory_mb=777))
    logs = []
    storage = open_storage(work.where.storage)
    store = optuna.artifacts.FileSystemArtifactStore(tmp_path / "autoresearch-artifacts")
    for trial in (load(work).trials[0], repeat(work, 1).trials[0]):
        metas = get_all_artifact_meta(trial, storage=storage)
        (log,) = [m.artifact_id for m in metas if m.filename == "train.log"]
        with store.open_reader(log) as file:
            lines = file.read().decode().splitlines()
        logs.append([line for line in lines if line.startswith(("limit", "budget"))])
    assert logs[0] == logs[1] and "budget 0.05" in logs[0]


def test_what_a_later_command_leaves_out_is_no_limit_of_a_repetition(
    testbed: Path, tmp_path: Path
) -> None:
    limits = Limits(wall_seconds=59)
    make_study(tmp_path, testbed, trials=1, limits=limits, runtime=Runtime(env=("SIZE=large",)))
    work = make_study(tmp_path, testbed, trials=2)
    storage = open_storage(work.where.storage)
    attrs = optuna.load_study(study_name="s", storage=storage).user_attrs
    assert attrs["wall_seconds"] is None and attrs[RUNTIME] is None
    assert stored_runtime(attrs) == Runtime()
    assert repeat(work, 1).trials[0].user_attrs["status"] == "ok"


def test_variables_are_those_of_the_study_but_for_keys(
    testbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = testbed / "train.py"
    show = "import os\nprint('secret_digits:', len(os.environ['SIZE'] + os.environ['API_KEY']))\n"
    train.write_text(show + train.read_text())
    runtime = Runtime(env=("SIZE=large", "API_KEY=k1"))
    work = make_study(tmp_path, testbed, runtime=runtime)
    assert load(work).user_attrs[RUNTIME]["env"] == ["SIZE=large", "API_KEY"]
    (trial,) = repeat(work, 1).trials  # at the end of a run, which has the key
    assert trial.user_attrs["secret_digits"] == 7
    later = Work(Where(work.where.storage), "s")
    with pytest.raises(TestbedError, match="--env API_KEY must be set here"):
        repeat(later, 2)
    monkeypatch.setenv("API_KEY", "k2")
    assert repeat(later, 2).trials[1].user_attrs["secret_digits"] == 7


def test_repetitions_of_what_is_no_longer_the_best_are_not_taken_for_the_best_ones(
    testbed: Path, tmp_path: Path
) -> None:
    work = make_study(tmp_path, testbed, trials=1)
    assert [t.params for t in repeat(work, 1).trials] == [load(work).trials[0].params]
    make_study(tmp_path, testbed, trials=8)
    best = min(load(work).trials, key=lambda t: t.value or 999)
    assert best.number > 0
    again = repeat(work, 1)
    assert [t.params for t in again.trials] == [load(work).trials[0].params, best.params]
    storage = open_storage(work.where.storage)
    facts = repetition_facts(storage, "s")
    assert [(row["trial"], len(row["values"])) for row in facts] == [(best.number, 1), (0, 1)]


def test_finalists_of_a_run_are_repeated_as_often_as_the_best_since_best_is_one_of_them(
    cli: Cli, noisy: Path
) -> None:
    words = ["--testbed", noisy, "--train-seconds", "0.05s", "--memory-limit", "500M"]
    done = cli("run", "--method", "random", "--study", "s", "--trials", 8, "--confirm", 2, *words)
    assert done.returncode == 0, done.stderr
    done = cli("revalidate", "--repeats", 3, "--json")
    rows = json.loads(done.stdout)["studies"]
    assert [len(row["values"]) for row in rows] == [3, 3], rows
    assert [row["study"] for row in rows] == ["s", "s"]
    winner = json.loads(cli("best", "--json").stdout)
    assert winner["trial"] == min(rows, key=lambda row: row["mean"])["trial"]
    assert len(winner["repeated"]["values"]) == 3


def test_more_than_the_best_can_be_trained_again(cli: Cli, testbed: Path) -> None:
    make_study(cli.folder, testbed, trials=4)
    done = cli("revalidate", "--best", 2, "--repeats", 1, "--json")
    rows = json.loads(done.stdout)["studies"]
    ranked = sorted(cli.trials("s"), key=lambda t: t.value or 999)
    assert {row["trial"] for row in rows} == {t.number for t in ranked[:2]}
    assert [len(row["values"]) for row in rows] == [1, 1]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("train.py", "s: its testbed or surrogate was edited since"),
        ("helper.py", "s: files of its testbed were edited since (helper.py was edited)"),
    ],
)
def test_an_edited_testbed_is_not_what_the_study_was_trained_with(
    cli: Cli, testbed: Path, name: str, said: str
) -> None:
    (testbed / "helper.py").touch()
    make_study(cli.folder, testbed)
    (testbed / name).write_text((testbed / name).read_text() + "\n# edited\n")
    done = cli("revalidate", "--repeats", 1)
    assert done.returncode == 1
    assert said in done.stderr.splitlines()[-1]
    assert not [t for t in cli.trials("s-revalidated") if is_evaluated(t)]


def test_a_study_without_a_success_is_left_out_unless_it_is_asked_for(
    cli: Cli, testbed: Path
) -> None:
    make_study(cli.folder, testbed)
    optuna.create_study(storage=cli.storage, study_name="other")
    with pytest.raises(Misuse, match="other"):
        queue_repetitions(Work(Where(cli.storage), "other"), open_storage(cli.storage), 1)
    assert "nothing" in cli.fails(2, "revalidate", "--study", "nothing")


def test_no_empty_table_is_shown_where_nothing_can_be_repeated(cli: Cli) -> None:
    optuna.create_study(storage=cli.storage, study_name="other")
    (line,) = cli("revalidate").stdout.splitlines()
    assert line.startswith("left out: study 'other' doesn't say what it was trained with")


def test_a_failed_repetition_is_a_result_and_not_repeated(testbed: Path, tmp_path: Path) -> None:
    train = testbed / "train.py"
    script = train.read_text().replace("import math\n", "import math\nimport os\n")
    train.write_text(script + 'if os.environ.get("AUTORESEARCH_SEED") == "1002":\n    1 / 0\n')
    work = make_study(tmp_path, testbed)
    for _ in range(2):
        again = repeat(work, 3)
        assert [t.state for t in again.trials] == [
            TrialState.COMPLETE,
            TrialState.FAIL,
            TrialState.COMPLETE,
        ]
    assert again.trials[1].user_attrs["status"] == "crash"
    assert "val_bpb" not in again.trials[1].user_attrs


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")
def test_a_repetition_that_takes_its_machine_down_is_not_queued_anew(
    testbed: Path, tmp_path: Path
) -> None:
    work = make_study(tmp_path, testbed, trials=1)
    storage = open_storage(work.where.storage)
    assert queue_repetitions(work, storage, 1) == 1
    again = optuna.load_study(study_name="s-revalidated", storage=storage)
    for _ in range(MAX_RETRY + 1):
        kill(again.ask(load(work).trials[0].distributions))
    assert queue_repetitions(work, storage, 1) == 0
    assert [r.failed for r in repetitions(storage, load(work)).values()] == [1]


def test_on_a_surrogate_repetitions_have_fresh_noise(surrogate: Path, tmp_path: Path) -> None:
    work = make_study(tmp_path, None, trials=20, surrogate=str(surrogate))
    again = repeat(work, 5)
    best = min(load(work).trials, key=lambda t: t.value or 999)
    assert [t.params for t in again.trials] == [best.params] * 5
    assert all(t.user_attrs["status"] in ("ok", "oom") for t in again.trials)
    shown = get_note(optuna.Trial(again, again.trials[-1]._trial_id))
    assert shown.startswith(f"Runs trial {best.number} again") and len(shown.splitlines()) == 2


@needs_sandbox
def test_of_a_code_study_the_best_script_is_run_again_in_the_sandbox(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/code.db"
    prepared = tmp_path / "prepared"
    bed = make_testbed(tmp_path / "bed")
    with open(bed / "prepare.py", "a") as file:
        file.write(f"\nif __name__ == '__main__':\n    open('{prepared}', 'a').write('x')\n")
    where, budget = Where(url, testbed=bed), Budget(3, None, 0.05)
    spec = Spec(where, "s", "karpathy-code", 0, budget, editing=Editing(baselines=1))
    replies = [edit("better", "RATE = 0.5", "RATE = 0.2"), edit("worse", "RATE = 0.2", "RATE = 2")]
    original = run_agent(spec, chat=ScriptedChat(replies))
    work = Work(where, "s")
    prepared.unlink()
    again = repeat(work, 2)
    assert prepared.read_text() == "x", "once, since a sandbox can't keep what it makes"
    best = original.trials[1]
    assert best.user_attrs["description"] == "better"
    for trial in again.trials:
        assert trial.user_attrs["val_bpb"] == best.user_attrs["val_bpb"] == pytest.approx(1.51)
        assert trial.user_attrs["source_sha256"] == best.user_attrs["source_sha256"]
        assert trial.user_attrs["isolation"] == best.user_attrs["isolation"] != "none"
        assert trial.params == {}


def test_after_kill_9_the_killed_repetition_is_run_again(cli: Cli, testbed: Path) -> None:
    gate = Gate(testbed, through=3)  # two trials and a repetition
    budget = Budget(trials=2, train_seconds=0.05)
    where = Where(cli.storage, testbed=testbed)
    run_study(Spec(where, "s", "random", 0, budget))
    process = cli.start("revalidate", "--repeats", 2, "--workers", 1)
    gate.wait(held=1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    gate.open()
    work = Work(where, "s")
    trials = repeat(work, 2).trials
    ended = [t for t in trials if is_evaluated(t)]
    assert [t.user_attrs["train_seed"] for t in ended] == [FIRST_SEED, FIRST_SEED + 1]
    assert len(trials) == 3 and trials[1].state == TrialState.FAIL
