"""Options that several commands share: their names and their help, and commands that are named in
messages."""

from __future__ import annotations

import os
from pathlib import Path
import re
import shlex
import shutil
import sys
from typing import Annotated
from typing import Any
from typing import NoReturn

import typer

from samplers._llm.masking import mask_all
from studies.commands.parsing import parse_duration
from studies.commands.parsing import parse_failure_value
from studies.commands.parsing import parse_memory
from studies.commands.parsing import parse_moment
from studies.errors import masked
from studies.stopping import acknowledge


PROGRAM = "optuna-autoresearch"
DEFAULT_STORAGE = "sqlite:///autoresearch.db"
DEFAULT_TRIALS = 20
_COMMANDS = ("--agent-command", "--command", "--python")  # options whose value is one


def program() -> str:
    """Return how this program is started by what is printed: by its name, if the shell knows it."""
    given = sys.argv[0]
    if Path(given).name != PROGRAM or shutil.which(PROGRAM):
        return PROGRAM
    return given  # `make demo` starts it in an environment that isn't active


def this_command() -> str:
    """Return the command line that was given, to be given again, without passwords and keys.

    Of a variable that may be a key only the name is left, which stands for its value here.
    """
    from objective.run.environment import may_be_secret

    words = [program(), *map(masked, sys.argv[1:])]
    for at, word in enumerate(words):
        option, equals, given = word.partition("=")
        if not (equals and option in ("--env", *_COMMANDS)):
            option, equals, given = words[at - 1], "", word
        if option == "--env":
            name, _, value = given.partition("=")
            given = name if value and may_be_secret(name, value) else given
        elif option in _COMMANDS:
            given = _without_keys(given)
        words[at] = f"{option}={given}" if equals else given
    return shlex.join(words)


def _without_keys(command: str) -> str:
    """Mask what may be a key in a command: the value of ``KEY=VALUE``, and what looks like one."""
    from objective.run.environment import may_be_secret

    try:
        words = shlex.split(command)
    except ValueError:  # a quote is open
        words = command.split()
    pairs = [word.partition("=") for word in words]
    # Placeholders and numbers (a script's --max-tokens) are none.
    secrets = [
        value
        for name, _, value in pairs
        if may_be_secret(name, "") and not re.fullmatch(r"\{\w+\}|\d+", value)
    ]
    return mask_all(command, *secrets)


def complain(line: str) -> None:
    """Print a line on stderr."""
    from studies.commands.console import say

    say(line, stderr=True)


def stopped() -> NoReturn:
    """End a command that was stopped, and say how to go on."""
    acknowledge()
    print(f"stopped; to go on:\n  {this_command()}", file=sys.stderr)
    raise KeyboardInterrupt  # the command line gives it its exit status


def command(name: str, storage: str, artifacts: Path | None = None, *more: str) -> str:
    """Write another command on the same storage and artifacts."""
    words = [program(), name, *more]
    if storage != DEFAULT_STORAGE:
        words += ["--storage", masked(storage)]
    if artifacts is not None:
        words += ["--artifacts", str(artifacts)]
    return shlex.join(words)


