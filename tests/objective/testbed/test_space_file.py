"""The format of ``search_space.toml``: what it says, and every way to get it wrong."""

from __future__ import annotations

from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest

from objective.testbed.interface import Interface
from objective.testbed.rule import Rule
from objective.testbed.source import TestbedError
from objective.testbed.space_file import SpaceFile


FULL = """
command = "python train.py --lr {lr}"
metric = "accuracy"
direction = "maximize"
only_listed = true

[optimizer]
type = "categorical"
choices = ["sgd", "adam"]
default = "adam"

[model.width]
type = "int"
low = 16
high = 64
log = true
power_of_two = true
at_least = ["heads"]

["model.rate"]
type = "float"
low = 0
high = 0.5
default = 0

[momentum]
type = "float"
low = 0.0
high = 0.9
when = { optimizer = "sgd", "model.width" = [16, 32] }

[model.depth]
tune = false

[derived]
size = "2 * 3"
"""


def test_a_file_holds_parameters_conditions_and_how_the_script_is_run_and_read() -> None:
    file = SpaceFile.parse("\ufeff" + FULL)
    assert file == SpaceFile(
        Interface("python train.py --lr {lr}", metric="accuracy", direction="maximize"),
        {
            "optimizer": CategoricalDistribution(["sgd", "adam"]),
            "model.width": IntDistribution(16, 64, log=True),
            "model.rate": FloatDistribution(0, 0.5),
            "momentum": FloatDistribution(0, 0.9),
        },
        Rule(
            ("model.width",),
            {"model.width": ("heads",)},
            only_when={"momentum": {"optimizer": ("sgd",), "model.width": (16, 32)}},
        ),
        {"optimizer": "adam", "model.rate": 0.0},
        ("model.depth",),
        only_listed=True,
        derived={"size": "2 * 3"},
    )
    assert list(file.space) == ["optimizer", "model.width", "model.rate", "momentum"]


