"""Ways of values into a script."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from optuna.distributions import CategoricalDistribution
import pytest

from objective.preflight import preflight
from objective.testbed.interface import Interface
from objective.testbed.testbed import Testbed
from objective.testbed.testbed import TestbedError


Folder = Callable[..., Path]
ARGPARSE = """
import argparse
p = argparse.ArgumentParser()
p.add_argument("--lr", type=float, default=0.5)
p.add_argument("--opt", choices=["sgd", "adam"], default="sgd")
p.add_argument("--name", default="x")
p.add_argument("--epochs", type=int, default=3)
"""


def load(folder: Path, **interface: str) -> Testbed:
    return Testbed.load(folder, interface=Interface(**interface))


def test_a_script_without_constants_is_tuned_by_its_arguments(testbed_folder: Folder) -> None:
    testbed = load(testbed_folder(ARGPARSE))
    assert list(testbed.space) == ["lr", "opt"]
    assert testbed.space["opt"] == CategoricalDistribution(["sgd", "adam"])
    assert testbed.left_out.keys() == {"name", "epochs"}
    inputs = testbed.delivery.inputs(testbed.source, {"lr": 0.25, "opt": "adam"})
    assert inputs.line == "python train.py --lr=0.25 --opt=adam"
    assert inputs.files == {"train.py": testbed.source}
    with pytest.raises(TestbedError, match="from its command line: python train.py --lr=0.25"):
        testbed.delivery.written(testbed.source, {"lr": 0.25})


def test_an_argument_without_a_default_is_not_left_out_in_silence(testbed_folder: Folder) -> None:
    train = ARGPARSE + "".join(
        f"p.add_argument('--{name}', type=float, {more})\n"
        for name, more in {"wd": "", "eps": "default=None", "seed": "", "mu": "default=M"}.items()
    )
    left_out = load(testbed_folder(train)).left_out
    why = "its default is none, or can't be read: a table in search_space.toml names one"
    assert {name for name, reason in left_out.items() if reason == why} == {"wd", "eps", "mu"}
    assert left_out["seed"] == "it describes the machine or how the script runs", "no advice"
    toml = "[wd]\ntype = 'float'\nlow = 0.0\nhigh = 1.0\ndefault = 0.1\n"
    testbed = load(testbed_folder(train, **{"search_space.toml": toml}))
    assert testbed.baseline["wd"] == 0.1 and "wd" not in testbed.left_out


def test_constants_come_first_and_a_table_adds_an_argument(testbed_folder: Folder) -> None:
    train = ARGPARSE + "WIDTH = 4\n"
    alone = load(testbed_folder(train))
    assert list(alone.space) == ["WIDTH"]
    why = "beside constants it is tuned only by a table in search_space.toml"
    assert {n for n, reason in alone.left_out.items() if reason == why} == {"lr", "opt"}
    assert alone.left_out["epochs"] == "it says how long a training takes"
    toml = "[epochs]\ntype = 'int'\nlow = 1\nhigh = 9\n"
    testbed = load(testbed_folder(train, **{"search_space.toml": toml}))
    assert testbed.baseline == {"epochs": 3, "WIDTH": 4}
    assert testbed.left_out.keys() == {"lr", "opt", "name"}
    only = load(testbed_folder(train, **{"search_space.toml": f"only_listed = true\n{toml}"}))
    assert only.left_out["lr"] == only.left_out["WIDTH"] == "search_space.toml doesn't list it"
    inputs = testbed.delivery.inputs(testbed.source, {"epochs": 5, "WIDTH": 8})
    assert inputs.line == "python train.py --epochs=5"
    assert inputs.files["train.py"] == train.replace("WIDTH = 4", "WIDTH = 8")


def test_a_command_takes_values_from_wherever_they_can_be_read(testbed_folder: Folder) -> None:
    train = ARGPARSE + "import os\nD = os.getenv('D', '2')\nwidth = 4\n"
    testbed = load(
        testbed_folder(train), command="D={depth} python train.py --lr={rate} width={width}"
    )
    assert testbed.baseline == {"depth": 2, "rate": 0.5, "width": 4}
    assert testbed.left_out.keys() == {"opt", "name", "epochs"}
    assert testbed.left_out["opt"].startswith("the command or the configuration file says")
    inputs = testbed.delivery.inputs(testbed.source, {"depth": 3, "rate": 0.25, "width": 5})
    assert inputs.line == "D=3 python train.py --lr=0.25 width=5"


@pytest.mark.parametrize(
    ("line", "module"),
    [
        ("from options import parse", "options.py"),
        ("from .options import parse", "options.py"),
        ("import lib.options as o", "lib/options.py"),
        ("from lib import options", "lib/options.py"),
    ],
)
def test_arguments_are_found_in_a_module_that_the_script_imports(
    testbed_folder: Folder, line: str, module: str
) -> None:
    folder = testbed_folder(f"import torch, broken\n{line}\n", **{"broken.py": "1 +"})
    (folder / module).parent.mkdir(exist_ok=True)
    (folder / module).write_text(ARGPARSE)
    testbed = load(folder)
    assert testbed.baseline == {"lr": 0.5, "opt": "sgd"}
    assert testbed.delivery.inputs(testbed.source, {"lr": 1.0}).line == "python train.py --lr=1.0"
    assert load(folder, command="python train.py --lr {lr}").baseline == {"lr": 0.5}


SEEDED = ARGPARSE + 'p.add_argument("--random-seed", "-s", type=int)\n'


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (None, "python train.py --lr=1.0 --random-seed=7"),
        ("python train.py --lr {lr}", "python train.py --lr 1.0 --random-seed=7"),
        ("python train.py --lr {lr} -s 3", "python train.py --lr 1.0 -s 3"),
        ("torchrun train.py --lr {lr}", "torchrun train.py --lr 1.0"),
    ],
)
def test_the_seed_is_given_by_the_scripts_own_option(
    testbed_folder: Folder, command: str | None, line: str
) -> None:
    testbed = load(testbed_folder(SEEDED), **({} if command is None else {"command": command}))
    assert testbed.delivery.inputs(testbed.source, {"lr": 1.0}, seed=7).line == line
    own = testbed.delivery.inputs(testbed.source, {"lr": 1.0}).line
    assert own == line.replace(" --random-seed=7", "")


SUBCOMMANDS = """\
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--scale", type=float, default=2.0)
subparsers = parser.add_subparsers(dest="do")
p = subparsers.add_parser("train")
group = p.add_argument_group("model")
p.add_argument("--lr", type=float, default=0.01)
group.add_argument("--width", type=int, default=8)
p = subparsers.add_parser("eval")
p.add_argument("--lr", type=float, default=0.5)
p.add_argument("--ratio", type=float, default=0.5)
"""


def test_only_arguments_of_the_commands_subcommand_are_tuned(testbed_folder: Folder) -> None:
    folder = testbed_folder(SUBCOMMANDS)
    testbed = Testbed.load(folder, interface=Interface(command="python train.py train"))
    assert testbed.baseline == {"lr": 0.01, "width": 8}
    assert testbed.left_out == dict.fromkeys(
        ("seed", "scale"), "it must stand before the subcommand"
    )
    inputs = testbed.delivery.inputs(testbed.source, {"lr": 0.1}, seed=7)
    assert inputs.line == "python train.py train --lr=0.1", "nor is the seed added behind it"
    named = "python train.py --scale {scale} --seed {SEED} train --lr {lr}"
    testbed = Testbed.load(folder, interface=Interface(command=named))
    assert testbed.baseline == {"scale": 2.0, "lr": 0.01}
    by_shell = Interface(command="sh run.sh {ratio}")
    assert Testbed.load(folder / "train.py", interface=by_shell).baseline == {"ratio": 0.5}


def test_a_command_without_a_subcommand_is_told_how_to_name_one(testbed_folder: Folder) -> None:
    parts = SUBCOMMANDS.splitlines(keepends=True)
    folder = testbed_folder("".join(line for line in parts if "parser.add_argument" not in line))
    with pytest.raises(
        TestbedError, match=r"--command 'python train.py train' \(or eval\) names one"
    ):
        Testbed.load(folder)
    assert "has subcommands" in preflight(Testbed.load(testbed_folder(SUBCOMMANDS))).notes[0]


def test_lower_case_names_that_would_be_tuned_are_named(testbed_folder: Folder) -> None:
    folder = testbed_folder("X, y = 1, 2\nlr = 0.1\nhidden = 8\nname = 'a'\nepochs = 3\n")
    with pytest.raises(TestbedError, match=r"lower-case names don't count \(lr, hidden\): rename"):
        Testbed.load(folder)


@pytest.mark.parametrize("how", ["action='count'", "nargs=2, type=float", "action=Check"])
def test_an_option_that_takes_no_value_is_left_alone_and_a_table_for_it_refused(
    testbed_folder: Folder, how: str
) -> None:
    train = ARGPARSE + f"p.add_argument('--times', default=3, {how})\n"
    alone = load(testbed_folder(train))
    assert list(alone.space) == ["lr", "opt"]
    assert alone.left_out["times"] == "it is no option of one value, and no flag"
    toml = "[times]\ntype='int'\nlow=1\nhigh=9\ndefault=2\n"
    folder = testbed_folder(train, **{"search_space.toml": toml})
    with pytest.raises(TestbedError, match="--times must be an option of one value, or a flag"):
        load(folder)
    assert load(folder, command="python train.py --times {times}").baseline == {"times": 2}


def test_the_seed_is_given_by_the_configuration_file_and_constants(testbed_folder: Folder) -> None:
    config = "lr: 0.5\nseed: 1\ntraining:\n  seed: 2\n  manual_seed: none\n"
    train = "SEED = 3\nRANDOM_SEED = 4\nSEEDS = 5\nDATA_SEED = 6\n"
    testbed = load(testbed_folder(train, **{"c.yaml": config}), config="c.yaml")
    files = testbed.delivery.inputs(testbed.source, {"lr": 1.0}, seed=7).files
    changed = (
        config.replace("0.5", "1.0").replace("seed: 1", "seed: 7").replace("seed: 2", "seed: 7")
    )
    assert files["c.yaml"] == changed
    assert files["train.py"] == "SEED = 7\nRANDOM_SEED = 7\nSEEDS = 5\nDATA_SEED = 6\n"
    files = testbed.delivery.inputs(testbed.source, {"lr": 1.0, "seed": 9}, seed=7).files
    assert "\nseed: 9\n" in files["c.yaml"]


def test_time_and_seed_are_no_parameters(testbed_folder: Folder) -> None:
    command = "python train.py --lr {lr} --for {TIME_BUDGET} --seed {SEED}"
    testbed = load(testbed_folder(ARGPARSE), command=command)
    assert list(testbed.space) == ["lr"]
    testbed.require_time_budget()
    inputs = testbed.delivery.inputs(testbed.source, {"lr": 1.0}, seconds=90.0, seed=7)
    assert inputs.line == "python train.py --lr 1.0 --for 90 --seed 7"
    with pytest.raises(TestbedError, match="needs --train-seconds"):
        testbed.delivery.inputs(testbed.source, {"lr": 1.0})


def test_a_configuration_file_takes_values_and_conditions_hold(testbed_folder: Folder) -> None:
    toml = """
        config = "config.json"
        [opt.name]
        type = "categorical"
        choices = ["sgd", "adam"]
        [opt.beta]
        type = "float"
        low = 0
        high = 1
        when = { "opt.name" = "adam" }
    """
    config = '{"opt": {"name": "sgd", "beta": 0.5}, "width": 8, "path": "x"}'
    files = {"search_space.toml": toml, "config.json": config}
    testbed = load(testbed_folder("print(1)\n", **files))
    assert list(testbed.space) == ["opt.name", "opt.beta", "width"]
    assert testbed.rule({"opt.name": "sgd", "opt.beta": 0.9, "width": 8})["opt.beta"] == 0.5
    assert testbed.rule({"opt.name": "adam", "opt.beta": 0.9, "width": 8})["opt.beta"] == 0.9
    before, after = testbed.delivery.written(testbed.source, {"opt.beta": 0.25, "width": 4})
    assert before == config
    assert after.split() == (
        '{ "opt": { "name": "sgd", "beta": 0.25 }, "width": 4, "path": "x" }'.split()
    )


def test_a_list_of_a_configuration_file_is_said_to_be_not_tuned(testbed_folder: Folder) -> None:
    config = '{"lr": 0.1, "net": {"layers": [64, 64]}, "betas": [0.9]}'
    toml = "[betas]\ntype = 'float'\nlow = 0.5\nhigh = 0.9\ndefault = 0.9\n"
    folder = testbed_folder("", **{"c.json": config, "search_space.toml": toml})
    testbed = load(folder, config="c.json", command="python train.py --betas {betas}")
    assert testbed.space.keys() == {"lr", "betas"}
    assert testbed.left_out == {"net.layers": "it is a list, whose items have no names"}


def test_a_program_in_any_language_is_described_by_the_file(testbed_folder: Folder) -> None:
    toml = """
        command = "sh run.sh {rate}"
        metric = "loss"
        [rate]
        type = "float"
        low = 0
        high = 1
        default = 0.5
    """
    folder = testbed_folder("", **{"search_space.toml": toml, "run.sh": "echo loss: $1\n"})
    testbed = load(folder)
    assert (testbed.delivery.script, testbed.source) == ("run.sh", "echo loss: $1\n")
    assert testbed.baseline == {"rate": 0.5} and testbed.metric.name == "loss"
    assert testbed.delivery.inputs(testbed.source, {"rate": 0.25}).line == "sh run.sh 0.25"
    assert load(folder, metric="other").metric.name == "other", "the command line wins"


@pytest.mark.parametrize(
    ("toml", "command", "message"),
    [
        ("", "python train.py {x}", r"\{x\} of the command must have a table \[x\]"),
        (
            "[y]\ntype='int'\nlow=1\nhigh=2\n",
            "python train.py --lr {lr}",
            "search_space.toml names y, but train.py doesn't",
        ),
        (
            "[x]\ntype='int'\nlow=1\nhigh=2\n",
            "python train.py {x}",
            "search_space.toml must give x a default",
        ),
        ("", "python missing.py {lr}", "{lr} of the command must have a table"),
    ],
)
def test_what_can_not_reach_the_script_is_refused(
    testbed_folder: Folder, toml: str, command: str, message: str
) -> None:
    folder = testbed_folder(ARGPARSE, **{"search_space.toml": toml})
    with pytest.raises(TestbedError, match=message):
        load(folder, command=command)
