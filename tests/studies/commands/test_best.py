"""``best``, and the repetitions at the end of a run that decide what it calls so."""

from __future__ import annotations

import json
import os
from pathlib import Path
import re
import subprocess
import sys

import optuna
import pytest

from studies.repetitions import SUFFIX
from tests.studies.commands.test_run import run
from tests.studies.conftest import Cli


@pytest.fixture
def noisy(testbed: Path) -> Path:
    """The testbed with a constant SEED, which moves its value by some hundredths."""
    train = testbed / "train.py"
    text = train.read_text().replace("import math\n", "import math\nimport random\n")
    text = text.replace("DEPTH = 4\n", "SEED = 0\nDEPTH = 4\n")
    text = text.replace("+ 3))\n", "+ 3) + random.Random(SEED).gauss(0, 0.02))\n")
    train.write_text(text)
    return testbed


def test_the_best_is_confirmed_and_can_be_written_and_run(cli: Cli, noisy: Path) -> None:
    done = cli(*run(noisy, trials=9))
    assert done.returncode == 0, done.stderr
    assert "more, with " in done.stdout
    assert "optuna-autoresearch best --study s" in done.stdout
    assert len(cli.trials("s")) == 9
    again = cli.trials("s" + SUFFIX)
    assert len(again) == 3 and {t.user_attrs["train_seed"] for t in again} == {1001}
    assert len({t.user_attrs["repeats_trial"] for t in again}) == len(again)

    facts = json.loads(cli("best", "--json").stdout)
    assert facts["study"] == "s" and facts["repeated"]["values"]
    assert facts["baseline"]["trial"] == 0 and facts["gain"] > 0
    before = (noisy / "train.py").read_text()
    diff = cli("best", "--diff").stdout
    assert f"+DEPTH = {facts['params']['DEPTH']}" in diff
    assert "must name a new file" in cli.fails(2, "best", "--write", noisy / "train.py")
    assert (noisy / "train.py").read_text() == before

    assert cli("best", "--write", noisy / "best.py").returncode == 0
    ran = subprocess.run(
        [sys.executable, "best.py"], cwd=noisy, capture_output=True, text=True, check=True
    )
    (value,) = re.findall(r"^val_bpb: (\S+)", ran.stdout, re.M)
    assert float(value) == pytest.approx(facts["value"], abs=1e-6), "the same seed as in its trial"
    assert cli("best", "--diff").stdout == diff, "the study goes on with its own script"
    (noisy / "train.py").write_text((noisy / "best.py").read_text())
    assert "was edited since" in cli.fails(2, "best", "--write", "new.py")


