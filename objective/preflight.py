"""What can be known of a testbed before its first training: in seconds, instead of after trial 0.

Interpreter, imports, files and variables are checked without running anything of the testbed. A
script that is to train for half a minute or more, and whose training time can be set, is then run
for two seconds, which shows what no look at the files can: that its data is there, and that it
prints its metric. (A shorter training shows it itself.)
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import field
import os
from pathlib import Path
import re
import shlex

import optuna

from objective.failure import TrialFailed
from objective.objective import TrainScriptObjective
from objective.run.environment import chosen_variables
from objective.run.environment import script_environment
from objective.run.interpreter import find_interpreter
from objective.run.interpreter import Interpreter
from objective.run.launch import has_gpu
from objective.testbed.delivery import DISPLACED
from objective.testbed.files import imports_and_texts
from objective.testbed.files import PREPARE
from objective.testbed.runtime import option_for
from objective.testbed.source import parse_script
from objective.testbed.source import parsed
from objective.testbed.source import read_text
from objective.testbed.source import TestbedError
from objective.testbed.source import unparsed
from objective.testbed.space_file import NAME as SPACE_FILE
from objective.testbed.testbed import Testbed


_SHORT_SECONDS = 2.0
_WORTH_SECONDS = 30.0  # of training; a shorter one is its own test
_WALL_SECONDS = 120.0  # for starting, two seconds of training, and the evaluation
# A metric's name in front of a number in a call: "loss: {", "acc=%.3f", "val_loss {" or "val_loss:', ".
# One that touches a value, as in "{split}_loss: {", is no whole name.
_PRINTED = re.compile(
    r"""(?<![\w{})%./-])((?:[a-z_][\w./-]*[_./-])?
    (?:loss|acc|accuracy|auc|f1|r2|rmse|mse|mae|bpb|bpc|nll|ppl|perplexity|(?<=_)(?:error|score)))
    (?:["']?\s*(?:[:=]|[-=]>|→|\s)\s*[{%]|\s*[:=]?\s*["']\s*[,+])""",
    re.I | re.X,
)
_PRINTERS = ("print", "info", "write")
# Files that speak of a metric, as a program.md does, or hold results, but print none.
_PROSE = (".md", ".txt", ".rst", ".csv", ".tsv", ".json", SPACE_FILE)
# How Python and Hydra read a variable, but not how Python sets one.
_VARIABLE = re.compile(
    r"""(?:environ(?:\.get)?\s*[(\[]\s*["']|getenv\(\s*["']|\$\{oc\.env:)(\w+)\b"""
    r"""(?!["']\s*\]\s*=[^=])"""
)
# How any language names a variable that it reads: "LR", $LR, ${LR}, $(LR), env.LR; no constant LR.
_READ = r"""["'${{.:]{0}\b|\$\({0}\)"""
_RECORDERS = ("wandb", "mlflow")  # which read variables that begin with their names
_GPU_CALLS = {"get_device_capability", "get_device_properties", "set_device", "synchronize"}


@dataclass
class Preflight:
    """What was found.

    Attributes:
        problems: Sentences, each of which keeps the testbed from being tuned.
        notes: Sentences that a user should know.
    """

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def collect(self, check: Callable[[], object]) -> None:
        """Run a check, and keep what it refuses."""
        try:
            check()
        except TestbedError as error:
            self.problems.append(str(error))


def preflight(testbed: Testbed) -> Preflight:
    """Check a testbed without running anything of it."""
    found = Preflight()
    if testbed.is_embedded:
        return found
    found.collect(lambda: testbed.files)
    found.collect(lambda: chosen_variables(testbed.runtime.env))
    if testbed.delivery.command.is_python:  # another program may have a Python of its own
        found.collect(lambda: _check_interpreter(testbed, found))
    if displaced := [name for name, why in testbed.left_out.items() if why == DISPLACED]:
        found.notes.append(
            f"{testbed.delivery.script} has constants, which are tuned, and arguments, which are not"
            f" ({', '.join(displaced)}): a table in search_space.toml adds one, and --command says"
            " what is tuned instead."
        )
    with suppress(TestbedError, OSError):  # told of above, or a file that can't be looked at
        found.notes += [*_not_given(testbed), *_not_there(testbed)]
    if not has_gpu():
        found.problems += _needs_gpu(testbed)
    if said := testbed.delivery.unnamed_subcommands(testbed.source):
        found.notes.append(said)
    found.notes += unread_variables(testbed)
    if said := missing_metric(testbed):
        # What a user chose may be printed by a library.
        (found.problems if testbed.interface.metric is None else found.notes).append(said)
    return found


def missing_metric(testbed: Testbed) -> str:
    """Say that the script prints metrics, but nothing that is read has a word of the one that counts.

    A name that is put together has its last word somewhere, and a script that prints nothing may
    leave that to a library.
    """
    metric, script = testbed.metric, testbed.delivery.script
    words = re.findall(r"[^\W_]+", metric.name)
    if metric.file or testbed.is_embedded or not testbed.delivery.is_python or not words:
        return ""
    with suppress(TestbedError, OSError):  # told of by others
        if (texts := _texts(testbed)) is None:
            return ""
        code = [t for name, t in texts.items() if name.endswith(".py") or name == script]
        printed = list(dict.fromkeys(name for text in code for name in _printed(text)))
        read = [text for name, text in texts.items() if not name.lower().endswith(_PROSE)]
        known = "\n".join([*read, *testbed.delivery.texts])
        if printed and not re.search(rf"(?<![^\W_]){words[-1]}(?![^\W_])", known, re.I):
            unless = "" if testbed.interface.metric is None else ", unless a library prints it"
            return (
                f"{script} must print the metric {metric.name}, but no file has that name{unless};"
                f" {', '.join(printed[-3:])} is printed:"
                f" say --metric {printed[-1]} if that is what it is judged by."
            )
    return ""


def unread_variables(testbed: Testbed) -> list[str]:
    """Say which variables take values to a script, but are named by nothing that is read."""
    command = testbed.delivery.command
    names = [n for n in map(command.variable_of, command.parameters) if n is not None]
    with suppress(TestbedError, OSError):  # told of by others
        if names and (texts := _texts(testbed)) is not None:
            known = "\n".join([*texts.values(), *command.words])
            if unread := [n for n in names if not re.search(_READ.format(n), known)]:
                return [
                    f"the command sets {', '.join(unread)}, but no file reads that: unless a library"
                    " does, trials with other values train the same"
                ]
    return []


def _texts(testbed: Testbed) -> dict[str, str] | None:
    """Return all files beside the script by their names; None where some of them aren't read."""
    files = testbed.files
    places = {files.folder, *files.paths}
    beside = [link for link in files.links if not places.isdisjoint(link.parents)]
    if any((files.root / link).is_dir() for link in beside):
        return None
    return files.texts() | {testbed.delivery.script: testbed.source}


def _printed(source: str) -> Iterator[str]:
    """Yield the names of metrics that a Python file prints."""
    with suppress(ValueError, SyntaxError):
        calls = (node for node in ast.walk(parsed(source)) if isinstance(node, ast.Call))
        for call in sorted(calls, key=lambda call: call.lineno):
            if unparsed(call.func).rpartition(".")[2] in _PRINTERS:
                yield from _PRINTED.findall(unparsed(call))


def short_run(testbed: Testbed, train_seconds: float | None, memory_mb: int | None) -> Preflight:
    """Train for two seconds with the script's own values, if that is worth it.

    Args:
        testbed: The testbed, which has passed :func:`preflight`.
        train_seconds: Training time of a trial; None is the testbed's own.
        memory_mb: Limit of its memory.
    """
    found = Preflight()
    seconds = train_seconds or testbed.time_budget
    if testbed.is_embedded or seconds is None or seconds < _WORTH_SECONDS:
        return found
    objective = TrainScriptObjective(
        testbed,
        train_seconds=_SHORT_SECONDS,
        wall_seconds=_WALL_SECONDS,
        memory_limit_mb=memory_mb,
        failure_value=None,
    )
    trial = optuna.trial.FixedTrial(testbed.baseline)
    with suppress(TrialFailed):
        objective(trial)  # type: ignore[arg-type]
    told = trial.user_attrs
    status, reason = told["status"], told.get("reason", "")
    if status in ("oom", "crash", "no-metric"):
        option = option_for(reason) if status == "crash" else ""
        found.problems.append(
            f"A training of {_SHORT_SECONDS:g} s with the script's own values ended as {status}:"
            f" {reason.rstrip('.')}{option and f'; {option}'}."
        )
    elif status == "ok":
        others = told["total_seconds"] - told["training_seconds"]
        found.notes.append(
            f"A training of {_SHORT_SECONDS:g} s printed {testbed.metric.name}; starting and"
            f" evaluating took {max(0.0, others):.0f} s beside it."
        )
    else:
        found.notes.append(
            f"A training of {_SHORT_SECONDS:g} s for a test ended as {status}, which says nothing"
            f" of one of {seconds:g} s."
        )
    return found


def _not_given(testbed: Testbed) -> list[str]:
    """Say which variables are set here that the files read, and that a training doesn't get."""
    variables = script_environment(chosen_variables(testbed.runtime.env))
    given = variables.keys() | testbed.delivery.command.environment.keys()
    text = _text(testbed)
    recorders = [f"{name.upper()}_" for name in _RECORDERS if name in text.lower()]
    read = {*_VARIABLE.findall(text), *(n for n in os.environ if n.startswith(tuple(recorders)))}
    names = sorted(read & os.environ.keys() - given)
    if not names:
        return []
    return [
        f"set here and read by the script, but not given to it: {', '.join(names)}; to give them,"
        f" add {' '.join(f'--env {name}' for name in names)}"
    ]


def _not_there(testbed: Testbed) -> list[str]:
    """Say which files a script may look for where a training doesn't find them."""
    files = testbed.files
    notes = []
    if names := files.left_out(_text(testbed)):
        notes.append(
            f"not tracked by git, so not there for a training: {', '.join(names)}; to have them"
            f" there, add {' '.join(f'--copy {shlex.quote(name)}' for name in names)}"
        )
    if testbed.runtime.cwd is None and files.root != testbed.path:
        _, texts = imports_and_texts(testbed.path, [testbed.delivery.script])
        above = (
            text
            for text in texts
            if ("/" in text or Path(text).suffix)
            and os.path.exists(files.root / text)
            and not os.path.exists(testbed.path / text)
        )
        if text := next(above, ""):
            notes.append(
                f"{text} is there as seen from {files.root}, but a training runs in {testbed.path};"
                f" `run` and `compare` let it run there by --cwd {os.path.relpath(files.root, testbed.path)}"
            )
    return notes


def _text(testbed: Testbed) -> str:
    """Return the script, and the code and configurations that are copied with it."""
    others = (
        content.decode("utf-8", "replace")
        for path, (content, _) in testbed.files.read.items()
        if path.suffix in (".py", ".yaml", ".yml")
    )
    return "\n".join([testbed.source, *others])


def _check_interpreter(testbed: Testbed, found: Preflight) -> None:
    python = find_interpreter(testbed.path, testbed.runtime.python)
    variables = script_environment(python.variables())
    paths = [str(testbed.path / os.path.dirname(testbed.delivery.script))]
    with suppress(TestbedError):  # each is told of by its own check
        variables |= chosen_variables(testbed.runtime.env)
    with suppress(TestbedError):
        paths += testbed.files.python_path(testbed.files.root)
    given = filter(None, [variables.get("PYTHONPATH")])
    variables["PYTHONPATH"] = os.pathsep.join([*paths, *given])
    importers = _importers(testbed)
    told = python.examine(list(importers), variables, testbed.path)
    if python.origin:
        version = ".".join(map(str, told["version"]))
        found.notes.append(f"python: {told['executable']} ({version}; {python.origin})")
    if missing := told["missing"]:
        found.problems.append(_lacks(python, told["executable"], testbed, importers, missing))


def _lacks(
    python: Interpreter,
    executable: str,
    testbed: Testbed,
    importers: dict[str, str],
    missing: list[str],
) -> str:
    scripts = " and ".join(dict.fromkeys(importers[name] for name in missing))
    project = next((s for s in ("uv.lock", "pyproject.toml") if (testbed.path / s).exists()), None)
    advice = "install what is missing there, or name another Python by --python"
    if not python.origin and project:
        advice = (
            f"its environment is described by {project}: make it by `uv sync` in {testbed.path},"
            " where it is found then, or name it by --python"
        )
    return f"{scripts} must find {', '.join(missing)}, but {executable} doesn't; {advice}."


def _importers(testbed: Testbed) -> dict[str, str]:
    """Return the modules that the scripts can't do without, each with the first that imports it."""
    found: dict[str, str] = {}
    for script in (testbed.delivery.script, PREPARE):
        path = testbed.path / script
        if path.is_file() and path.suffix == ".py":
            for statement in _unconditional(parse_script(read_text(path), script)):
                for name in _imported(statement):
                    found.setdefault(name, script)
    return found


def _imported(statement: ast.AST) -> list[str]:
    if isinstance(statement, ast.Import):
        return [alias.name.partition(".")[0] for alias in statement.names]
    if isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
        return [statement.module.partition(".")[0]]
    return []


def _unconditional(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield what every run of a script comes to: nothing inside a function, ``if`` or ``try``."""
    nodes: list[ast.AST] = list(reversed(tree.body))
    conditional = (
        ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.If, ast.IfExp, ast.Try, ast.BoolOp
    )  # fmt: skip
    while nodes:
        node = nodes.pop()
        if not isinstance(node, conditional):
            yield node
            nodes += reversed(list(ast.iter_child_nodes(node)))


def _needs_gpu(testbed: Testbed) -> list[str]:
    """Say where the script asks for a GPU of CUDA, unless it asks first whether there is one."""
    script = testbed.delivery.script
    if not script.endswith(".py"):
        return []
    if "is_available" in testbed.source or "device_count" in testbed.source:
        return []
    for node in _unconditional(parse_script(testbed.source, script)):
        if isinstance(node, ast.Call) and _is_gpu_call(node):
            call = unparsed(node)
            return [
                f"{script}:{node.lineno} asks for a GPU of CUDA ({call}), but this machine has none."
            ]
    return []


def _is_gpu_call(call: ast.Call) -> bool:
    called = unparsed(call.func)
    if called.startswith("torch.cuda."):
        return called.rpartition(".")[2] in _GPU_CALLS
    first = call.args[0] if call.args else None
    is_cuda = isinstance(first, ast.Constant) and str(first.value).startswith("cuda")
    return is_cuda and called in ("torch.device", "torch.set_default_device")
