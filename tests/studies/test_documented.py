"""What README and docs tell a reader to type is typed, section by section, on a tiny testbed.

A section is a story: what one command leaves behind, the next one finds. Commands run as they are
written, but for fewer trials and for what only a reader has: data, addresses, a language model.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from datetime import timedelta
import json
from pathlib import Path
import random
import re
import shlex
import shutil
from typing import Any

import optuna
from optuna.trial import TrialState
import pytest

from objective.run.sandbox import find_sandbox
from samplers import ChatError
from studies.publish.build import sources
from tests.samplers._llm.conftest import Answer
from tests.samplers._llm.conftest import LoopbackServer
from tests.samplers._llm.conftest import obedient
from tests.samplers._llm.conftest import reply
from tests.samplers._llm.conftest import server as server
from tests.studies.commands.test_surrogate import fill
from tests.studies.conftest import Cli
from tests.studies.conftest import write_sleeping
from tests.studies.scripted import edit
from tests.test_docs import DOCUMENTS
from tests.test_docs import ROOT
from tests.test_docs import typed


# What doesn't run here, by how it begins, and why.
NOT_RUN = {
    "make demo": "sets up an environment and tunes for minutes",
    "pip install": "changes the environment",
    ". .venv/bin/activate": "is the shell's own",
    "dask": "is another project's; tests/studies/workers start its programs",
    "optuna-autoresearch dashboard": "serves until it is stopped: commands/test_dashboard.py",
    "optuna-autoresearch serve-": "serves until it is stopped: tests/faults, tests/samplers/_llm",
    "optuna-autoresearch publish": "takes some seconds: commands/test_publish.py",
    "optuna-autoresearch run --method centaur --trials 60 --storage ... --cluster tcp://": (
        "needs a Dask cluster of the reader's: tests/studies/workers"
    ),
}
# What only a reader has.
STANDS_FOR = {
    "URL": "sqlite:///trials.db",
    "my-agent --print": "sed -i 's|2 / 10|2 / 20|' train.py",
    "sqlite:///autoresearch.db": "sqlite:///gallery.db",  # in a section that tells of no run
    "postgresql://HOST/NAME": "journal:j.log",
    "/shared/artifacts": "artifacts",
}
ELIDED = {"--storage": "journal:j.log", "--artifacts": "artifacts", "--testbed": "path/to/folder"}
WRITES = ("--out", "--write", "--export", "--patches")
FEWER = {
    "--seeds": "0",
    "--trials": "2",
    "--train-seconds": "0.05",
    "--repeats": "1",
    "--workers": "1",
    "--problems": "bbob/f3/2d",
    # Almost a day: a run that begins just before 08:00 has no time for a trial.
    "--until": f"{datetime.now() - timedelta(hours=1):%H:%M}",
}
ADDED = {
    "run": ["--trials", "--testbed"],
    "agent": ["--trials", "--testbed"],
    "compare": ["--trials", "--workers", "--testbed"],
    "revalidate": ["--repeats", "--workers"],
    "space": ["--testbed"],
    "surrogate": ["--testbed"],
    "scoreboard": ["--problems", "--seeds", "--trials", "--workers"],
}
# (The log's commands took days; tests/test_docs.py reads them.)
READ = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CLASSIFY = """\
LEARNING_RATE = 0.1
print(f"accuracy: {0.9 - abs(LEARNING_RATE - 0.2)}")
"""


def blocks(document: Path) -> list[str]:
    """Return the pieces of Python in a document."""
    text = document.read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def stories() -> Iterator[tuple[str, list[str]]]:
    """Return the sections with commands: their names, and the lines that are typed."""
    for document in READ:
        for section in re.split(r"^(?=##? )", document.read_text(encoding="utf-8"), flags=re.M):
            if lines := typed(section):
                heading = section.partition("\n")[0].strip("# ")
                yield f"{document.relative_to(ROOT)}: {heading}", lines


def arguments(line: str, llm: str) -> list[str]:
    """Return a command's arguments, with what only a reader has replaced, and less to do."""
    words = [STANDS_FOR.get(word, word) for word in shlex.split(line, comments=True)[1:]]
    name = words[0]
    for at, word in enumerate(words[:-1]):
        if words[at + 1] == "...":
            words[at + 1] = ELIDED.get(word, "local")
        if word in FEWER:
            words[at + 1] = FEWER[word]
        if word == "--methods":  # the first and the last
            words[at + 1] = re.sub(",.*,", ",", words[at + 1])
    if "--report" not in words:
        for option in ADDED.get(name, []):
            made_of = option == "--testbed" and "--surrogate" in words  # which says it
            if option not in words and not made_of:
                words += [option, {**ELIDED, **FEWER}[option]]
    if "slurm" in words:  # which is nowhere here
        words[words.index("--storage") + 1] = "postgresql://db.example/x"
        words[words.index("--llm") + 1] = "random-steps"
        words.append("--dry-run")
    elif "--llm" in words and (at := words.index("--llm") + 1) and words[at] != "random-steps":
        words[at] = llm
        words += [] if "--model" in words else ["--model", "m"]
    if name == "agent" and find_sandbox() is None:
        words.append("--unsafe")
    return words


