from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import difflib
import json
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts import get_all_artifact_meta
from optuna.storages import RetryHeartbeatStaleTrialCallback
import pytest

from objective import Interface
from objective import Testbed
from objective import TestbedError
from objective import TrainScriptObjective
from objective import TrialFailed
from objective.objective import default_wall_seconds
from objective.reporter import Reporter
from objective.results import Results
from objective.run.folder import _remove
from objective.run.sandbox import find_sandbox
from objective.run.script import RunError
from objective.testbed.runtime import Runtime
from objective.worker import worker_mark
from tests.conftest import gone
from tests.conftest import not_here


# val_bpb is LR; KIND picks how the run ends.
TRAIN = """\
import time
LR = 1.0  # between 0.1 and 10
KIND = "ok"
for step in range(101):
    print(f"step {step:05d} ({step:.1f}%) | loss: {LR * (200 - step) / 100:.6f}", end="\\r")
if KIND == "oom":
    raise MemoryError
if KIND == "hang":
    import os
    open("PID-FILE", "w").write(str(os.getpid()))
    time.sleep(60)
print()
print("---")
print(f"val_bpb: {LR}")
print("training_seconds: 0.001")
print("peak_vram_mb: 12.5")
print("total_tokens_M: 0.25")
print("num_steps: 101")
print("num_params_M: 3.0")
"""
SPACE = """\
[LR]
type = "float"
low = 0.1
high = 10
log = true
[KIND]
type = "categorical"
choices = ["ok", "oom", "hang"]
"""


@pytest.fixture
def folder(testbed_folder: Callable[..., Path], tmp_path: Path) -> Path:
    train = TRAIN.replace("PID-FILE", str(tmp_path / "pid"))
    return testbed_folder(train, **{"search_space.toml": SPACE})


@pytest.fixture
def propagated() -> Iterator[None]:
    """Let pytest see what Optuna's logger says."""
    optuna.logging.enable_propagation()
    yield
    optuna.logging.disable_propagation()


def run_one(
    objective: TrainScriptObjective, params: dict[str, object], **optimize: object
) -> optuna.trial.FrozenTrial:
    """One trial of a new study with these parameters."""
    study = optuna.create_study()
    study.enqueue_trial(params)
    study.optimize(objective, n_trials=1, **optimize)  # type: ignore[arg-type]
    return study.trials[0]


def test_the_embedded_testbed_trains_and_is_recorded(tmp_path: Path) -> None:
    testbed = Testbed.load()
    store = FileSystemArtifactStore(tmp_path / "artifacts")
    (tmp_path / "artifacts").mkdir()
    objective = TrainScriptObjective(
        testbed, train_seconds=2, memory_limit_mb=4000, artifact_store=store, work_dir=tmp_path
    )
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/study.db")
    study.enqueue_trial(testbed.baseline)
    study.optimize(objective, n_trials=1)
    trial = study.trials[0]
    assert trial.user_attrs["status"] == "ok", trial.user_attrs
    assert trial.value == trial.user_attrs["val_bpb"]
    assert 0.5 < trial.user_attrs["val_bpb"] < 8
    assert 2 <= trial.user_attrs["training_seconds"] < trial.user_attrs["total_seconds"]
    assert trial.params == testbed.baseline
    assert trial.user_attrs["source"] == "enqueued"
    assert "effective" not in trial.user_attrs and "reason" not in trial.user_attrs
    for name in ("peak_memory_mb", "tokens_m", "steps", "params_m"):
        assert trial.user_attrs[name] > 0, name
    assert 1 <= len(trial.intermediate_values) <= 21
    assert all(0 <= step <= 100 for step in trial.intermediate_values)
    metas = {m.filename: m for m in get_all_artifact_meta(trial, storage=study._storage)}
    assert metas.keys() == {"train.py", "train.log"}
    assert all(meta.mimetype.startswith("text/plain") for meta in metas.values())
    with store.open_reader(metas["train.py"].artifact_id) as reader:
        assert reader.read().decode() == testbed.source, "the baseline is the script itself"
    with store.open_reader(metas["train.log"].artifact_id) as reader:
        assert b"\nval_bpb:" in reader.read()
    assert not list(tmp_path.glob("autoresearch-*")), "the trial's folder is removed"


