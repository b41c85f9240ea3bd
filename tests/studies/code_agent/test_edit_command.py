"""A coding agent of the user's own edits the script in a folder."""

from __future__ import annotations

import os
from pathlib import Path
import sys

import pytest

from objective.testbed.files import Files
from samplers._llm.chat import ChatUnavailable
from studies.code_agent.agent import run_agent
from studies.code_agent.edit_blocks import EditError
from studies.code_agent.edit_command import EditCommand
from studies.errors import Misuse
from tests.conftest import gone
from tests.studies.code_agent.conftest import Bench
from tests.studies.code_agent.conftest import outcomes


MESSAGES = [{"role": "system", "content": "Edit it."}, {"role": "user", "content": "RATE"}]


def command(folder: Path, body: str, arguments: str = "") -> str:
    """A command that runs these lines of Python."""
    script = folder / "editor.py"
    script.write_text(f"from pathlib import Path\nimport os, sys, time\n{body}\n")
    return f"{sys.executable} {script} {arguments}"


LOWER = """
path = Path("train.py")
path.write_text(path.read_text().replace("RATE = 0.5", "RATE = 0.3"))
print("DESCRIPTION: lower the rate")
"""


def test_what_it_leaves_in_the_script_is_the_proposal(bench: Bench) -> None:
    spec = bench.spec(trials=2, command=command(bench.folder, LOWER))
    run_agent(spec)
    history = bench.history()
    assert outcomes(history) == ["baseline", "kept"]
    trial = history.steps[-1].trial
    assert trial.user_attrs["description"] == "lower the rate"
    assert trial.user_attrs["RATE"] == 0.3
    talk = bench.artifact(trial, "llm-00001.md")
    assert "Edit train.py in place" in talk and "RATE = 0.5" in talk


def test_a_command_that_changes_nothing_is_asked_once_more_and_then_refused(bench: Bench) -> None:
    counting = 'print(f"DESCRIPTION: {sys.stdin.read().count(chr(35))}")'
    run_agent(bench.spec(trials=2, command=command(bench.folder, counting)))
    trial = bench.history().steps[-1].trial
    assert trial.user_attrs["status"] == "rejected"
    assert trial.user_attrs["llm_attempts"] == 2


def test_the_prompt_is_a_file_where_the_command_names_it_else_standard_input(
    tmp_path: Path,
) -> None:
    show = "print((open(sys.argv[1]) if sys.argv[1:] else sys.stdin).read() + os.getcwd())"
    for arguments in ("", "{prompt}"):
        editor = EditCommand(command(tmp_path, show, arguments), Files.of(tmp_path), 20)
        said = editor.edit(MESSAGES, "x = 1\n")[0].text
        assert said.startswith("Edit it.\n\nRATE\n/")


def test_a_script_of_another_name_is_there_once(tmp_path: Path) -> None:
    for name in ("fit.py", "model.py"):
        (tmp_path / name).write_text("RATE = 0.5\n")
    show = "print(*sorted(os.listdir()))"
    editor = EditCommand(command(tmp_path, show), Files.of(tmp_path, script="fit.py"), 20)
    said = editor.edit(MESSAGES, "RATE = 0.5\n")[0].text
    assert said.split() == ["PROMPT.md", "editor.py", "model.py", "train.py"]


def test_the_other_files_are_those_that_a_trial_has_also_when_they_were_edited_since(
    tmp_path: Path,
) -> None:
    (tmp_path / "model.py").write_text("RATE = 0.5")
    show = command(tmp_path, 'print(Path("model.py").read_text())')
    editor = EditCommand(show, Files.of(tmp_path), 20)
    (tmp_path / "model.py").write_text("RATE = 0.9")
    (tmp_path / "more.py").touch()
    assert editor.edit(MESSAGES, "x = 1\n")[0].text == "RATE = 0.5\n"


def test_what_is_no_python_file_in_spite_of_its_name_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("RATE = 0.5\n")
    (tmp_path / "folder.py").mkdir()
    (tmp_path / ".#train.py").symlink_to("somebody@host.1234:5678")  # as Emacs marks what it edits
    (tmp_path / ".hidden.py").touch()
    show = "print(*sorted(os.listdir()))"
    editor = EditCommand(command(tmp_path, show), Files.of(tmp_path), 20)
    said = editor.edit(MESSAGES, "x = 1\n")[0].text
    assert said.split() == ["PROMPT.md", "editor.py", "model.py", "train.py"]