def test_a_diff_is_of_the_file_that_takes_the_values(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(
        "import json\nprint('loss:', json.load(open('conf.json'))['lr'])\n"
    )
    (tmp_path / "conf.json").write_text('{\n  "lr": 0.01\n}\n')
    words = ["run", "--method", "random", "--testbed", tmp_path / "main.py", "--metric", "loss"]
    assert cli(*words, "--config", "conf.json", "--trials", 3).returncode == 0
    lines = cli("best", "--diff").stdout.splitlines()
    assert lines[:2] == ["--- a/conf.json", "+++ b/conf.json"]


def test_a_configuration_above_the_script_is_given_as_seen_from_here(
    cli: Cli, tmp_path: Path
) -> None:
    script, base = tmp_path / "src" / "pkg" / "train.py", cli.folder / "configs" / "base.json"
    for folder in (script.parent, base.parent):
        folder.mkdir(parents=True)
    below = os.path.relpath(cli.folder, tmp_path)
    script.write_text(
        "import json, pathlib\nconfigs = pathlib.Path(__file__).parents[2].joinpath"
        f"({below!r}, 'configs')\nlr = json.loads((configs / 'base.json').read_text())['lr']\n"
        "print('loss:', lr * len(list(configs.iterdir())))\n"
    )
    base.write_text('{\n  "lr": 0.01\n}\n')
    (base.parent / "other.json").touch()
    words = ["run", "--method", "random", "--testbed", script, "--metric", "loss", "--confirm", 0]
    given = "configs/base.json"
    done = cli(*words, "--config", given, "--trials", 2)
    assert done.returncode == 0, done.stderr
    for trial in cli.trials("train.py-random-seed0"):
        assert trial.value == 2 * trial.params["lr"]
    seen = os.path.relpath(base, script.parent)
    assert cli(*words, "--config", seen, "--trials", 4).returncode == 0, "the same study"
    assert "lr" in cli("space", "--testbed", script, "--config", given).stdout
    name = os.path.relpath(base, tmp_path)
    assert cli("best", "--diff").stdout.splitlines()[:2] == [f"--- a/{name}", f"+++ b/{name}"]
    assert base.read_text() == '{\n  "lr": 0.01\n}\n'


def test_the_command_that_is_printed_runs_the_best_from_anywhere(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("A_TOKEN", "2")
    another = tmp_path / "programs" / "python"
    another.parent.mkdir()
    another.write_text("#!/bin/sh\nexit 3\n")
    another.chmod(0o755)
    monkeypatch.setenv("PATH", f"{another.parent}:{os.environ['PATH']}")
    top = tmp_path / "my project"
    script = top / "src" / "pkg" / "train.py"
    script.parent.mkdir(parents=True)
    (script.parent / "__init__.py").touch()
    (script.parent / "data.py").write_text("HERE = open('data.txt').read()\n")
    (top / "data.txt").touch()
    script.write_text(
        "import argparse, os\nfrom pkg.data import HERE\np = argparse.ArgumentParser()\n"
        "p.add_argument('--lr', type=float, default=0.5)\n"
        "print('loss:', p.parse_args().lr * int(os.environ['TIMES']) * int(os.environ['A_TOKEN']))\n"
    )
    subprocess.run(["git", "init", "-q", top], check=True)
    words = ["run", "--method", "random", "--testbed", script, "--metric", "loss"]
    words += [
        "--cwd",
        "../..",
        "--env",
        "TIMES=2",
        "--env",
        "A_TOKEN",
        "--trials",
        3,
        "--confirm",
        0,
    ]
    done = cli(*words)
    assert done.returncode == 0, done.stderr
    facts = json.loads(cli("best", "--json").stdout)
    command = facts["command"]
    assert f"to run it: {command}\n" in done.stdout and f"{command}\n" in cli("best").stdout
    assert command.startswith(
        f"cd '{top}' && TIMES=2 PYTHONPATH=src A_TOKEN=\"${{A_TOKEN?}}\" {sys.executable}"
        " src/pkg/train.py --lr="
    )
    ran = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert float(ran.stdout.split()[-1]) == facts["value"]
    assert f"to run it: {command}" in cli.fails(2, "best", "--diff")
    monkeypatch.delenv("A_TOKEN")
    failed = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert failed.returncode and "A_TOKEN" in failed.stderr
    another.unlink()
    another.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(another))
    assert '?}" python src' in cli("best").stdout
    (script.parent / "uv.lock").touch()
    (another.parent / "uv").symlink_to("/bin/false")
    uv = f"uv run --project '{script.parent}' python src"
    assert uv in cli("best").stdout, "and nothing is installed"
    (script.parent / "uv.lock").unlink()

    script.unlink()
    assert "to run it: python train.py --lr=" in cli("best").stdout


def test_a_script_that_is_the_best_as_it_is_is_said_to_be(cli: Cli, testbed: Path) -> None:
    assert "1 trial ok, 0 failed" in cli(*run(testbed, trials=1, confirm=0)).stdout
    done = cli("best", "--diff")
    assert done.stdout == "" and done.stderr == "no changes: the best is train.py as it is\n"
    written = cli("best", "--write", cli.folder / "new.py").stdout
    assert written.endswith("new.py (the best is train.py as it is)\n")
    assert json.loads(cli("best", "--json").stdout)["command"] is None


def test_no_other_file_is_replaced(cli: Cli, testbed: Path) -> None:
    assert cli(*run(testbed, trials=2)).returncode == 0
    precious = cli.folder / "precious.py"
    precious.write_text("print(1)\n")
    assert "is there and differs: name another" in cli.fails(2, "best", "--write", precious)
    assert precious.read_text() == "print(1)\n"
    folder = cli.folder / "some" / "where"
    assert cli("best", "--write", folder / "new.py").returncode == 0
    assert "is there and differs: name another" in cli.fails(2, "best", "--write", folder)
    assert cli("best", "--write", cli.folder / "new.py").returncode == 0
    assert (cli.folder / "new.py").read_text().count("DEPTH = ") == 1
    assert os.listdir(cli.folder).count("new.py") == 1
    assert cli("best", "--write", cli.folder / "new.py").returncode == 0, "the same again"


def test_a_study_of_another_program_is_shown_with_its_values(cli: Cli) -> None:
    for name in ("a", "b"):
        study = optuna.create_study(study_name=name, storage=cli.storage, direction="maximize")
        study.optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=3)
    assert "--study must be one of a, b" in cli.fails(2, "best")
    shown = cli("best", "--study", "b")
    assert shown.returncode == 0 and f"{study.best_params['x']:.5g}" in shown.stdout
    assert "revalidate" not in shown.stdout
    facts = json.loads(cli("best", "--study", "b", "--json").stdout)
    assert facts["params"] == study.best_params and facts["baseline"] is None
    assert "there are only its values" in cli.fails(2, "best", "--study", "b", "--diff")


def test_revalidate_is_advised_with_the_artifacts(cli: Cli, testbed: Path) -> None:
    kept = ("--artifacts", "kept here")
    advice = "revalidate --study s --artifacts 'kept here'"
    command = [*run(testbed, trials=1, confirm=0), *kept]
    for said in (cli(*command).stdout, cli("best", *kept).stdout):
        assert advice in said


def test_nothing_is_confirmed_where_nobody_wants_it(cli: Cli, testbed: Path) -> None:
    assert cli(*run(testbed, trials=8, confirm=0)).returncode == 0
    assert cli.trials("s" + SUFFIX) == []
    said = cli("best").stdout
    (advice,) = re.findall(r"to train it again: optuna-autoresearch (.*)", said)
    assert cli(*advice.split()).returncode == 0
    assert len(cli.trials("s" + SUFFIX)) == 3
    assert ": its script takes no seed" in cli("best").stdout