def test_an_autoresearch_checkout_runs_unchanged_but_for_its_values(
    autoresearch: Path, tmp_path: Path
) -> None:
    store = FileSystemArtifactStore(tmp_path / "artifacts")
    (tmp_path / "artifacts").mkdir()
    objective = TrainScriptObjective(autoresearch, train_seconds=0.1, artifact_store=store)
    before = {p.name: p.read_bytes() for p in autoresearch.iterdir()}
    study = optuna.create_study()
    params = {**objective.testbed.baseline, "DEVICE_BATCH_SIZE": 100, "MATRIX_LR": 0.03}
    study.enqueue_trial(params)
    study.optimize(objective, n_trials=1)
    trial = study.trials[0]
    assert trial.user_attrs["status"] == "ok", trial.user_attrs
    assert trial.value == 1.02
    assert trial.params == params, "what was suggested stays as it was suggested"
    assert json.loads(trial.user_attrs["effective"]) == {"DEVICE_BATCH_SIZE": 128}
    assert trial.user_attrs["peak_memory_mb"] == 1234.5
    [script] = [
        meta.artifact_id
        for meta in get_all_artifact_meta(trial, storage=study._storage)
        if meta.filename == "train.py"
    ]
    ran = (tmp_path / "artifacts" / script).read_text()
    diff = difflib.unified_diff(objective.testbed.source.split("\n"), ran.split("\n"), n=0)
    assert [line for line in diff if line[:2] not in ("--", "++", "@@")] == [
        "-MATRIX_LR = 0.04        # learning rate for matrix parameters (Muon)",
        "+MATRIX_LR = 0.03        # learning rate for matrix parameters (Muon)",
    ]
    after = {p.name: p.read_bytes() for p in autoresearch.iterdir() if p.is_file()}
    assert after == before


def test_a_failure_has_a_class_and_a_value_behind_the_successes(
    folder: Path, caplog: pytest.LogCaptureFixture, propagated: None
) -> None:
    study = optuna.create_study()
    for lr, kind in ((1.0, "oom"), (2.0, "ok"), (3.0, "ok"), (1.0, "oom")):
        study.enqueue_trial({"LR": lr, "KIND": kind})
    study.optimize(TrainScriptObjective(folder), n_trials=4)
    first, _, _, trial = study.trials
    assert first.state == optuna.trial.TrialState.FAIL and first.user_attrs["status"] == "oom"
    assert trial.value == 4.0
    assert study.best_trial.number == 1
    assert [list(t.constraints.values()) for t in study.trials] == [[1.0], [-1.0], [-1.0], [1.0]]
    assert trial.user_attrs["status"] == "oom"
    assert trial.user_attrs["reason"] == "out of memory: MemoryError"
    assert "val_bpb" not in trial.user_attrs
    assert trial.user_attrs["training_seconds"] == trial.user_attrs["total_seconds"] > 0
    said = [r.getMessage() for r in caplog.records if " ended as " in r.getMessage()]
    assert said == [f"Trial {n} ended as oom: out of memory: MemoryError" for n in (0, 3)]


@pytest.mark.parametrize(
    "directions", [["minimize"], ["maximize", "maximize"]], ids=["other", "two"]
)
def test_a_study_of_another_direction_is_refused(folder: Path, directions: list[Any]) -> None:
    """Else the worst would be sought, and called the best."""
    testbed = Testbed.load(folder, interface=Interface(metric="accuracy", direction="maximize"))
    study = optuna.create_study(directions=directions)
    with pytest.raises(TestbedError, match=r"must maximize .* accuracy.*but got M[A-Z, ]+\.$"):
        study.optimize(TrainScriptObjective(testbed), n_trials=1)
    assert not study.trials[0].params


def test_a_failure_can_have_a_declared_value(folder: Path) -> None:
    objective = TrainScriptObjective(folder, failure_value=100.0)
    trial = run_one(objective, {"LR": 1.0, "KIND": "oom"})
    assert trial.value == 100.0 and trial.constraints == {}


