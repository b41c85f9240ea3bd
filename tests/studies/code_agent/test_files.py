"""Several files are edited as one text: stored, shown, checked, run, tuned and written as files."""

from __future__ import annotations

from pathlib import Path
import subprocess

import optuna
import pytest

from objective import Testbed
from studies.best import find_winner
from studies.best import scripts
from studies.code_agent.edit_blocks import apply_edits
from studies.code_agent.edit_blocks import EditError
from studies.code_agent.edit_blocks import parse_edits
from studies.code_agent.export import write_patches
from studies.code_agent.files import constants_of
from studies.code_agent.files import join
from studies.code_agent.files import split
from studies.code_agent.files import unedited
from studies.code_agent.files import with_constants
from studies.code_agent.sources import diff
from studies.code_agent.sources import Sources
from studies.code_agent.validator import check_source
from studies.code_agent.validator import ValidationError
from studies.commands.work.best import write
from studies.errors import Misuse
from studies.spec import Where
from studies.storage.open import open_artifacts
from studies.storage.open import open_storage
from tests.studies.code_agent.conftest import Bench
from tests.studies.scripted import edit
from tests.studies.scripted import ScriptedChat
from tests.studies.scripted import TRAIN


MODEL = """\
from __future__ import annotations

SLOPE = 1.0


def activation(x):
    return SLOPE * abs(x)
"""
OTHER = TRAIN.replace(
    "def activation(x):\n    # (a remark)\n    return abs(x)\n", "from model import activation\n"
)
BOTH = join({"train.py": OTHER, "model.py": MODEL})
FLATTER = (
    "DESCRIPTION: flatter\nmodel.py\n" + edit("", "SLOPE = 1.0", "SLOPE = 0.5").split("\n", 1)[1]
)


@pytest.fixture
def bed(bench: Bench) -> Path:
    (bench.testbed / "train.py").write_text(OTHER)
    (bench.testbed / "model.py").write_text(MODEL)
    return bench.testbed


@pytest.mark.parametrize(
    "text", ["", "a = 1", "a = 1\n", "a = 1\r\nb = 2\r\n", "\n\n", "# ####\n"]
)
def test_files_come_back_as_they_were(text: str) -> None:
    files = {"train.py": text, "layers/model.py": "x = 1\n"}
    assert split(join(files)) == files
    assert split(join({"other.py": text})) == {"train.py": text}


def test_a_block_is_for_the_file_that_the_line_before_it_names() -> None:
    edited = split(apply_edits(BOTH, parse_edits(FLATTER)))
    assert edited == {"train.py": OTHER, "model.py": MODEL.replace("1.0", "0.5")}


@pytest.mark.parametrize(
    "line", ["model.py", "`model.py`", "### model.py", "**model.py**:", "File: model.py\n```"]
)
def test_lines_that_two_files_have_are_told_apart_by_the_name(line: str) -> None:
    both = join({"train.py": "X = 1\n", "model.py": "X = 1\n"})
    block = edit("", "X = 1", "X = 2").split("\n", 1)[1]
    assert split(apply_edits(both, parse_edits(f"{line}\n{block}")))["train.py"] == "X = 1\n"
    with pytest.raises(EditError, match="occur 2 times"):
        apply_edits(both, parse_edits(block))


@pytest.mark.parametrize(
    "reply, why",
    [
        (
            "prepare.py\n" + edit("", "X", "Y").split("\n", 1)[1],
            "one of train.py, model.py, but names prepare.py",
        ),
        (
            edit("", "#### model.py ####", "#### prepare.py ####"),
            "must leave the lines with the files' names",
        ),
    ],
)
def test_no_other_file_is_edited(reply: str, why: str) -> None:
    with pytest.raises(EditError, match=why):
        apply_edits(BOTH, parse_edits(reply))


@pytest.mark.parametrize(
    "name, old, new, why",
    [
        ("model.py", "return", "retrun", "^model.py: The script doesn't compile"),
        (
            "model.py",
            "SLOPE = 1.0",
            "import builtins",
            "^model.py: The script must not import builtins",
        ),
        (
            "train.py",
            "val_bpb = evaluate_bpb(loss)",
            "val_bpb = loss",
            "^train.py: The script must still call",
        ),
        ("model.py", "SLOPE = 1.0", "SLOPE = 1.0  # as it was", "comments aside, nothing changed"),
    ],
)
def test_each_file_must_keep_the_rules(name: str, old: str, new: str, why: str) -> None:
    files = split(BOTH)
    files[name] = files[name].replace(old, new)
    with pytest.raises(ValidationError, match=why):
        check_source(join(files), baseline=BOTH)


