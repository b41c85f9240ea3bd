"""The metric's name stands in one place: another one changes everything that people read."""

from __future__ import annotations

import io
import json
from pathlib import Path

import optuna
import pytest
from rich.console import Console

from objective.testbed.metric import METRIC
from objective.testbed.metric import Metric
from studies.code_agent.export import agent_facts
from studies.code_agent.export import agent_table
from studies.code_agent.export import write_results
from studies.code_agent.history import read_history
from studies.code_agent.prompt import build_prompt
from studies.code_agent.sources import Sources
from studies.facts import study_facts
from studies.storage.open import open_artifacts
from tests.studies.conftest import Cli
from tests.studies.scripted import ScriptedChat
from tests.studies.scripted import TRAIN


ACCURACY = Metric("accuracy", "maximize")
OLD = ("val_bpb", "bits per byte")


def names_accuracy(text: str) -> bool:
    return ACCURACY.name in text and not any(word in text for word in OLD)


def test_another_metric_changes_what_run_status_report_and_prompt_say(
    cli: Cli, testbed: Path, tmp_path: Path
) -> None:
    script = testbed / "train.py"
    script.write_text(script.read_text().replace(METRIC.name, ACCURACY.name))
    said = ("--metric", ACCURACY.name, "--direction", "maximize")
    study = ("run", "--testbed", testbed, *said, "--study", "s", "--trials", 2, "--method")

    done = cli(*study, "random")
    assert done.returncode == 0, done.stderr
    assert names_accuracy(done.stdout) and names_accuracy(done.stderr)
    stored = optuna.load_study(study_name="s", storage=cli.storage)
    assert stored.metric_names == ["accuracy"] and Metric.of(stored) == ACCURACY
    assert stored.best_trial.user_attrs["accuracy"] == stored.best_value

    status = cli("status", "--json").stdout
    assert names_accuracy(status)
    assert json.loads(status)[0]["best"]["accuracy"] == stored.best_value
    assert cli("report", "--out", tmp_path / "report", "--pictures", "svg").returncode == 0
    page = (tmp_path / "report" / "report.html").read_text()
    assert names_accuracy(page) and "Higher accuracy is better." in page
    assert names_accuracy((tmp_path / "report" / "trials.csv").read_text())
    pictures = [p.read_text() for p in tmp_path.glob("report/pictures/t*.svg")]
    assert pictures and all(map(names_accuracy, pictures))

    llm = ("--llm", "http://127.0.0.1:9/v1", "--model", "m", "--dry-run")
    assert names_accuracy(cli(*study[:-3], "--trials", 30, "--method", "centaur", *llm).stdout)

    unmeasured = script.read_text().replace("prepare.evaluate_bpb(", "(")
    script.write_text(unmeasured.replace(ACCURACY.name, "other"))
    failed = cli(*study[:7], "--study", "t", "--trials", 1, "--method", "random").stderr
    assert "no `accuracy: NUMBER`" in failed


def test_a_study_keeps_its_metric_and_how_its_script_is_run(cli: Cli, testbed: Path) -> None:
    run = ("run", "--testbed", testbed, "--study", "s", "--method", "random")
    assert cli(*run, "--trials", 1, "--metric", "val_bpb").returncode == 0
    more = (*run, "--trials", 2)
    assert "metric val_bpb, not loss" in cli.fails(2, *more, "--metric", "loss")
    assert "direction minimize, not maximize" in cli.fails(2, *more, "--direction", "maximize")
    command = ("--command", "DEPTH={DEPTH} LR={LR} PATTERN={PATTERN} python train.py")
    refused = cli(*more, *command)
    assert refused.returncode == 2
    noted, error = refused.stderr.splitlines()
    assert "the command sets DEPTH, LR, PATTERN, but no file reads that" in noted
    assert "command None, not DEPTH=" in error
    assert cli(*more).returncode == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--direction", "up"), "direction must be minimize or maximize, but got 'up'"),
        (("--metric", "val_acc"), "metric 'val_acc' must have a direction"),
        (("--metric", " "), "metric must be a name of 1 to 64 characters"),
        (("--metric", "training_seconds"), "'training_seconds', which is an attribute of trials"),
        (("--metric", " tid"), "metric must not be ' tid', which is an attribute of trials"),
        (("--metric-file", "/tmp/x"), "metric_file must be a file in the testbed's folder"),
        (("--config", "missing.yaml"), "missing.yaml must be readable, but: No such file"),
        (("--config", "train.py"), "must end in .json, .yaml, .yml or .toml, but got train.py"),
        (("--command", "python 'train.py"), "must be as in a shell, but: No closing quotation"),
        (("--command", "LR={LR}"), "The command must name a program"),
        (("--command", "python train.py {width}"), "{width} of the command must have a table"),
    ],
)
def test_what_can_not_be_meant_is_one_line(
    cli: Cli, testbed: Path, options: tuple[str, ...], message: str
) -> None:
    assert message in cli.fails(2, "run", "--testbed", testbed, "--method", "random", *options)
    assert not (cli.folder / "autoresearch.db").exists()


@pytest.mark.parametrize(
    "command", [("run", "--method", "cma-es"), ("compare", "--methods", "tpe")]
)
def test_the_papers_failures_are_no_successes(
    cli: Cli, testbed: Path, command: tuple[str, ...]
) -> None:
    more = (*command, "--testbed", testbed, "--trials", 1, "--protocol", "paper", "--dry-run")
    maximized = (*more, "--metric", "accuracy", "--direction", "maximize", "--no-check")
    assert "must be with --failure-value where accuracy" in cli.fails(2, *maximized)
    for accepted in (more, (*maximized, "--failure-value", "worst")):
        assert "--failure-value" not in cli(*accepted).stderr


def test_another_metric_changes_what_a_code_agent_reads_and_writes(tmp_path: Path) -> None:
    source = TRAIN.replace(METRIC.name, ACCURACY.name)
    sources = Sources(open_artifacts(f"sqlite:///{tmp_path}/x.db"), source)
    attrs = {"source": "startup", "status": "ok", "source_sha256": sources.baseline}
    trial = optuna.trial.create_trial(value=2.0, user_attrs=attrs)
    change = optuna.trial.create_trial(value=1.0, user_attrs={**attrs, "source": "llm"})
    change.number = 1
    history = read_history([trial, change], metric=ACCURACY)

    prompt = build_prompt(
        ScriptedChat([]), history, sources, lambda step: "", task="", reply_tokens=100
    )
    assert all(names_accuracy(message["content"]) for message in prompt)
    console = Console(record=True, width=120, file=io.StringIO())
    console.print(agent_table(agent_facts(history)))
    assert names_accuracy(console.export_text())
    write_results(history, tmp_path / "results.tsv")
    assert names_accuracy((tmp_path / "results.tsv").read_text())


def test_a_study_that_names_no_metric_has_the_default_one() -> None:
    study = optuna.create_study()
    study.set_user_attr("testbed_hash", "0")
    attrs = {"status": "ok", "val_bpb": 1.5}
    study.add_trial(optuna.trial.create_trial(value=1.5, user_attrs=attrs))
    assert Metric.of(study) == METRIC
    assert study_facts(study)["best"]["val_bpb"] == 1.5