def test_an_empty_file_says_nothing() -> None:
    assert SpaceFile.parse("# nothing\n") == SpaceFile()


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[A", "search_space.toml must be valid TOML, but: "),
        ("A = 3", r"A must be a table \[A\] or one of command, .*, but got 3"),
        ("[A]\nlow=1", "A.type must be int, float or categorical, but got None"),
        ("[A]\ntype='int'\nlow=5\nhigh=1", "A: low <= high must hold, but got low=5, high=1"),
        ("[A]\ntype='int'\nlow=1", "A.high must be int, but got None"),
        ("[A]\ntype='int'\nlow=1\nhigh=2.5", "A.high must be int, but got 2.5"),
        ("[A]\ntype='int'\nlow=1\nhigh=true", "A.high must be int, but got True"),
        ("[A]\ntype='int'\nlow=1\nhigh=9\nlgo=true", "A of type int may have .*, but got lgo"),
        ("[A]\ntype='float'\nlow=0\nhigh=9\nlog=true", "A: .*low.*"),
        ("[A]\ntype='float'\nlow=nan\nhigh=1", "A: low <= high must hold"),
        ("[A]\ntype='int'\nlow=1\nhigh=9\nlog=true\nstep=2", "A: "),
        ("[A]\ntype='int'\nlow=0\nhigh=9\nstep=0", "A: "),
        ("[A]\ntype='int'\nlow=1\nhigh=9\npower_of_two=true", "A.high must be a power of two"),
        ("[A]\ntype='categorical'\nchoices=[]", "A.choices must be strings"),
        ("[A]\ntype='categorical'\nchoices=[[1]]", "A.choices must be strings"),
        ("[A]\ntype='categorical'\nchoices=[0.1, inf]", "A.choices must be finite, but got inf"),
        ("[A]\ntype='categorical'\nchoices=[nan]", "A.choices must be finite, but got nan"),
        ("[A]\ntype=['x']", r"A.type must be int, float or categorical, but got \['x'\]"),
        (
            "[A]\ntype='float'\nlow=0\nhigh=9\nstep=inf",
            "A: low, high and step must be within 1e.150",
        ),
        ("[A]\ntype='int'\nlow=1\nhigh=2\n[A]\nlow=1", "must be valid TOML, but: .*twice"),
        ("x = " + "9" * 5000, "must be valid TOML, but: .*digits"),
        ("x = " + "[" * 5000, "must be valid TOML, but: "),
        (".".join("a" * 900) + " = 1", "must be valid TOML, but: .*more than 50 deep"),
        ("[A]\nlow." + ".".join("a" * 900) + " = 1", "must be valid TOML, but: .*more than 50"),
        ("[A]\ntype='float'\nlow=0\nhigh=nan", "A: low <= high must hold"),
        (
            "[A]\ntype='int'\nlow=0\nhigh=" + "9" * 400,
            r"A: low, high and step must be within 2\*\*53",
        ),
        ("[A]\ntype='int'\nlow=0\nhigh=" + "9" * 20, "A: low, high and step must be within"),
        ("[A]\ntype='float'\nlow=-1e308\nhigh=1e308", "A: low, high and step must be within"),
        ("[A]\ntype='float'\nlow=1e-320\nhigh=1\nlog=true", "A.low must be 1e-150 or more"),
        ("[A]\ntype='float'\nlow=0\nhigh=1\nstep=1e-200", "A.step must be larger for so wide"),
        ("[A]\ntype='categorical'\nchoices=['a', 'a']", "A.choices must differ"),
        (
            "[A]\ntype='int'\nlow=1\nhigh=9\ndefault=10",
            "A.default must be in its range, int 1 to 9",
        ),
        ("[A]\ntype='int'\nlow=1\nhigh=9\ndefault='x'", "A.default must be .*, but is 'x'"),
        ("[A]\ntype='int'\nlow=1\nhigh=9\nwhen={B=1}", "A.when must name parameters above it"),
        ("[A]\ntype='int'\nlow=1\nhigh=9\nwhen=3", "A.when must be dict, but got 3"),
        (
            "[A]\ntype='int'\nlow=1\nhigh=8\npower_of_two=true\n"
            "[B]\ntype='int'\nlow=1\nhigh=9\nwhen={A=[2, 6]}",
            "B.when: A must be a power of two like its values, but is 6",
        ),
        ("only_listed = 3", "only_listed must be bool, but got 3"),
        ("derived = 3", r"\[derived\] must be a table of formulas, but got 3"),
        ("[A]\ntune = 0", "A.tune must be bool, but got 0"),
        ("[a.b]\ntune=false\n['a.b']\ntune=false", "a.b must have one table, but it has two"),
        ("metric = 3", "metric must be a string, but got 3"),
        ("metric = ''", "metric must be a name of 1 to 64 characters, but got ''"),
        ("direction = 'up'", "direction must be minimize or maximize, but got 'up'"),
        ("config = '/etc/x.json'", "config must be a file as it is seen from the testbed's"),
        ("metric_file = '../x'", "metric_file must be a file in the testbed's folder"),
    ],
)
def test_a_wrong_file_is_one_clear_line(toml: str, message: str) -> None:
    with pytest.raises(TestbedError, match=message) as error:
        SpaceFile.parse(toml)
    assert str(error.value).startswith("search_space.toml") and "\n" not in str(error.value)


def test_all_problems_of_a_file_are_told_at_once() -> None:
    toml = """
        direction = "up"
        [A]
        type = "int"
        low = 5
        high = 1
        [B]
        type = "categorical"
        choices = ["a", "b"]
        [C]
        type = "float"
        low = 0
        high = 1
        when = { B = "c" }
    """
    with pytest.raises(TestbedError) as error:
        SpaceFile.parse(toml)
    assert str(error.value) == (
        "3 problems: (1) search_space.toml: direction must be minimize or maximize, but got 'up'."
        " (2) search_space.toml: A: low <= high must hold, but got low=5, high=1."
        " (3) search_space.toml: C.when: B must be in its range, categorical 'a', 'b', but is 'c'."
    )
