from __future__ import annotations

import json
import re

from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest

from objective.testbed.inference import Space
from objective.testbed.rule import Rule
from objective.testbed.search_space import left_out
from objective.testbed.search_space import search_space as space_of
from objective.testbed.search_space import to_lines
from objective.testbed.search_space import to_toml
from objective.testbed.source import scan
from objective.testbed.source import TestbedError
from objective.testbed.source import Value
from objective.testbed.space_file import SpaceFile
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


def search_space(
    source: str, toml: str | None = None, constants: dict[str, Value] | None = None
) -> tuple[Space, dict[str, Value], Rule]:
    return space_of(scan(source), SpaceFile.parse(toml or ""), constants=constants)


ODD = "\\ \" ' # \u0085 \u2028 é"


def test_an_autoresearch_script_has_the_fourteen_rows_of_the_paper() -> None:
    space, baseline, rule = search_space(AUTORESEARCH_TRAIN, constants={"MAX_SEQ_LEN": 2048})
    assert list(space.items()) == [(name, row[0]) for name, row in PAPER.items()]
    assert list(baseline.items()) == [(name, row[1]) for name, row in PAPER.items()]
    assert rule == Rule(
        ("HEAD_DIM", "DEVICE_BATCH_SIZE", "TOTAL_BATCH_SIZE"),
        {"TOTAL_BATCH_SIZE": ("DEVICE_BATCH_SIZE", "MAX_SEQ_LEN")},
        {"MAX_SEQ_LEN": 2048, **baseline},
    )


