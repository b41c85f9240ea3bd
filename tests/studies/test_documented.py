"""What the documents tell a reader to type is typed, section by section, on a tiny testbed.

A section is a story: what one command leaves behind, the next one finds. Commands run as they are
written, but for fewer trials and for what only a reader has: data, addresses, a language model.
"""

from __future__ import annotations

from collections.abc import Iterator
import importlib
import json
from pathlib import Path
import re
import shlex
import shutil

import optuna
import optunahub
import pytest

from objective.run.sandbox import find_sandbox
from tests.samplers._llm.conftest import Answer
from tests.samplers._llm.conftest import LoopbackServer
from tests.samplers._llm.conftest import reply
from tests.samplers._llm.conftest import server as server
from tests.studies.commands.test_surrogate import fill
from tests.studies.conftest import Cli
from tests.studies.scripted import edit
from tests.test_docs import DOCUMENTS
from tests.test_docs import ROOT


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
}
ELIDED = {"--storage": "journal:j.log", "--artifacts": "artifacts", "--testbed": "path/to/folder"}
FEWER = {
    "--seeds": "2",
    "--trials": "2",
    "--train-seconds": "0.05",
    "--repeats": "1",
    "--workers": "1",
    "--problems": "bbob/f3/2d",
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
_LINE = re.compile(
    r"^(?:\$ |exec )((?:.*\\\n)*.*)"  # in a block
    r"|`(optuna-autoresearch\s[^`]*)`",  # in a sentence
    re.MULTILINE,
)
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
CLASSIFY = """\
LEARNING_RATE = 0.1
print(f"accuracy: {0.9 - abs(LEARNING_RATE - 0.2)}")
"""


def stories() -> Iterator[tuple[str, list[str]]]:
    """Return the sections with commands: their names, and the lines that are typed."""
    for document in READ:
        for section in re.split(r"^(?=##? )", document.read_text(encoding="utf-8"), flags=re.M):
            lines = [match[1] or match[2] for match in _LINE.finditer(section)]
            if lines:
                heading = section.partition("\n")[0].strip("# ")
                name = f"{document.relative_to(ROOT)}: {heading}"
                yield name, [" ".join(line.replace("\\\n", " ").split()) for line in lines]


def arguments(line: str, llm: str, surrogate: Path) -> list[str]:
    """Return a command's arguments, with what only a reader has replaced, and less to do."""
    words = [STANDS_FOR.get(word, word) for word in shlex.split(line, comments=True)[1:]]
    if ">" in words:  # the shell's
        words = words[: words.index(">")]
    name = words[0]
    for at, word in enumerate(words[:-1]):
        if words[at + 1] == "...":
            words[at + 1] = ELIDED.get(word, "local")
        if word in FEWER:
            words[at + 1] = FEWER[word]
    if "--report" not in words:
        for option in ADDED.get(name, []):
            made_of = option == "--testbed" and "--surrogate" in words  # which says it
            if option not in words and not made_of:
                words += [option, {**ELIDED, **FEWER}[option]]
    if "--surrogate" in words:
        at = words.index("--surrogate")
        words[at : at + 1] = ["--surrogate-file", str(surrogate)]
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


def answer(body: dict[str, object]) -> Answer:
    """What the language model says: an edit where one is asked for."""
    change = edit("square the distance", "(DEPTH - 5) ** 2 / 10", "(DEPTH - 5) ** 2 / 20")
    return reply(change if "SEARCH" in json.dumps(body["messages"]) else "{}")


@pytest.fixture(scope="module")
def prepared(surrogate: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that documents speak of."""
    folder = tmp_path_factory.mktemp("reader")
    bed = surrogate.parent
    for copy in ("path/to/folder", "autoresearch"):
        shutil.copytree(bed, folder / copy)
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
    reader: Cli, server: LoopbackServer, surrogate: Path, lines: list[str]
) -> None:
    for line in lines:
        if not line.startswith(tuple(NOT_RUN)):
            assert line.startswith("optuna-autoresearch "), f"neither run nor in NOT_RUN: {line}"
            done = reader(*arguments(line, server.url, surrogate))
            assert done.returncode == 0, (line, done.args, done.stderr)


def test_what_does_not_run_is_in_a_document() -> None:
    lines = [line for _, story in stories() for line in story]
    assert [begin for begin in NOT_RUN if not any(x.startswith(begin) for x in lines)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_piece_of_python_runs(
    document: Path, reader: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A package is loaded from here, as a reader loads it from the registry.
    here = {"visualization/plot_best_so_far": "studies.best_so_far"}
    monkeypatch.setattr(
        optunahub,
        "load_module",
        lambda name: importlib.import_module(here.get(name, name.replace("/", "."))),
    )
    monkeypatch.chdir(reader.folder)
    names: dict[str, object] = {"study": optuna.create_study()}  # a reader's own
    for block in _BLOCK.findall(document.read_text(encoding="utf-8")):
        # Five useless replies in a row would end a study, and this model gives no others.
        exec(re.sub(r"n_trials=\d\d", "n_trials=4", block), names)
    assert names