Storage = Annotated[
    str,
    typer.Option(
        metavar="URL",
        help="Where the study is kept: sqlite:///FILE, journal:FILE, postgresql://USER@HOST/NAME, "
        "mysql://USER@HOST/NAME, or grpc://HOST:PORT of serve-storage.",
    ),
]
StudyName = Annotated[
    str | None,
    typer.Option(
        "--study",
        metavar="NAME",
        help="Name of the study. [default: METHOD-seedSEED; with --testbed the name of the folder or "
        "script and that, such as train.py-METHOD-seedSEED; METHOD is code with `agent`]",
    ),
]
TestbedFolder = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Folder with a train.py (and prepare.py, search_space.toml, task.md), or a script of "
        "another name. Values reach it by its upper-case constants, or, if it has none, by its "
        "argparse arguments; see --command and --config, and docs/testbeds.md. "
        "[default: the embedded small GPT]",
    ),
]
Command = Annotated[
    str | None,
    typer.Option(
        "--command",
        metavar="COMMAND",
        help="How the script is started in its folder, with a placeholder for each parameter: "
        "'python train.py --lr {lr} model={model}'; 'LR={lr} python train.py' sets an environment "
        "variable. {TIME_BUDGET} is --train-seconds, {SEED} the training's seed. Ranges and "
        "defaults come from search_space.toml, or from the script's argparse, os.environ.get and "
        "globals where these can be read. [default: python train.py]",
    ),
]
Config = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="JSON, YAML or TOML file that the script reads its values from, seen from its folder "
        "or from here: each trial gets a copy with its own. A value within a table is named "
        "model.width.",
    ),
]
MetricName = Annotated[
    str | None,
    typer.Option(
        "--metric",
        metavar="NAME",
        help="The value that the script is judged by, by the name that it prints: of `NAME: 0.5`, "
        "`NAME=0.5`, `NAME 0.5` or JSON, the last one counts. [default: val_bpb]",
    ),
]
DirectionName = Annotated[
    str | None,
    typer.Option(
        "--direction",
        metavar="minimize|maximize",
        help="Whether lower or higher values of the metric are better. [default: minimize]",
    ),
]
MetricFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="File that the script writes the metric to, seen from where it works (--cwd) or from "
        "its folder: JSON, CSV, lines as above or the number alone. What a model wrote must print it: its sandbox keeps "
        "no file. [default: it prints it]",
    ),
]
Python = Annotated[
    str | None,
    typer.Option(
        metavar="COMMAND",
        help="The Python that runs the script: a path, the folder of an environment, or a command "
        "such as 'uv run python'. [default: .venv beside the script or above it in its checkout; "
        "uv run, if a uv.lock or pyproject.toml is there and uv is installed; else this Python]",
    ),
]
Env = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME[=VALUE]",
        help="A variable of the environment that the script gets, too; NAME alone with its value "
        "here. Can be repeated. Without it the script gets PATH, HOME and what sets up libraries "
        "(CUDA_*, NCCL_*, HF_HOME, proxies, PYTHONPATH, ...), and no keys.",
    ),
]
Copy = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATH",
        help="A file, folder or pattern (data/*.csv) that the script needs, seen from its folder; "
        "what is large becomes a link. Can be repeated. Without it a training sees what git tracks "
        "beside the script (without git: all), and what train.py names.",
    ),
]
Cwd = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER",
        help="Working directory of the script, seen from its folder, such as .. "
        "[default: its folder]",
    ),
]
NoCheck = Annotated[
    bool,
    typer.Option(
        "--no-check",
        help="Begin without the checks of the script's Python, imports, GPU and metric that "
        "otherwise precede the first trial.",
    ),
]
AcceptChanges = Annotated[
    bool,
    typer.Option(
        "--accept-changes",
        help="Go on with a study though train.py, prepare.py or files beside them were edited since. "
        "Its earlier trials stay, and may not compare with new ones.",
    ),
]
Trials = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Trials of the study in total, failures and earlier runs included. "
        f"[default: {DEFAULT_TRIALS}, if no other option says when it ends]",
    ),
]
Budget = Annotated[
    float | None,
    typer.Option(
        parser=parse_duration,
        metavar="DURATION",
        help="Training time of a study in total, like 90s, 30m, 24h. A trial that would not fit "
        "is not started.",
    ),
]
Until = Annotated[
    float | None,
    typer.Option(
        parser=parse_moment,
        metavar="TIME",
        help="When all is to be done: 08:00 (the next one), or 2026-12-01T08:00. A trial that would "
        "not end before, by the time that earlier ones took from start to end, is not started.",
    ),
]
WallTime = Annotated[
    float | None,
    typer.Option(
        "--wall-time",
        parser=parse_duration,
        metavar="DURATION",
        help="The same as a time from the study's first trial on, interruptions included: 8h. Start-up "
        "and evaluation count here, other than in --budget.",
    ),
]
Confirm = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="K",
        help="At the end train the K best configurations again, each twice with fresh seeds, so that "
        "what is called best isn't luck. At most one training for every three of --trials, and a quarter "
        "of --budget, --until and --wall-time, which is kept for it; 0 is off.",
    ),
]
TrainSeconds = Annotated[
    float | None,
    typer.Option(
        parser=parse_duration,
        metavar="DURATION",
        help="Training time of one trial. [default: TIME_BUDGET of the testbed's train.py "
        "or prepare.py]",
    ),
]
WallSeconds = Annotated[
    float | None,
    typer.Option(
        parser=parse_duration,
        metavar="DURATION",
        help="A trial is killed after this. [default: twice --train-seconds (300s, if nothing "
        "says how long the script trains) and a minute]",
    ),
]
MemoryLimit = Annotated[
    int | None,
    typer.Option(
        parser=parse_memory,
        metavar="SIZE",
        help="Memory of one training, like 1500M or 2G (of the GPU, on CUDA); a trial that needs "
        "more fails as oom. [default: none; for code that a model wrote half of the machine's, "
        "shared by the workers]",
    ),
]
VarySeed = Annotated[
    bool,
    typer.Option(
        "--vary-seed",
        help="Give each trial's training a seed of its own, so that no method can optimize the luck "
        "of a single one. See docs/overnight.md. [default: the script's own seed, the same for all]",
    ),
]
FailureValue = Annotated[
    Any,
    typer.Option(
        parser=parse_failure_value,
        metavar="worst|NUMBER",
        help="Value of a failed trial: worse than every success so far, by as much as they differ "
        "(and infeasible for Optuna), or a number, such as the paper's 100. [default: the "
        "study's own; worst for a new one]",
    ),
]
Llm = Annotated[
    str | None,
    typer.Option(
        metavar="LLM",
        help="(methods that ask a language model) local (the embedded model), openai, anthropic, "
        "gemini, mistral, groq, openrouter, deepseek, vllm, ollama, the base URL of an "
        "OpenAI-compatible server, the path of a GGUF file, or random-steps (no model but small random changes, to see what a model adds to them). "
        "[default: OPENAI_BASE_URL / OPENAI_API_KEY, else local]",
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="(methods that ask a language model) Which of the server's models. [default: OPENAI_MODEL, "
        "if the key is OPENAI_API_KEY; else the only one]",
    ),
]
LlmOption = Annotated[
    list[str] | None,
    typer.Option(
        "--llm-option",
        metavar="NAME=VALUE",
        help="(methods that ask a language model) A further field of each request, as JSON or a text: "
        "reasoning_effort=low, chat_template_kwargs='{\"enable_thinking\": false}'. Can be repeated.",
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Tokens that the language model may read and write for a study in total, earlier "
        "runs included. A request that might exceed it isn't sent, and the study stops there; a run of "
        "centaur goes on by its model of the trials.",
    ),
]
MaxCost = Annotated[
    float | None,
    typer.Option(
        metavar="COST", min=0, help="The same for its cost, by --price-in and --price-out."
    ),
]
PriceIn = Annotated[
    float | None, typer.Option(metavar="PRICE", min=0, help="Price of a million prompt tokens.")
]
PriceOut = Annotated[
    float | None,
    typer.Option(metavar="PRICE", min=0, help="Price of a million completion tokens."),
]
WarmStart = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=0,
        help="(centaur, karpathy-hp) Number of different configurations that the language model is "
        "asked for in one request, as the first trials. [default: 3 for models that propose whole "
        "configurations; 0 for small ones, and for centaur with --critic none]",
    ),
]
Reply = Annotated[
    str | None,
    typer.Option(
        metavar="auto|full|changes|menu",
        help="(centaur, karpathy-hp) The language model's reply: a whole configuration, changes to "
        "the best one, or changes with a few values to choose from, which small models need. "
        "[default: auto, by the model's name and its first answers]",
    ),
]
CriticOption = Annotated[
    str | None,
    typer.Option(
        "--critic",
        metavar="gp|none",
        help="(centaur) Who chooses among candidates: a Gaussian process of the trials, or nobody: "
        "CMA-ES's sample is run, or the language model's proposal. [default: gp]",
    ),
]
LearnFromLlm = Annotated[
    str | None,
    typer.Option(
        metavar="clipped|all",
        help="(centaur) What CMA-ES learns of the language model's trials: all of it, as published, "
        "or steps of bounded size and nothing of failures. [default: clipped]",
    ),
]
MaxPromptTokens = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="(methods that ask a language model, but not the code agent) Longest prompt, in the "
        "model's tokens, and never more than its context holds. [default: 2600 for small models, "
        "3000 with LLAMBO; 12000 for large ones]",
    ),
]
Protocol = Annotated[
    str | None,
    typer.Option(
        metavar="paper",
        help="Run each method as it was published, before any other option of it: centaur without "
        "critic and warm start, a share by every round(1/ratio)-th trial, and CMA-ES learning from "
        "all; whole configurations as replies; LLAMBO's own numbers; 100.0 for failures; the code "
        "agent with one baseline and no minimum gain. It is said what can't be reproduced.",
    ),
]
Artifacts = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Where scripts, logs, prompts and replies are kept. [default: beside the database]",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the facts as JSON to stdout.")]


def study_name(stem: str, seed: int, testbed: Path | None) -> str:
    """Name of a study for which none is given."""
    name = f"{stem}-seed{seed}"
    return name if testbed is None else f"{testbed.expanduser().resolve().name}-{name}"


def config_path(config: str | None, testbed: Path | None) -> str | None:
    """Return a configuration file as it is seen from the testbed's folder, if only from here it is."""
    if config is None or testbed is None:
        return config
    path = Path(config)
    try:
        place = testbed.expanduser().resolve()
        folder = place.parent if place.is_file() else place
        if path.is_absolute() or (folder / path).exists() or not path.is_file():
            return config
    except (OSError, ValueError, RuntimeError):  # too long, say, which is told when it is read
        return config
    # Of a link the name stays, by which the script reads it.
    return os.path.relpath(path.parent.resolve() / path.name, folder)