def test_a_toml_overrides_row_by_row_and_comes_first() -> None:
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
        [HEADS]
        tune = false
    """
    source = "WIDTH = 4\nHEADS = 2\nDEPTH = 8\nOTHER = 1\nKIND = True\nMATRIX_LR = 0.1\nN = 3\n"
    space, baseline, rule = search_space(source, toml=toml, constants={"SEQ": 2})
    listed = [
        ("OTHER", FloatDistribution(0, 1, step=0.25)),
        ("DEPTH", IntDistribution(2, 64, log=True)),
        ("KIND", CategoricalDistribution(["a", 1, True, 0.5])),
        ("WIDTH", IntDistribution(2, 8, step=2)),
    ]
    others = [("MATRIX_LR", PAPER["MATRIX_LR"][0]), ("N", IntDistribution(1, 12))]
    assert list(space.items()) == [*listed, *others]
    values = {"OTHER": 1.0, "DEPTH": 8, "KIND": True, "WIDTH": 4, "MATRIX_LR": 0.1, "N": 3}
    assert baseline == values
    assert rule == Rule(("DEPTH",), {"DEPTH": ("WIDTH", "SEQ")}, {"SEQ": 2, **values})
    assert left_out(scan(source), SpaceFile.parse(toml)) == {"HEADS": "search_space.toml says so"}
    only = "only_listed = true\n" + toml
    assert list(search_space(source, toml=only, constants={"SEQ": 2})[0].items()) == listed
    assert left_out(scan(source), SpaceFile.parse(only)).keys() == {"HEADS", "MATRIX_LR", "N"}


def test_a_table_for_one_of_the_papers_names_leaves_the_thirteen_others() -> None:
    toml = "\ufeff[DEPTH]\ntype='int'\nlow=6\nhigh=10\n"
    space, _, rule = search_space(AUTORESEARCH_TRAIN, toml=toml, constants={"MAX_SEQ_LEN": 2048})
    assert space["DEPTH"] == IntDistribution(6, 10)
    assert space.keys() == PAPER.keys()
    assert rule.at_least == {"TOTAL_BATCH_SIZE": ("DEVICE_BATCH_SIZE", "MAX_SEQ_LEN")}


@pytest.mark.parametrize(
    ("source", "toml"),
    [
        (AUTORESEARCH_TRAIN, None),
        ("A = 3\nB = 0.25\nC = True\nD = 1e-99\nE = 'x'\n", None),
        (
            f"A = 4\nB = 1\nC = {ODD!r}\n",
            "[A]\ntype='int'\nlow=2\nhigh=8\nstep=2\n[B]\ntype='float'\nlow=0\nhigh=2\nstep=0.5\n"
            f"[C]\ntype='categorical'\nchoices=[{json.dumps(ODD)}, true, 1.5]\n",
        ),
    ],
)
def test_a_written_toml_reads_back_to_the_same_space(source: str, toml: str | None) -> None:
    constants: dict[str, Value] = {"MAX_SEQ_LEN": 2048}
    found = search_space(source, toml=toml, constants=constants)
    assert search_space(source, toml=to_toml(*found), constants=constants) == found


def test_a_written_toml_keeps_all_that_the_given_one_says() -> None:
    toml = """
        metric = "accuracy"
        direction = "maximize"
        only_listed = true
        [OPT]
        type = "categorical"
        choices = ["a", "b"]
        default = "b"
        [SIZE]
        type = "int"
        low = 2
        high = 8
        power_of_two = true
        at_least = ["LAYERS"]
        when = { OPT = ["a", "b"] }
        [RATE]
        type = "float"
        low = 0
        high = 4
        step = 1
        default = 2
        [LAYERS]
        tune = false
        [derived]
        area = "SIZE * LAYERS"
    """
    said = SpaceFile.parse(toml)
    own = scan("OPT = 'a'\nSIZE = 4\nRATE = 3.0\nLAYERS = 3\nOTHER = 5\n")
    found = space_of(own, said, constants={"LAYERS": 3})
    again = SpaceFile.parse(to_toml(*found, said))
    assert again == said
    assert space_of(own, again, constants={"LAYERS": 3}) == found


def test_a_space_is_written_as_lines_that_read_back_to_it() -> None:
    space: Space = {
        "optimizer.lr": FloatDistribution(0.007000000000000001, 1, log=True),
        "a-b c": CategoricalDistribution(["x", True, 1e-300]),
        "N": IntDistribution(2, 8),
    }
    rule = Rule(("N",), only_when={"N": {"a-b c": ("x",)}})
    lines = to_lines(space, rule, SpaceFile(defaults={"N": 4}, untuned=("p.q",)))
    assert len(lines) == 4
    again = SpaceFile.parse("\n".join([*lines, "[OTHER]\ntype = 'int'\nlow = 1\nhigh = 2\n"]))
    assert again.space == {**space, "OTHER": IntDistribution(1, 2)}
    assert (again.rule, again.defaults, again.untuned) == (rule, {"N": 4}, ("p.q",))


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[A]\ntype='int'\nlow=4\nhigh=9", r"train.py:1: A must be in .* int 4 to 9, but is 3"),
        ("[A]\ntype='int'\nlow=2\nhigh=8\nstep=2", "int 2 to 8 in steps of 2, but is 3"),
        ("[A]\ntype='categorical'\nchoices=['a', true]", "categorical 'a', True, but is 3"),
        ("[C]\ntype='int'\nlow=1\nhigh=9", "names C, but train.py doesn't assign a literal to it"),
        ("[D]\ntype='int'\nlow=1\nhigh=9", "D must be assigned once, but is bound on lines 2, 3"),
        ("[D]\ntype='int'\nlow=1\nhigh=9\ndefault=3", "D must be assigned once, but is bound on"),
        ("[C]\ntype='int'\nlow=1\nhigh=9\ndefault=3", "names C, but train.py doesn't assign"),
        ("[A]\ntype='int'\nlow=1\nhigh=9\nat_least=['Z']", "A.at_least must name .*, but got Z"),
        (
            "[A]\ntype='int'\nlow=1\nhigh=9\nat_least=['B']\n[B]\ntype='float'\nlow=0\nhigh=9",
            "A.at_least must name .*, but got B",
        ),
        (
            "[A]\ntype='int'\nlow=1\nhigh=9\nat_least=['K']\n"
            "[K]\ntype='categorical'\nchoices=[4, 'x']",
            "A.at_least must name .*, but got K",
        ),
        ("[A]\ntype='int'\nlow=1\nhigh=9\nat_least=['A']", "lead .* back to it, but got A -> A"),
        (
            "[A]\ntype='int'\nlow=1\nhigh=9\nat_least=['K']\n"
            "[K]\ntype='int'\nlow=1\nhigh=9\nwhen={A=3}",
            "must not lead from a parameter back to it, but got (A -> K -> A|K -> A -> K)",
        ),
        ("only_listed = true", "none is tunable"),
    ],
)
def test_a_toml_that_does_not_fit_the_script_is_one_clear_line(toml: str, message: str) -> None:
    with pytest.raises(TestbedError, match=message) as error:
        search_space("A = 3\nD = 1\nD = 2\nB = 0.5\nK = 4\n", toml=toml)
    assert "\n" not in str(error.value)


def test_all_problems_are_told_at_once() -> None:
    toml = "only_listed = 1\n[A]\ntype='int'\nlow=9\nhigh=1\n[B]\ntype='x'\n[C]\ntune='no'\n"
    with pytest.raises(TestbedError) as error:
        search_space("A = 3\n", toml=toml)
    for part in ("only_listed must be bool", "A: low <= high", "B.type", "C.tune must be bool"):
        assert part in str(error.value)
    toml = (
        "[A]\ntype='int'\nlow=9\nhigh=10\nat_least=['Z']\n[C]\ntype='int'\nlow=1\nhigh=2\n"
        "[E]\ntune=false\n"
    )
    with pytest.raises(TestbedError) as error:
        search_space("A = 3\n", toml=toml)
    for part in (
        "int 9 to 10, but is 3",
        "names C",
        "at_least .* got Z",
        "E, but train.py has no",
    ):
        assert re.search(part, str(error.value))


@pytest.mark.parametrize(
    "toml",
    [
        f"[A]\ntype='int'\nlow=1\nhigh={10**400}",
        f"[A]\ntype='int'\nlow=1\nhigh={'9' * 5000}",
        f"[A]\ntype='int'\nlow=1\nhigh={hex(10**5000)}",
        f"[A]\ntype='int'\nlow=1\nhigh=9\nlog={hex(10**5000)}",
        f"[A]\ntype='int'\nlow=1\nhigh=9\nstep={10**30}",
        f"[A]\ntype='float'\nlow=1\nhigh={hex(10**5000)}",
        f"[A]\ntype='categorical'\nchoices=[3, {hex(10**5000)}]",
        f"[A]\ntype={hex(10**5000)}",
        "[A]\ntype='float'\nlow=-1e308\nhigh=1e308",
        "[A]\ntype='float'\nlow=0\nhigh=9\nstep=1e-320",
        "[A]\ntype='float'\nlow=5e-324\nhigh=9\nlog=true",
        f"A = {'[' * 10000}{']' * 10000}",
    ],
)
def test_numbers_beyond_measure_are_one_clear_line(toml: str) -> None:
    with pytest.raises(TestbedError, match=r"^search_space.toml.* must be ") as error:
        search_space("A = 3\n", toml=toml)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_a_script_without_constants_is_refused_with_the_reasons() -> None:
    with pytest.raises(TestbedError, match=r"none is tunable \(NAME: text .*; ZERO: no scale"):
        search_space("x = 3\nNAME = 'only a string'\nZERO = 0\n")
    with pytest.raises(TestbedError, match="none is tunable"):
        search_space("x = 3\n")