def test_a_file_can_not_change_for_another_what_that_imports() -> None:
    files = split(BOTH)
    files["model.py"] += "\n\ndef replace(module):\n    module.evaluate = abs\n"
    files["train.py"] = files["train.py"].replace(
        "seconds = train()", "import model as other\nother.replace(time)\nseconds = train()"
    )
    with pytest.raises(ValidationError, match="of a file changes an imported module"):
        check_source(join(files), baseline=BOTH)


def test_constants_of_all_files_are_set_where_they_stand_but_for_names_of_two() -> None:
    text = join({"train.py": "from model import A\nB = 1\nC = 2\n", "model.py": "A = 3\nC = 4\n"})
    assert {n: c.value for n, c in constants_of(text).items()} == {"B": 1, "A": 3}
    assert split(with_constants(text, {"A": 5, "B": 6})) == {
        "train.py": "from model import A\nB = 6\nC = 2\n",
        "model.py": "A = 5\nC = 4\n",
    }


@pytest.mark.parametrize(
    "name", ["prepare.py", "train.py", "nowhere.py", "../x.py", "task.md", "helper.py"]
)
def test_only_files_of_the_testbed_that_decide_no_value_may_be_edited(
    bed: Path, name: str
) -> None:
    (bed / "helper.py").write_text("")
    prepare = bed / "prepare.py"
    prepare.write_text(f"import helper\n{prepare.read_text()}")
    with pytest.raises(Misuse, match="--edit-files"):
        unedited(Testbed.load(bed), [name])


def test_a_study_edits_tunes_and_keeps_both_files(bench: Bench, bed: Path, tmp_path: Path) -> None:
    lower = edit("lower", "RATE = 0.5", "RATE = 0.3")
    chat = ScriptedChat([FLATTER, lower, *["no"] * 20])
    history = bench.run(chat, trials=3, files=("model.py",))
    assert [round(s.value or 0, 4) for s in history.steps] == [1.66, 1.535, 1.415]
    assert "#### model.py ####\nfrom __future__" in chat.requests[0].messages[-1]["content"]
    assert "All of these files" in chat.requests[0].messages[0]["content"]
    history = bench.run(ScriptedChat(["no"] * 20), trials=3, files=("model.py",))  # resumed
    baseline = unedited(Testbed.load(bed), ["model.py"])
    sources = Sources(open_artifacts(bench.options["storage"]), baseline)
    best = split(sources.load(history.lineage()[-1].user_attrs["source_sha256"]))
    assert bench.artifact(history.lineage()[-1], "model.py") == best["model.py"]
    # As patches, each for its file.
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, text in split(baseline).items():
        (copy / name).write_text(text)
    for patch in write_patches(history, sources, tmp_path / "patches"):
        subprocess.run(["patch", "-p1", "-i", patch], cwd=copy, check=True, capture_output=True)
    assert {name: (copy / name).read_text() for name in best} == best
    # As `best` prints and writes them.
    storage = open_storage(bench.options["storage"])
    study = optuna.load_study(study_name="code-test", storage=storage)
    winner = find_winner(study, storage)
    assert winner is not None
    _, before, after = scripts(winner, Where(bench.options["storage"]))
    assert split(after) == best
    assert [line for line in diff(before, after) if line.startswith("+++")] == [
        "+++ b/train.py",
        "+++ b/model.py",
    ]
    write(tmp_path / "won", after)
    assert {name: (tmp_path / "won" / name).read_text() for name in best} == best
    *firsts, last = best
    for name in firsts:
        (tmp_path / "won" / name).unlink()
    (tmp_path / "won" / last).write_text("mine")
    with pytest.raises(Misuse, match="is there and differs"):
        write(tmp_path / "won", after)
    assert not any((tmp_path / "won" / name).exists() for name in firsts), "all or none"


def test_the_tuner_finds_the_constants_of_the_other_file(bench: Bench, bed: Path) -> None:
    history = bench.run(ScriptedChat(["no"] * 20), trials=6, tune=0.8, files=("model.py",))
    assert any("SLOPE" in s.trial.user_attrs["description"] for s in history.tuned)
    slopes = {bench.artifact(s.trial, "model.py") for s in history.tuned}
    assert len(slopes) > 1


def test_a_study_with_other_files_is_another(bench: Bench, bed: Path) -> None:
    bench.run(ScriptedChat([]), trials=1, files=("model.py",))
    with pytest.raises(Misuse, match="edit_files"):
        bench.run(ScriptedChat([]), trials=2)