def test_a_failure_without_a_value_makes_the_trial_fail(folder: Path) -> None:
    objective = TrainScriptObjective(folder, failure_value=None)
    with pytest.raises(TrialFailed, match="oom: out of memory: MemoryError"):
        run_one(objective, {"LR": 1.0, "KIND": "oom"})
    trial = run_one(objective, {"LR": 1.0, "KIND": "oom"}, catch=(TrialFailed,))
    assert trial.state == optuna.trial.TrialState.FAIL
    assert trial.user_attrs["status"] == "oom"


def test_intermediate_losses_are_reported_every_few_percent(folder: Path) -> None:
    trial = run_one(TrainScriptObjective(folder), {"LR": 1.0, "KIND": "ok"})
    assert trial.intermediate_values == {s: (200 - s) / 100 for s in range(0, 101, 5)}


def test_a_pruned_training_is_killed(folder: Path) -> None:
    study = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=5))
    objective = TrainScriptObjective(folder)
    for lr in (1.0, 9.0):
        study.enqueue_trial({"LR": lr, "KIND": "ok"})
    study.optimize(objective, n_trials=2)
    good, pruned = study.trials
    assert good.value == 1.0
    assert pruned.state == optuna.trial.TrialState.PRUNED
    assert "status" not in pruned.user_attrs and pruned.user_attrs["training_seconds"] > 0


def test_a_report_that_blocks_costs_the_training_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[object] = []
    training_has_ended = threading.Event()
    finish = Reporter.finish

    def end(reporter: Reporter) -> None:
        training_has_ended.set()
        finish(reporter)

    class Trial(optuna.trial.FixedTrial):
        def report(self, value: float, step: int) -> None:
            assert training_has_ended.wait(60), "longer than the wall limit"
            reported.append("user attributes" if self.user_attrs else step)

    monkeypatch.setattr(Reporter, "finish", end)
    trial = Trial({"LR": 2.0, "KIND": "ok"})
    objective = TrainScriptObjective(folder, wall_seconds=15)
    assert objective(trial) == 2.0  # type: ignore[arg-type]
    assert trial.user_attrs["status"] == "ok" and trial.user_attrs["val_bpb"] == 2.0
    assert reported == [0], "there is none meanwhile, and none after the trial has its attributes"


def test_an_error_of_a_report_is_raised_when_the_result_is_kept(
    folder: Path, tmp_path: Path
) -> None:
    class Storage(optuna.storages.InMemoryStorage):
        def set_trial_intermediate_value(self, *_: object) -> None:
            raise optuna.exceptions.StorageInternalError("away")

    kept = Results(tmp_path / "results")
    study = optuna.create_study(storage=Storage(), study_name="s")
    study.enqueue_trial({"LR": 2.0, "KIND": "ok"})
    with pytest.raises(optuna.exceptions.StorageInternalError, match="away"):
        study.optimize(TrainScriptObjective(folder, results=kept), n_trials=1)
    assert [result.value for result in kept.of("s")] == [2.0]
    assert "status" not in study.trials[0].user_attrs


def test_a_failure_is_kept_before_the_storage_is_asked_what_it_is_worth(
    folder: Path, tmp_path: Path
) -> None:
    class Storage(optuna.storages.InMemoryStorage):
        def get_all_trials(self, study_id: int, *arguments: Any, **options: Any) -> list[Any]:
            if any("KIND" in trial.params for trial in super().get_all_trials(study_id)):
                raise optuna.exceptions.StorageInternalError("away")
            return super().get_all_trials(study_id, *arguments, **options)

    kept = Results(tmp_path / "results")
    study = optuna.create_study(storage=Storage(), study_name="s")
    study.enqueue_trial({"LR": 2.0, "KIND": "oom"})
    with pytest.raises(optuna.exceptions.StorageInternalError, match="away"):
        study.optimize(TrainScriptObjective(folder, results=kept), n_trials=1)
    assert [result.attributes["status"] for result in kept.of("s")] == ["oom"]


def test_a_number_of_tokens_beyond_all_measure_costs_nothing_but_their_speed(
    testbed_folder: Callable[..., Path],
) -> None:
    train = TRAIN.replace("total_tokens_M: 0.25", "total_tokens_M: 1e305")
    folder = testbed_folder(train, **{"search_space.toml": SPACE})
    attrs = run_one(TrainScriptObjective(folder), {"LR": 2.0, "KIND": "ok"}).user_attrs
    assert attrs["status"] == "ok" and "tokens_per_second" not in attrs


