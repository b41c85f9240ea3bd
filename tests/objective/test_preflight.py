from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import re
import subprocess

import pytest

from objective.preflight import preflight
from objective.preflight import short_run
from objective.testbed.interface import Interface
from objective.testbed.runtime import Runtime
from objective.testbed.testbed import Testbed
from tests.toy_testbed import write_testbed


Make = Callable[..., Path]


def test_a_sound_testbed_has_no_problem(testbed_folder: Make) -> None:
    train = (
        "import math, helper, pkg\nfrom . import x\ntry:\n    import gone\nexcept ImportError: pass\n"
        "if False:\n    import gone2\ndef f():\n    import gone3\nLR = 1\n"
    )
    folder = testbed_folder(train, **{"helper.py": ""})
    (folder / "src" / "pkg").mkdir(parents=True)
    (folder / "src" / "pkg" / "m.py").touch()
    found = preflight(Testbed.load(folder))
    assert (found.problems, found.notes) == ([], [])
    assert preflight(Testbed.load()).problems == []


@pytest.mark.parametrize(
    "line",
    ["print({})", "pages[{}] = 1", "p.add_argument('--lr', type={})", "{}"],
    ids=["print", "item", "type", "chain"],
)
def test_what_is_nested_deep_is_no_problem(testbed_folder: Make, line: str) -> None:
    deep = " + ".join(["'a'"] * 900) if line != "{}" else "b" + ".set('k', 1)" * 900
    source = f"LR = 0.1\nprint('val_bpb:', LR)\n{line.format(deep)}\n"
    assert preflight(Testbed.load(testbed_folder(source))).problems == []


def test_a_script_in_a_folder_of_its_own_finds_what_lies_beside_it(testbed_folder: Make) -> None:
    folder = testbed_folder("")
    (folder / "scripts").mkdir()
    (folder / "scripts" / "fit.py").write_text("import helper, gone\nLR = 1\n")
    (folder / "scripts" / "helper.py").touch()
    interface = Interface(command="python scripts/fit.py")
    (problem,) = preflight(Testbed.load(folder, interface=interface)).problems
    assert problem.startswith("scripts/fit.py must find gone, but")