def test_it_works_on_copies_in_a_folder_that_is_gone_afterwards(tmp_path: Path) -> None:
    (tmp_path / "prepare.py").write_text("A = 1\n")
    harm = """
Path("prepare.py").write_text("A = 2")
Path("train.py").write_bytes(b"x = 2\\r\\n")
Path("more.txt").write_text("more")
print(os.getcwd())
"""
    completion, source = EditCommand(command(tmp_path, harm), Files.of(tmp_path), 20).edit(
        MESSAGES, "x = 1\n"
    )
    assert source == "x = 2\r\n"
    assert (tmp_path / "prepare.py").read_text() == "A = 1\n"
    assert not Path(completion.text.strip()).exists()


def test_a_command_that_takes_too_long_is_stopped_with_what_it_started(tmp_path: Path) -> None:
    child = tmp_path / "child"
    slow = f"""
if os.fork() == 0:
    Path({str(child)!r}).write_text(str(os.getpid()))
time.sleep(600)
"""
    with pytest.raises(EditError, match="must end within 4 s"):
        EditCommand(command(tmp_path, slow), Files.of(tmp_path), 4).edit(MESSAGES, "x = 1\n")
    assert gone(int(child.read_text()))


@pytest.mark.parametrize(
    "body, rule",
    [
        ('os.remove("train.py")', "must be left"),
        ('os.remove("train.py"); os.symlink("/etc/hostname", "train.py")', "must be left"),
        ('Path("train.py").write_text("#" * 2_000_000)', "at most"),
    ],
)
def test_what_is_no_script_is_refused(tmp_path: Path, body: str, rule: str) -> None:
    with pytest.raises(EditError, match=rule):
        EditCommand(command(tmp_path, body), Files.of(tmp_path), 20).edit(MESSAGES, "x = 1\n")


def test_a_command_that_fails_stops_the_study_with_what_it_said(bench: Bench) -> None:
    broken = command(bench.folder, 'print("no key"); sys.exit(3)')
    with pytest.raises(ChatUnavailable, match="ended with status 3: no key"):
        run_agent(bench.spec(trials=3, command=broken))
    assert outcomes(bench.history()) == ["baseline"]


FAILS_LATER = """
calls = Path(sys.argv[1])
calls.write_text(calls.read_text() + "x" if calls.exists() else "x")
path = Path("train.py")
if len(calls.read_text()) in FAILURES:
    path.write_text("")
    sys.exit("overloaded")
path.write_text(path.read_text() + "#")
"""


def test_a_failure_after_a_success_is_waited_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = FAILS_LATER.replace("FAILURES", "(2, 3)")
    editor = EditCommand(command(tmp_path, body, f"{tmp_path}/calls"), Files.of(tmp_path), 20)
    monkeypatch.setattr("studies.code_agent.edit_command.FIRST_PAUSE", 0.01)
    assert editor.edit(MESSAGES, "x = 1\n")[1] == "x = 1\n#"
    assert editor.edit(MESSAGES, "x = 2\n")[1] == "x = 2\n#"
    assert (tmp_path / "calls").read_text() == "xxxx"


def test_a_failure_that_lasts_ends_it_in_spite_of_an_earlier_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = FAILS_LATER.replace("FAILURES", "range(2, 99)")
    editor = EditCommand(command(tmp_path, body, f"{tmp_path}/calls"), Files.of(tmp_path), 20)
    editor.edit(MESSAGES, "x = 1\n")
    monkeypatch.setattr("studies.code_agent.edit_command.PATIENCE", 0.6)
    with pytest.raises(ChatUnavailable, match="overloaded"):
        editor.edit(MESSAGES, "x = 1\n")
    assert (tmp_path / "calls").read_text() == "xxx"


@pytest.mark.parametrize("wrong", ["", "no-such-command --now", "'unclosed"])
def test_a_command_that_is_none_is_refused_before_anything_runs(bench: Bench, wrong: str) -> None:
    with pytest.raises(Misuse, match="--agent-command must"):
        run_agent(bench.spec(trials=2, command=wrong))
    assert not os.path.exists(f"{bench.folder}/results")