def test_sqlite_in_memory_takes_reports(folder: Path) -> None:
    study = optuna.create_study(storage="sqlite://")
    study.enqueue_trial({"LR": 1.0, "KIND": "ok"})
    study.optimize(TrainScriptObjective(folder), n_trials=1)
    assert len(study.trials[0].intermediate_values) == 21


def test_the_training_time_is_set_in_the_scripts_own_constant(
    testbed_folder: Callable[..., Path],
) -> None:
    train = "LR = 1.0\nTIME_BUDGET = 5  # s\nprint('---\\nval_bpb:', TIME_BUDGET)\n"
    folder = testbed_folder(train)

    def seconds(**arguments: float) -> float | None:
        return run_one(TrainScriptObjective(folder, **arguments), {"LR": 1.0}).value  # type: ignore[arg-type]

    assert (seconds(), seconds(train_seconds=0.5)) == (5, 0.5)
    objective = TrainScriptObjective(folder, train_seconds=7.0)
    assert objective.limits.wall_seconds == 2 * 7 + 60
    for source, written in (
        (train, train.replace("5  # s", "7  # s")),
        *(
            (same, same)
            for same in (train.replace("5", "7.0"), "TIME_BUDGET = 1 + x", "no Python")
        ),
    ):
        assert objective._inputs({}, None, source).files == {"train.py": written}


def test_a_training_time_that_nothing_would_heed_is_refused(
    testbed_folder: Callable[..., Path], caplog: pytest.LogCaptureFixture, propagated: None
) -> None:
    folder = testbed_folder("LR = 1.0\n")
    TrainScriptObjective(folder, wall_seconds=9000)
    with pytest.raises(TestbedError, match="neither train.py nor prepare.py.*--wall-seconds"):
        TrainScriptObjective(folder, train_seconds=5)
    assert not caplog.records
    assert TrainScriptObjective(folder).limits.wall_seconds == 660
    assert "is killed after 660 s; `wall_seconds` sets another limit" in caplog.text
    assert default_wall_seconds(Testbed.load(folder), 10) == 80
    (folder / "prepare.py").write_text("import os\nTIME_BUDGET = float(os.environ['SECONDS'])\n")
    TrainScriptObjective(folder, train_seconds=5)


def test_what_is_no_module_is_not_copied(
    testbed_folder: Callable[..., Path], tmp_path: Path
) -> None:
    train = (
        "import os\nLR = 1.0\nprint(sorted(os.listdir()), os.listdir('parts'))\n"
        "import parts\nprint('---\\nval_bpb: 1')"
    )
    folder = testbed_folder(train, **{"helper.py": ""})
    (folder / "folder.py").mkdir()
    (folder / "parts").mkdir()
    (folder / "parts" / "__init__.py").touch()
    for lock in (folder / ".#train.py", folder / "gone.py", folder / "parts" / ".#x.py"):
        lock.symlink_to("user@host.123")  # as Emacs makes them
    (folder / ".hidden.py").touch()
    objective = TrainScriptObjective(folder, artifact_store=make_store(tmp_path))
    assert run_one(objective, {"LR": 1.0}).value == 1
    [log] = [p for p in (tmp_path / "artifacts").iterdir() if b"helper" in p.read_bytes()]
    assert "['helper.py', 'parts', 'train.py'] ['__init__.py']" in log.read_text()


def test_every_trial_of_an_objective_runs_the_same_program(
    testbed_folder: Callable[..., Path],
) -> None:
    train = "import helper, prepare\nLR = 1.0\nprint('val_bpb:', helper.VALUE + prepare.VALUE)\n"
    folder = testbed_folder(train, **{"helper.py": "VALUE = 1\n", "prepare.py": "VALUE = 1\n"})
    objective = TrainScriptObjective(folder)
    assert run_one(objective, {"LR": 1.0}).value == 2
    for name in ("helper.py", "prepare.py"):
        (folder / name).write_text("VALUE = 5\n")
    assert run_one(objective, {"LR": 1.0}).value == 2
    assert run_one(TrainScriptObjective(folder), {"LR": 1.0}).value == 10


