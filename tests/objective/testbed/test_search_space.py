from __future__ import annotations

from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest

from objective.testbed.rule import Rule
from objective.testbed.search_space import search_space
from objective.testbed.source import TestbedError
from tests.objective.conftest import AUTORESEARCH_TRAIN


PAPER: dict[str, tuple[BaseDistribution, object]] = {
    "DEPTH": (IntDistribution(4, 24), 8),
    "ASPECT_RATIO": (IntDistribution(32, 128), 64),
    "HEAD_DIM": (IntDistribution(64, 256, log=True), 128),
    "DEVICE_BATCH_SIZE": (IntDistribution(32, 256, log=True), 128),
    "TOTAL_BATCH_SIZE": (IntDistribution(65536, 2097152, log=True), 524288),
    "EMBEDDING_LR": (FloatDistribution(0.01, 2.0, log=True), 0.6),
    "UNEMBEDDING_LR": (FloatDistribution(0.0005, 0.05, log=True), 0.004),
    "MATRIX_LR": (FloatDistribution(0.005, 0.2, log=True), 0.04),
    "SCALAR_LR": (FloatDistribution(0.05, 2.0, log=True), 0.5),
    "WEIGHT_DECAY": (FloatDistribution(0.0, 0.5), 0.2),
    "WARMUP_RATIO": (FloatDistribution(0.0, 0.3), 0.0),
    "WARMDOWN_RATIO": (FloatDistribution(0.1, 0.8), 0.5),
    "FINAL_LR_FRAC": (FloatDistribution(0.0, 0.2), 0.0),
    "WINDOW_PATTERN": (
        CategoricalDistribution(["SSSL", "SSLL", "SLSL", "LLLL", "SSSS", "LSSL"]),
        "SSSL",
    ),
}


def test_an_autoresearch_script_has_the_fourteen_rows_of_the_paper() -> None:
    space, baseline, rule = search_space(AUTORESEARCH_TRAIN, constants={"MAX_SEQ_LEN": 2048})
    assert list(space.items()) == [(name, row[0]) for name, row in PAPER.items()]
    assert list(baseline.items()) == [(name, row[1]) for name, row in PAPER.items()]
    assert rule == Rule(
        ("HEAD_DIM", "DEVICE_BATCH_SIZE", "TOTAL_BATCH_SIZE"),
        {"TOTAL_BATCH_SIZE": ("DEVICE_BATCH_SIZE", "MAX_SEQ_LEN")},
        {"MAX_SEQ_LEN": 2048, **baseline},
    )


def test_a_script_with_some_of_the_papers_names_has_those_rows() -> None:
    space, _, rule = search_space("MATRIX_LR = 0.04\nTOTAL_BATCH_SIZE = 2**17\nOTHER = 3\n")
    assert list(space) == ["TOTAL_BATCH_SIZE", "MATRIX_LR"]
    assert rule.powers_of_two == ("TOTAL_BATCH_SIZE",)
    assert rule.at_least == {}, "no sequence length, no bound"


def test_without_known_names_ranges_are_inferred_from_the_values() -> None:
    source = "LAYERS = 8\nLR = 0.1\nTINY = 0.001\nUSE = True\nNAME = 'x'\nZERO = 0\nSEED = 3\n"
    space, baseline, rule = search_space(source + "def f(x):\n    B, T = x\n    B = 2\n")
    assert space == {
        "LAYERS": IntDistribution(2, 32),
        "LR": FloatDistribution(0.01, 1.0),
        "TINY": FloatDistribution(0.00001, 0.1, log=True),
        "USE": CategoricalDistribution([False, True]),
    }
    assert baseline == {"LAYERS": 8, "LR": 0.1, "TINY": 0.001, "USE": True}
    assert rule == Rule(constants=baseline)
    with pytest.raises(
        TestbedError, match="LR must be assigned once.* lines 2, 8; a search_space"
    ):
        search_space(source + "LR = 2\n")


def test_a_toml_overrides_everything_else_and_keeps_its_order() -> None:
    toml = """
        [OTHER]
        type = "float"
        low = 0
        high = 1
        step = 0.25
        [DEPTH]
        type = "int"
        low = 2
        high = 64
        log = true
        power_of_two = true
        at_least = ["WIDTH", "SEQ"]
        [KIND]
        type = "categorical"
        choices = ["a", 1, true, 0.5]
        [WIDTH]
        type = "int"
        low = 2
        high = 8
        step = 2
    """
    source = "WIDTH = 4\nDEPTH = 8\nOTHER = 1\nKIND = True\nMATRIX_LR = 5.0\n"
    space, baseline, rule = search_space(source, toml=toml, constants={"SEQ": 2})
    assert list(space.items()) == [
        ("OTHER", FloatDistribution(0, 1, step=0.25)),
        ("DEPTH", IntDistribution(2, 64, log=True)),
        ("KIND", CategoricalDistribution(["a", 1, True, 0.5])),
        ("WIDTH", IntDistribution(2, 8, step=2)),
    ]
    assert baseline == {"OTHER": 1.0, "DEPTH": 8, "KIND": True, "WIDTH": 4}
    assert rule == Rule(("DEPTH",), {"DEPTH": ("WIDTH", "SEQ")}, {"SEQ": 2, **baseline})


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[A", "search_space.toml must be valid TOML, but: "),
        ("A = 3", r"A must be a table \[A\], but got 3"),
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
        ("[A]\ntype='float'\nlow=0\nhigh=9\nstep=inf", "A.step must be finite, but got inf"),
        ("[A]\ntype='int'\nlow=4\nhigh=9", r"train.py:1: A must be in .* int 4 to 9, but is 3"),
        ("[A]\ntype='int'\nlow=2\nhigh=8\nstep=2", "int 2 to 8 in steps of 2, but is 3"),
        ("[A]\ntype='categorical'\nchoices=['a', true]", "categorical 'a', True, but is 3"),
        ("[C]\ntype='int'\nlow=1\nhigh=9", "names C, but train.py doesn't assign a literal to it"),
        ("[D]\ntype='int'\nlow=1\nhigh=9", "D must be assigned once, but is bound on lines 2, 3"),
        ("[A]\ntype='int'\nlow=1\nhigh=9\nat_least=['Z']", "A.at_least must name .*, but got Z"),
        ("", "none is tunable"),
    ],
)
def test_a_wrong_toml_is_one_clear_line(toml: str, message: str) -> None:
    with pytest.raises(TestbedError, match=message) as error:
        search_space("A = 3\nD = 1\nD = 2\n", toml=toml)
    assert "\n" not in str(error.value)


def test_a_script_whose_value_is_outside_the_papers_range_is_told_of_the_toml() -> None:
    with pytest.raises(TestbedError, match="train.py:1: DEPTH .*search_space.toml.* but is 2"):
        search_space("DEPTH = 2\n")


def test_a_script_without_constants_is_refused() -> None:
    with pytest.raises(TestbedError, match="none is tunable"):
        search_space("x = 3\nNAME = 'only a string'\n")