def answer(body: dict[str, Any]) -> Answer:
    """What the language model says: an edit where one is asked for, else what the schema allows."""
    if "response_format" not in body and "SEARCH" in json.dumps(body["messages"]):
        return reply(edit("square less", "(DEPTH - 5) ** 2 / 10", "(DEPTH - 5) ** 2 / 20"))
    return obedient(random.Random(repr(body)))(body)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that documents speak of."""
    folder = tmp_path_factory.mktemp("reader")
    bed = write_sleeping(folder / "path/to/folder")
    space = bed / "search_space.toml"
    space.write_text(space.read_text().replace("high = 8", "high = 7"))  # none runs out of memory
    write_sleeping(folder / "autoresearch")
    (folder / "classify.py").write_text(CLASSIFY)
    header = "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"
    (folder / "results.tsv").write_text(f"{header}a1b2c3d\t0.9979\t44.0\tkeep\tbaseline\n")
    trials = [{"tid": 0, "val_bpb": 1.0, "success": True, "wt": 1, "LR": 0.1}]
    (folder / "FILE").write_text(json.dumps({"tpe": {"seed0": trials}}))
    mine = optuna.create_study(study_name="mine", storage=f"sqlite:///{folder}/FILE.db")
    mine.optimize(lambda trial: trial.suggest_float("x", -5, 5) ** 2, n_trials=3)
    shutil.copy(ROOT / "docs" / "gallery" / "trainings.db", folder / "gallery.db")
    board = "studies/results/scoreboard_critic"
    shutil.copytree(ROOT / board, folder / board)
    other = Cli(folder)
    other.storage = f"sqlite:///{folder}/trials.db"
    fill(other, bed)
    return folder


@pytest.fixture
def reader(
    cli: Cli, prepared: Path, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> Cli:
    """The command line in such a folder, with a language model to ask."""
    server.answers = answer
    for name, value in {"BASE_URL": server.url, "API_KEY": "key-of-tests", "MODEL": "m"}.items():
        monkeypatch.setenv(f"OPENAI_{name}", value)
    shutil.copytree(prepared, cli.folder, dirs_exist_ok=True)
    return cli


@pytest.mark.parametrize("lines", [pytest.param(story, id=name) for name, story in stories()])
def test_every_command_of_a_document_runs(
    reader: Cli, server: LoopbackServer, lines: list[str]
) -> None:
    for line in lines:
        if not line.startswith(tuple(NOT_RUN)):
            assert line.startswith("optuna-autoresearch "), f"neither run nor in NOT_RUN: {line}"
            words = arguments(line, server.url)
            done = reader(*words)
            assert done.returncode == 0, (line, words, done.stderr)
            assert done.stdout or done.stderr, line  # a worker's log
            written = [after for word, after in zip(words, words[1:]) if word in WRITES]
            assert [name for name in written if not (reader.folder / name).exists()] == [], line


def test_what_does_not_run_is_in_a_document() -> None:
    lines = [line for _, story in stories() for line in story]
    assert [begin for begin in NOT_RUN if not any(x.startswith(begin) for x in lines)] == []


@pytest.mark.parametrize(
    "document",
    [path for path in READ if blocks(path)],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_every_piece_of_python_runs(
    document: Path,
    reader: Cli,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(reader.folder)
    own = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    names: dict[str, Any] = {"study": own}
    for block in blocks(document):
        block = block.replace("n_trials=50", "n_trials=2")  # trainings
        exec(block, names)
        assert bool(capsys.readouterr().out) == ("\nprint(" in block)
        for asked in re.findall(r"n_trials=(\d+)", block):
            trials = names["study"].trials
            assert [trial.state for trial in trials] == [TrialState.COMPLETE] * int(asked)
            sources = {trial.user_attrs.get("source") for trial in trials}
            assert ("llm" in sources) == ("chat=chat" in block)
            assert ("llm-error" in sources) == ("ChatError(" in block)


def test_the_chat_for_a_command_says_what_failed() -> None:
    names: dict[str, Any] = {}
    exec(blocks(ROOT / "docs" / "language_models.md")[0], names)
    with pytest.raises(ChatError, match="no-such-command failed"):
        names["CommandChat"]("no-such-command").complete([])


def test_python_elsewhere_is_the_one_example_of_a_package() -> None:
    # ... which publish/test_environment.py runs as it is published.
    packages = {ROOT / source.folder / "README.md" for source in sources()}
    elsewhere = {path for path in DOCUMENTS if path not in READ and blocks(path)}
    assert elsewhere <= packages
    assert {len(blocks(path)) for path in packages} == {1}