def test_what_cannot_be_copied_is_named(
    testbed_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = testbed_folder("LR = 1.0\n", **{"data.csv": "0" * 200_000})

    def copyfile(source: Path, target: object) -> None:
        raise PermissionError(13, "Permission denied", str(source))

    monkeypatch.setattr(shutil, "copyfile", copyfile)
    with pytest.raises(RunError, match="must be copied to .*, but .*/data.csv: Permission denied"):
        run_one(TrainScriptObjective(folder), {"LR": 1.0})


def test_a_script_finds_its_files_variables_and_python(
    testbed_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINE", "1")
    train = (
        "import json, os, sys, parts.inner, above\nLR = 1.0\n"
        "data = open('data/numbers.txt').read(), json.load(open(here + '/config.json'))\n"
    ).replace("here", "os.path.dirname(__file__)")
    shown = "data, os.environ['MINE'], os.environ['OTHER'], os.environ.get('LEVEL'), os.listdir()"
    folder = testbed_folder(f"{train}print({shown})\nprint('---\\nval_bpb: 1')\n")
    for name, text in {
        "../data/numbers.txt": "1 2 3",
        "config.json": "[4]",
        "src/parts/inner.py": "",
        "../above/__init__.py": "",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    runtime = Runtime(f"env LEVEL=3 {sys.executable}", ("MINE", "OTHER=2"), ("../data",), "..")
    store = make_store(folder.parent)
    objective = TrainScriptObjective(Testbed.load(folder, runtime), artifact_store=store)
    assert run_one(objective, {"LR": 1.0}).value == 1
    logs = [p.read_text() for p in (folder.parent / "artifacts").iterdir()]
    assert "('1 2 3', [4]) 1 2 3 " in "\n".join(logs)


def test_a_sandbox_shows_what_is_linked_and_imported(
    testbed_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = find_sandbox()
    if sandbox is None:
        not_here("nothing here isolates a process")
    monkeypatch.setattr("objective.testbed.files._LARGE_BYTES", 10)
    reads = "open('large.txt').read() + open('in/large.txt').read()"
    folder = testbed_folder(f"import above\nLR = 1.0\nprint({reads})\nprint('---\\nval_bpb: 1')\n")
    (folder / "in").mkdir()
    (folder.parent / "above.py").touch()
    for name in ("large.txt", "in/large.txt"):
        (folder / name).write_text("more than ten")
    objective = TrainScriptObjective(folder, sandbox=sandbox)
    trial = run_one(objective, {"LR": 1.0})
    assert trial.user_attrs["status"] == "ok", trial.user_attrs


def test_a_source_of_somebody_elses_is_run_without_suggesting_anything(folder: Path) -> None:
    objective = TrainScriptObjective(folder)
    study = optuna.create_study()
    source = TRAIN.replace("LR = 1.0", "LR = 0.25")
    study.enqueue_trial({}, user_attrs={"source": "llm"})
    study.optimize(lambda trial: objective.run(trial, source), n_trials=1)
    trial = study.trials[0]
    assert (trial.value, trial.params) == (0.25, {})
    assert trial.user_attrs["source"] == "llm"


def test_seed_and_names_reach_the_script_and_modules_of_the_testbed_are_there(
    testbed_folder: Callable[..., Path],
) -> None:
    folder = testbed_folder(
        "import os, helper, parts.inner\nLR = 1.0\n"
        "print('---\\nval_bpb:', os.environ['AUTORESEARCH_SEED'])\n"
        "print('told:', os.environ['AUTORESEARCH_TRIAL'])\n"
        "print('is_named:', int('no-name-' in os.environ['AUTORESEARCH_STUDY']))\n",
        **{"helper.py": "", "unrelated.bin": "x"},
    )
    (folder / "parts").mkdir()
    for name in ("__init__.py", "inner.py"):
        (folder / "parts" / name).touch()
    trial = run_one(TrainScriptObjective(folder, train_seed=0), {"LR": 1.0})
    assert trial.value == 0.0
    assert (trial.user_attrs["told"], trial.user_attrs["is_named"]) == (0, 1)


def test_each_trial_may_train_with_a_seed_of_its_own(
    testbed_folder: Callable[..., Path],
) -> None:
    script = "import os\nLR = 1.0\nprint('val_bpb:', os.environ.get('AUTORESEARCH_SEED', 7))\n"
    seeded = testbed_folder(script)
    objective = TrainScriptObjective(seeded, vary_seed=True)
    study = optuna.create_study()
    study.enqueue_trial({"LR": 1.0})
    study.enqueue_trial({"LR": 1.0})
    study.optimize(objective, n_trials=2)
    assert [t.value for t in study.trials] == [t.user_attrs["train_seed"] for t in study.trials]
    assert len({t.value for t in study.trials}) == 2
    RetryHeartbeatStaleTrialCallback()(study, study.trials[0])  # as of a trial that was killed
    study.optimize(objective, n_trials=1)
    assert study.trials[2].value == study.trials[0].value
    repetition = run_one(objective.with_seed(3), {"LR": 1.0})
    assert repetition.value == 3 and "train_seed" not in repetition.user_attrs
    assert run_one(TrainScriptObjective(seeded), {"LR": 1.0}).value == 7
    assert run_one(TrainScriptObjective(seeded, train_seed=3, vary_seed=True), {}).value == 3


def test_a_script_that_takes_no_seed_is_given_none(testbed_folder: Callable[..., Path]) -> None:
    folder = testbed_folder("LR = 1.0\nprint('val_bpb:', LR)\n")
    with pytest.raises(TestbedError, match="seed of each trial's own must have a place"):
        TrainScriptObjective(folder, vary_seed=True)


@pytest.mark.parametrize(
    ("script", "interface"),
    [
        ("SEED = 1\nLR = 1.0\nprint('val_bpb:', LR)\n", Interface()),
        (
            "import os\nLR = 1.0\nprint('val_bpb:', os.environ['AUTORESEARCH_SEED'])\n",
            Interface(command="AUTORESEARCH_SEED=5 python train.py"),
        ),
    ],
)
def test_a_seed_that_is_tuned_or_given_is_no_place_for_another(
    script: str, interface: Interface, testbed_folder: Callable[..., Path]
) -> None:
    space = '[SEED]\ntype = "int"\nlow = 1\nhigh = 9\n' if "SEED =" in script else ""
    folder = testbed_folder(script, **({"search_space.toml": space} if space else {}))
    testbed = Testbed.load(folder, interface=interface)
    with pytest.raises(TestbedError, match="that nothing else sets"):
        TrainScriptObjective(testbed, vary_seed=True)


def test_a_source_that_a_sampler_gave_is_kept(folder: Path) -> None:
    class Sampler(optuna.samplers.RandomSampler):
        def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            study._storage.set_trial_user_attr(trial._trial_id, "source", "startup")

    study = optuna.create_study(sampler=Sampler(seed=0))
    study.enqueue_trial({"LR": 1.0, "KIND": "ok"})
    study.optimize(TrainScriptObjective(folder), n_trials=1)
    assert study.trials[0].user_attrs["source"] == "startup"


def test_a_trial_that_was_suggested_or_half_suggested_is_not_enqueued(folder: Path) -> None:
    trial = run_one(TrainScriptObjective(folder, wall_seconds=1), {"LR": 1.0})
    assert "source" not in trial.user_attrs


def test_a_configuration_can_be_measured_outside_any_study(folder: Path) -> None:
    trial = optuna.trial.FixedTrial({"LR": 2.0, "KIND": "ok"})
    assert TrainScriptObjective(folder)(trial) == 2.0  # type: ignore[arg-type]
    assert trial.user_attrs["status"] == "ok"


def test_every_storage_takes_what_is_recorded(
    folder: Path, storage: Callable[[], str | optuna.storages.BaseStorage]
) -> None:
    study = optuna.create_study(storage=storage())
    study.enqueue_trial({"LR": 0.5, "KIND": "ok"})
    study.optimize(TrainScriptObjective(folder), n_trials=1)
    assert study.trials[0].user_attrs["val_bpb"] == 0.5


def test_ctrl_c_kills_the_training_and_cleans_up(folder: Path, tmp_path: Path) -> None:
    program = f"""
import signal
import optuna
from objective import TrainScriptObjective
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background jobs
study = optuna.create_study(storage="sqlite:///{tmp_path}/study.db", study_name="s")
study.enqueue_trial({{"LR": 1.0, "KIND": "hang"}})
study.optimize(TrainScriptObjective({str(folder)!r}, work_dir={str(tmp_path / "work")!r}), 1)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    pid = wait_for_pid(tmp_path / "pid", process)
    # Python drops an interrupt that comes while an object is freed; a person would press again.
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        try:
            _, stderr = process.communicate(timeout=15)
            break
        except subprocess.TimeoutExpired:
            continue
    else:
        raise AssertionError("three interrupts ended nothing")
    assert stderr.rstrip().endswith("KeyboardInterrupt")
    assert gone(pid, 0.1)
    assert list((tmp_path / "work").iterdir()) == []
    [trial] = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/study.db").trials
    assert trial.state == optuna.trial.TrialState.FAIL
    assert trial.user_attrs["status"] == "interrupted"


def test_what_a_killed_runner_left_is_removed_by_the_next(folder: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    program = f"""
import optuna
from objective import TrainScriptObjective
study = optuna.create_study()
study.enqueue_trial({{"LR": 1.0, "KIND": "hang"}})
study.optimize(TrainScriptObjective({str(folder)!r}, work_dir={str(work)!r}), 1)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    pid = wait_for_pid(tmp_path / "pid", process)
    run_one(TrainScriptObjective(folder, work_dir=work), {"LR": 1.0, "KIND": "ok"})
    [left] = work.iterdir()
    process.kill()
    process.communicate()
    assert gone(pid, 10)
    assert (left / "run" / "train.py").exists(), "nobody was there to remove it"
    elsewhere = ["another machine", *worker_mark(0)[1:]]
    others = {"mine": worker_mark(0), "elsewhere": elsewhere, "odd": [1], "text": "?"}
    for name, mark in others.items():
        (work / f"autoresearch-{name}").mkdir()
        (work / f"autoresearch-{name}" / "worker.json").write_text(json.dumps(mark))
    for name in ("unmarked", "pipe", "deep"):
        (work / f"autoresearch-{name}").mkdir()
    os.mkfifo(work / "autoresearch-pipe" / "worker.json")  # blocks whoever opens it
    (work / "autoresearch-deep" / "worker.json").write_text("[" * 100_000)
    run_one(TrainScriptObjective(folder, work_dir=work), {"LR": 1.0, "KIND": "ok"})
    assert {p.name for p in work.iterdir()} == {
        f"autoresearch-{name}" for name in (*others, "unmarked", "pipe", "deep")
    }


def test_a_full_disk_stops_the_study(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copyfile(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    (folder / "data.csv").write_text("0" * 200_000)
    monkeypatch.setattr(shutil, "copyfile", copyfile)
    study = optuna.create_study()
    with pytest.raises(RunError, match="The disk of .* is full"):
        study.optimize(TrainScriptObjective(folder), n_trials=3, catch=(TrialFailed,))
    assert [trial.state for trial in study.trials] == [optuna.trial.TrialState.FAIL]


@pytest.mark.parametrize("name", ["train_seconds", "wall_seconds", "memory_limit_mb"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_limits_must_be_positive(folder: Path, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be positive, but got {value}"):
        TrainScriptObjective(folder, **{name: value})  # type: ignore[arg-type]


def make_store(folder: Path) -> FileSystemArtifactStore:
    (folder / "artifacts").mkdir()
    return FileSystemArtifactStore(folder / "artifacts")


def wait_for_pid(path: Path, process: subprocess.Popen[str]) -> int:
    """The process id that a script writes into a file."""
    while not (path.exists() and path.read_text()):
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.05)
    return int(path.read_text())


def test_a_folder_of_any_depth_is_removed(tmp_path: Path) -> None:
    home = os.getcwd()
    try:
        os.chdir(tmp_path)
        os.mkdir("trial")
        os.chdir("trial")
        for _ in range(1500):  # more than Python's limit of recursion
            os.mkdir("deeper")
            os.chdir("deeper")
    finally:
        os.chdir(home)
    _remove(tmp_path / "trial")
    assert list(tmp_path.iterdir()) == []
