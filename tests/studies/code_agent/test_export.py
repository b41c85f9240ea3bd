"""A code study as a table, patches and facts."""

from __future__ import annotations

import csv
import io
from pathlib import Path
import subprocess

import pytest
from rich.console import Console

from objective.testbed.metric import Metric
from studies.code_agent.export import agent_facts
from studies.code_agent.export import agent_table
from studies.code_agent.export import write_patches
from studies.code_agent.export import write_results
from studies.code_agent.history import read_history
from studies.code_agent.prompt import build_prompt
from studies.code_agent.sources import changed_lines
from studies.code_agent.sources import diff
from studies.importing.foreign import read_file
from tests.studies.code_agent.conftest import Bench
from tests.studies.code_agent.conftest import BEST_RATE
from tests.studies.code_agent.conftest import BETTER_RATE
from tests.studies.code_agent.conftest import BUG
from tests.studies.code_agent.conftest import finished
from tests.studies.scripted import ScriptedChat
from tests.studies.scripted import TRAIN


# Exports.


def test_results_and_patches_tell_the_accepted_steps(bench: Bench, tmp_path: Path) -> None:
    history = bench.run(ScriptedChat([BETTER_RATE, BUG, BEST_RATE]), trials=4)
    write_results(history, tmp_path / "results.tsv")
    with open(tmp_path / "results.tsv", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    assert rows[0] == ["commit", "val_bpb", "memory_gb", "status", "description"]
    assert [row[3] for row in rows[1:]] == ["keep", "keep", "crash", "keep"]
    assert [row[1] for row in rows[1:]][2:] == ["0.000000", "1.500000"]
    assert all(len(row[0]) == 7 for row in rows[1:])

    patches = write_patches(history, bench.sources(), tmp_path / "patches")
    assert [p.name for p in patches] == [
        "0001-lower-the-rate.patch",
        "0002-lower-the-rate-more.patch",
    ]
    assert "trial 3: val_bpb 1.5000, gain 0.0400" in patches[1].read_text()
    named = write_patches(history, bench.sources(), tmp_path / "named", "fit.py")[0]
    assert "--- a/fit.py\n+++ b/fit.py\n" in named.read_text()
    work = tmp_path / "work"
    work.mkdir()
    (work / "train.py").write_text(TRAIN)
    for patch in patches:
        subprocess.run(["git", "apply", str(patch)], cwd=work, check=True)
    assert (work / "train.py").read_text() == TRAIN.replace("RATE = 0.5", "RATE = 0.1")


def test_what_has_no_value_is_a_crash_and_small_values_are_kept(tmp_path: Path) -> None:
    trials = [finished(0, "startup", 2.0), finished(1, "llm", 3e-7), finished(2, "llm", 3.0)]
    error = Metric("error_rate")
    write_results(read_history(trials, metric=error), tmp_path / "results.tsv")
    read = read_file(tmp_path / "results.tsv").trials
    # The second is a gain too large to be believed before it is trained again.
    assert [(t.status, t.value) for t in read] == [("ok", 2.0), ("unknown", None), ("ok", 3.0)]
    small = [finished(0, "startup", 4e-7), finished(1, "llm", 3.5e-7), finished(2, "llm", 0.0)]
    write_results(read_history(small, metric=error), tmp_path / "results.tsv")
    assert [t.value for t in read_file(tmp_path / "results.tsv").trials] == [4e-7, 3.5e-7, None]


def test_small_values_are_told_in_patches_and_to_the_model(bench: Bench, tmp_path: Path) -> None:
    sources = bench.sources()
    trials = [finished(0, "startup", 4e-9), finished(1, "llm", 3.5e-9)]
    trials[0].set_user_attr("source_sha256", sources.save(TRAIN))
    trials[1].set_user_attr("source_sha256", sources.save(TRAIN + "# better\n"))
    trials[1].set_user_attr("parent", 0)
    history = read_history(trials)
    (patch,) = write_patches(history, sources, tmp_path)
    assert "trial 1: val_bpb 3.5e-09, gain 5e-10" in patch.read_text()
    request = build_prompt(
        ScriptedChat([]), history, sources, lambda _: "", task="", reply_tokens=1
    )
    assert "KEPT, val_bpb 3.5e-09, best before 4e-09" in request[-1]["content"]


def test_values_of_a_small_metric_keep_their_digits() -> None:
    trials = [finished(0, "startup", 3.1e-4), finished(1, "startup", 3.3e-4)]
    trials += [finished(2, "llm", 2.8e-4), finished(3, "llm", 1e-5)]
    history = read_history(trials)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(agent_table(agent_facts(history)))
    text = console.export_text()
    assert "val_bpb 0.00032 (unedited, repeated: standard deviation 1.414e-05) -> 0.00028" in text
    assert "improved by more than 2.828e-05" in text and "came to 1e-05, a gain too large" in text
    assert "0.0003 " not in text and "0.0000" not in text


def test_the_facts_count_what_applied_ran_and_improved(bench: Bench) -> None:
    replies = [BETTER_RATE, BUG, "no", "no"]
    facts = agent_facts(bench.run(ScriptedChat(replies), trials=4))
    counts = {k: facts[k] for k in ("proposals", "rejected", "applied", "measured", "kept")}
    assert counts == {"proposals": 3, "rejected": 1, "applied": 2, "measured": 1, "kept": 1}
    assert facts["outcomes"] == {"kept": 1, "crash": 1, "rejected": 1}
    assert facts["llm"]["completion_tokens"] > 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("A = 1\r\n\x0cB = 2\x85\r\nC = 3\r\n", "A = 1\r\n\x0cB = 4\x85\r\nC = 3\r\n"),
        ("A = 1\nB = 2", "A = 1\nB = 3"),
        ("A = 1\nB = 2", "A = 1\nB = 2\nC = 3\n"),
        ("A = 1\n", "A = 1\nB = '\u2028'"),
    ],
)
def test_a_diff_applies_byte_for_byte(old: str, new: str, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_bytes(old.encode())
    patch = "\n".join([*diff(old, new), ""]).encode()
    command = ["git", "apply", "--whitespace=nowarn", "-"]
    subprocess.run(command, input=patch, cwd=tmp_path, check=True)
    assert (tmp_path / "train.py").read_bytes() == new.encode()
    lines, added, removed = changed_lines(old, new)
    assert (added, removed) == (sum(x[0] == "+" for x in lines), sum(x[0] == "-" for x in lines))
    assert all(x[0] in "+-" for x in lines)