def test_all_problems_are_told_at_once(
    testbed_folder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("objective.run.launch.GPU_FILES", ())
    monkeypatch.delenv("UNSET", raising=False)
    train = "import torchless, math\nimport torch\nLR = 1\nd = torch.device('cuda')\n"
    folder = testbed_folder(train, "import deeply.missing, torchless\n", **{"uv.lock": ""})
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # where there may be git, and is no uv
    runtime = Runtime(env=("UNSET",))
    problems = preflight(Testbed.load(folder, runtime)).problems
    assert len(problems) == 3
    assert "--env UNSET must be set here" in problems[0]
    assert "train.py and prepare.py must find torchless, deeply, but" in problems[1]
    assert f"make it by `uv sync` in {folder}" in problems[1]
    assert "train.py:4 asks for a GPU of CUDA (torch.device('cuda'))" in problems[2]
    wrong = Runtime(python="no-such-python", copy=("nothing*",), cwd="nowhere")
    told = " ".join(preflight(Testbed.load(folder, wrong)).problems)
    for part in ("no no-such-python here", "'nothing*' matches nothing"):
        assert part in told


@pytest.mark.parametrize(
    ("line", "needs"),
    [
        ("cap = torch.cuda.get_device_capability()", True),
        ("torch.cuda.synchronize()", True),
        ("d = torch.device('cuda' if torch.cuda.is_available() else 'cpu')", False),
        ("def f():\n    torch.cuda.synchronize()", False),
        ("if use_gpu:\n    torch.cuda.synchronize()", False),
        ("torch.cuda.manual_seed(1)", False),
        ("d = torch.device('cpu')", False),
    ],
)
def test_a_script_that_needs_a_gpu_is_told_from_one_that_asks_first(
    line: str, needs: bool, testbed_folder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("objective.run.launch.GPU_FILES", ())
    folder = testbed_folder(f"LR = 1\n{line}\n")
    assert bool(preflight(Testbed.load(folder)).problems) == needs
    monkeypatch.setattr("objective.run.launch.GPU_FILES", ("/dev/null",))
    assert preflight(Testbed.load(folder)).problems == []


def test_arguments_that_constants_leave_untuned_are_named(testbed_folder: Make) -> None:
    train = (
        "import argparse\np = argparse.ArgumentParser()\n"
        "p.add_argument('--lr', type=float, default=0.5)\np.add_argument('--log', default='x')\n"
    )
    assert preflight(Testbed.load(testbed_folder(train))).notes == []
    [note] = preflight(Testbed.load(testbed_folder(train + "EPS = 1e-8\n"))).notes
    assert note.startswith(
        "train.py has constants, which are tuned, and arguments, which are not (lr)"
    )


def test_variables_that_are_read_and_not_given_are_named(
    testbed_folder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = (
        "import os, wandb\nLR = 1\nos.environ.get('DATA_ROOT', 'sample'), os.environ['SLURM_CPUS']\n"
        "os.environ['SET_BY_IT'] = '1'\nos.getenv('GIVEN'), os.getenv('BY_COMMAND'), os.getenv('GONE')\n"
    )
    folder = testbed_folder(train, **{"conf.yaml": "out: ${oc.env:OUT_DIR,x}\n"})
    for name in (
        *("DATA_ROOT", "SLURM_CPUS", "SET_BY_IT", "GIVEN", "BY_COMMAND", "OUT_DIR"),
        *("WANDB_PROJECT", "WANDB_MODE", "MLFLOW_TRACKING_URI", "UNREAD"),
    ):
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.delenv("GONE", raising=False)
    monkeypatch.setattr("objective.preflight._check_interpreter", lambda *_: None)
    interface = Interface(command="BY_COMMAND=1 python train.py")
    [note] = preflight(Testbed.load(folder, Runtime(env=("GIVEN",)), interface)).notes
    names = ["DATA_ROOT", "OUT_DIR", "SLURM_CPUS", "WANDB_PROJECT"]
    assert note.endswith(" ".join(f"--env {name}" for name in names))
    assert f"not given to it: {', '.join(names)};" in note
    assert "hunter2" not in note


def test_variables_that_the_command_sets_and_nothing_reads_are_named(testbed_folder: Make) -> None:
    train = "import os\nlr = 1e-3\nwidth = float(os.environ.get('WIDTH', 8))\n"
    folder = testbed_folder(
        train, **{"other.py": "LR = 1", "run.sh": "DEPTH=$DEPTH python train.py"}
    )
    command = "LR={lr} WIDTH={width} OTHER=1 sh run.sh"
    loaded = Testbed.load(folder / "train.py", interface=Interface(command=command))
    (note,) = preflight(loaded).notes
    assert note.startswith("the command sets LR, but no file reads that")
    reads = Interface(command="LR={lr} sh -c 'python train.py --lr=$LR'")
    assert preflight(Testbed.load(folder / "train.py", interface=reads)).notes == []


def test_files_that_a_training_does_not_find_are_named(tmp_path: Path) -> None:
    scripts = write_testbed(
        tmp_path / "scripts",
        "import dataset\nLR = 1\nopen('data/a.csv'), open('fit.csv'), open('/etc/passwd')\n",
        **{"dataset.py": "'raw/', 'empty/', 'weights/', 'dataset.py'\n", "fit.csv": ""},
        **{"conf.yaml": "x: cache\ny: ${top}/more/\n", "unnamed.txt": ""},
    )
    for name in ("scripts/raw", "scripts/cache", "scripts/more", "scripts/weights", "data"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.csv").touch()
    (scripts / "weights" / "a.csv").rename(scripts / "weights" / "a.pt")
    (scripts / "empty").mkdir()
    assert preflight(Testbed.load(scripts)).notes == []  # all are there without git
    for words in ("init", "add scripts/train.py scripts/dataset.py scripts/conf.yaml"):
        subprocess.run(["git", "-C", tmp_path, *words.split()], check=True, capture_output=True)
    copy, cwd = preflight(Testbed.load(scripts)).notes
    assert "cache, more, raw; to have them there, add --copy cache --copy more --copy raw" in copy
    assert cwd.startswith(f"data/a.csv is there as seen from {tmp_path}")
    assert cwd.endswith("by --cwd ..")
    runtime = Runtime(copy=("raw", "cache", "more"), cwd="..")
    assert preflight(Testbed.load(scripts, runtime)).notes == []


def test_the_interpreter_that_was_taken_is_named(testbed_folder: Make) -> None:
    folder = testbed_folder("import inside\nLR = 1\n")
    subprocess.run(["python3", "-m", "venv", "--without-pip", folder / ".venv"], check=True)
    [site] = (folder / ".venv").glob("lib/python3*/site-packages")
    found = preflight(Testbed.load(folder))
    assert len(found.problems) == 1
    (site / "inside.py").touch()
    found = preflight(Testbed.load(folder))
    assert found.problems == []
    assert found.notes[0].startswith(f"python: {folder}/.venv/bin/python")
    assert found.notes[0].endswith("; .venv/bin/python)")


GOOD = "LR = 1\nprint('---\\nval_bpb:', LR, '\\ntraining_seconds:', TIME_BUDGET)\n"


@pytest.mark.parametrize(
    ("train", "problem", "note"),
    [
        (f"TIME_BUDGET = 300\n{GOOD}", "", "A training of 2 s printed val_bpb"),
        (
            f"TIME_BUDGET = 300\nopen('tokenizer.bin')\n{GOOD}",
            "as crash: .*tokenizer.bin'; .* --copy",
            "",
        ),
        ("TIME_BUDGET = 300\nLR = 1\n", "as no-metric: ", ""),
        (f"TIME_BUDGET = 300\n{GOOD.replace('LR,', 'float(1e999),')}", "", "says nothing of one"),
        ("TIME_BUDGET = 5\nLR = 1\n", "", ""),
        ("LR = 1\n", "", ""),
    ],
)
def test_two_seconds_show_what_a_look_does_not(
    train: str, problem: str, note: str, testbed_folder: Make
) -> None:
    found = short_run(Testbed.load(testbed_folder(train)), None, None)
    for expected, said in ((problem, found.problems), (note, found.notes)):
        assert bool(said) == bool(expected)
        assert re.search(expected, " ".join(said))


PRINTS = 'LR = 1\nloss = 2\nfor epoch in range(3):\n    print(f"epoch {epoch}: acc={LR}")\n'


@pytest.mark.parametrize(
    ("train", "others", "interface", "named"),
    [
        (PRINTS + 'print(f"loss: {loss:.5f}")\n', {}, Interface(), ["loss"]),
        (PRINTS, {}, Interface(), ["acc"]),
        (
            PRINTS + 'print(f"train_loss {loss:.4f}  val_acc {LR}%")\n',
            {},
            Interface(),
            ["val_acc"],
        ),
        (PRINTS + 'print("val_loss:", loss)\n', {}, Interface(), ["val_loss"]),
        (PRINTS + 'log.info("val_loss=%.3f" % loss)\n', {}, Interface(), ["val_loss"]),
        (PRINTS + 'print("val_loss: {:.4f}".format(loss))\n', {}, Interface(), ["val_loss"]),
        (PRINTS + 'print("val_loss: " + str(loss))\n', {}, Interface(), ["val_loss"]),
        (PRINTS + 'print("val_loss", loss)\n', {}, Interface(), ["val_loss"]),
        (PRINTS + 'x = ["val_loss", loss]; print(x, "loss")\n', {}, Interface(), ["acc"]),
        ("LR = 1\nimport helper\n", {"helper.py": 'print(f"auc={2}")\n'}, Interface(), ["auc"]),
        (PRINTS, {"prepare.py": "def evaluate_bpb(): return 1\n"}, Interface(), []),
        (PRINTS, {}, Interface(metric="acc", direction="maximize"), []),
        (PRINTS, {}, Interface(metric_file="m.json", metric="error"), []),
        (PRINTS + 'print(f"val_bpb: {loss}")\n', {}, Interface(), []),
        (PRINTS, {"helper.py": 'print("val_bpb:", 1)\n'}, Interface(), []),
        ("LR = 1\nimport helper\n", {}, Interface(), []),
        (PRINTS + 'print(f"{split}_loss: {loss}, Device: {d}")\n', {}, Interface(), ["acc"]),
        ('LR = 1\nprint("%s_loss: %.4f, building: %s" % x)\n', {}, Interface(), []),
        (PRINTS + 'print(f"{split}_bpb: {loss}")\n', {}, Interface(), []),
        (PRINTS, {"train.c": 'printf("val_bpb: %f", x);\n'}, Interface(), []),
        (PRINTS, {"program.md": "The metric is val_bpb.\n"}, Interface(), ["acc"]),
        (PRINTS, {"results.tsv": "commit\tval_bpb\n"}, Interface(), ["acc"]),
        (PRINTS, {"NOTES.TXT": "val_bpb"}, Interface(), ["acc"]),
        (PRINTS, {"results.json": '{"val_bpb": 1}\n'}, Interface(), ["acc"]),
        (PRINTS, {"m.yaml": "metric: val_bpb\n"}, Interface(), []),
        (PRINTS, {"m.toml": 'metric = "val_bpb"\n'}, Interface(), []),
    ],
)
def test_a_metric_that_nobody_named_is_asked_for_before_anything_is_trained(
    testbed_folder: Make,
    train: str,
    others: dict[str, str],
    interface: Interface,
    named: list[str],
) -> None:
    folder = testbed_folder(train, **{"helper.py": "", **others})
    (folder / "folder.py").mkdir()
    (folder / ".#train.py").symlink_to("somebody@host.1234:5678")  # as Emacs marks what it edits
    problems = preflight(Testbed.load(folder, interface=interface)).problems
    assert [problem.partition("say --metric ")[2].split()[0] for problem in problems] == named


@pytest.mark.parametrize(
    ("metric", "is_there"),
    [("accuracy", False), ("Acc", True), ("val.acc", True), ("epoch time", False), ("c", False)],
)
def test_a_named_metric_that_no_code_has_is_noted(
    testbed_folder: Make, metric: str, is_there: bool
) -> None:
    interface = Interface(metric=metric, direction="maximize")
    found = preflight(Testbed.load(testbed_folder(PRINTS), interface=interface))
    said = [note for note in found.notes if "unless a library prints it; acc is printed" in note]
    assert (found.problems, bool(said)) == ([], not is_there)
    written = Interface(metric=metric, direction="maximize", metric_file="result.txt")
    assert preflight(Testbed.load(testbed_folder(PRINTS), interface=written)).notes == []


def test_a_metric_that_a_folder_of_many_files_may_print_is_not_asked_for(
    testbed_folder: Make,
) -> None:
    folder = testbed_folder(PRINTS + "import pkg\n")
    (folder / "pkg").mkdir()
    for number in range(1001):
        (folder / "pkg" / f"{number}.txt").touch()
    (folder / "pkg" / "__init__.py").write_text('print(f"val_bpb: {1}")\n')
    assert preflight(Testbed.load(folder)).problems == []


def test_a_metric_is_not_there_for_being_named_in_the_space(testbed_folder: Make) -> None:
    folder = testbed_folder(PRINTS, **{"search_space.toml": 'metric = "lss"\n'})
    [note] = preflight(Testbed.load(folder)).notes
    assert "say --metric acc" in note


def test_what_is_no_module_names_no_metric(testbed_folder: Make) -> None:
    folder = testbed_folder(PRINTS)
    (folder / ".#train.py").symlink_to("user@host.123")  # as Emacs makes it
    (folder / "gone.py").symlink_to("nowhere")
    (folder / "folder.py").mkdir()
    [problem] = preflight(Testbed.load(folder)).problems
    assert "say --metric acc" in problem
