"""What a testbed's folder holds: `search_space.toml`, configuration files, scripts to be tuned."""

from __future__ import annotations

import json

from hypothesis import example
from hypothesis import given
from hypothesis import strategies as st

from objective.testbed.arguments import read_arguments
from objective.testbed.arguments import read_globals
from objective.testbed.arguments import read_variables
from objective.testbed.command import Command
from objective.testbed.config_file import ConfigFile
from objective.testbed.derived import Derived
from objective.testbed.search_space import search_space
from objective.testbed.search_space import to_toml
from objective.testbed.source import Constant
from objective.testbed.source import TestbedError
from objective.testbed.space_file import SpaceFile
from tests.properties.bounds import bounded
from tests.properties.bounds import damaged
from tests.properties.bounds import examples
from tests.properties.bounds import JSON_PIECES
from tests.properties.bounds import read
from tests.properties.bounds import texts


OWN = {name: Constant(name, value, 1) for name, value in {"DEPTH": 4, "LR": 0.01}.items()}
TABLES = [
    '[DEPTH]\ntype = "int"\nlow = 1\nhigh = 8\ndefault = 4\npower_of_two = true\n',
    '[LR]\ntype = "float"\nlow = 1e-4\nhigh = 0.1\nlog = true\nat_least = ["DEPTH"]\n',
    '[LR]\ntype = "categorical"\nchoices = [0.1, 0.2]\nwhen = {DEPTH = [1, 2]}\n',
    'command = "python train.py --lr {LR}"\nmetric = "loss"\nonly_listed = true\n[derived]\nW = "2 * DEPTH"\n',
]
TABLES += [TABLES[0] + TABLES[1], TABLES[0] + TABLES[2]]
TOML = [
    *JSON_PIECES,
    "[DEPTH]",
    "[LR]",
    "[[LR]]",
    "[a.b.c]",
    "type = 'int'",
    "low = 1",
    "high = 8",
]
TOML += ["log = true", "step = 0.1", "default = nan", "choices = ['a', 1]", "when = {LR = 1}", "="]
TOML += ["low = -inf", "high = 1e308", "step = 0", "tune = false", "at_least = [[]]", "1979-05-27"]
TOML += [
    "x = " + "[" * 300,
    "x" + ".x" * 300 + " = 1",
    "x" + ".x" * 3000 + " = 1",
    "derived = 1",
    "[derived]",
    "W = '2**LR'",
]


@examples
@given(damaged(TABLES, TOML))
def test_a_search_space_is_read_or_refused(data: bytes) -> None:
    text = data.decode(errors="replace")
    file = read(SpaceFile.parse, text, refusals=TestbedError)
    if file is None:
        return
    found = read(lambda: search_space(OWN, file), refusals=TestbedError)
    if found is None:
        return
    space, baseline, rule = found
    assert all(
        space[name]._contains(space[name].to_internal_repr(v)) for name, v in baseline.items()
    )
    again = SpaceFile.parse(to_toml(space, baseline, rule, file))
    assert again.space == space
    assert (again.defaults, again.untuned) == (file.defaults, file.untuned)
    assert (again.interface, again.only_listed) == (file.interface, file.only_listed)


FORMULAS = ["2 * DEPTH", "2 ** DEPTH", "DEPTH // 2 + LR", "min(DEPTH, 4)", "9**9**9", "(" * 300]
FORMULAS += [
    "DEPTH.real",
    "[DEPTH]",
    "__import__('os')",
    "1 << 10**9",
    "-" * 5000 + "1",
    "1/0",
    "'a' * 9",
]


@examples
@given(st.dictionaries(st.sampled_from(["W", "LR", "", "a.b"]), texts(FORMULAS), max_size=3))
def test_formulas_are_numbers_or_refused(table: dict[str, str]) -> None:
    own = {name: constant.value for name, constant in OWN.items()}
    derived = read(Derived.of, table, own, {}, refusals=TestbedError)
    if derived is not None:
        with bounded():
            assert derived(own).keys() <= table.keys()


CONFIGS = {
    "c.json": ['{"lr": 0.1, "model": {"depth": 4, "name": "a"}}'],
    "c.yaml": [
        "lr: 1e-3\nmodel:\n  depth: 4\n  name: &a x\n  other: *a\n",
        "a: &a {x: 1}\nb: *a\n",
    ],
    "c.toml": ["lr = 0.1\n[model]\ndepth = 4 # deep\nname = 'a'\n"],
}
YAML = [
    *JSON_PIECES,
    *TOML,
    "&a",
    "*a",
    "!!python/object:os.system",
    "? ",
    "- ",
    "|\n  x",
    "<<: *a",
]
LAUGHS = "\n".join(
    ["a0: &a0 {x: 1}"]
    + [
        f"a{i}: &a{i} {{" + ", ".join(f"k{k}: *a{i - 1}" for k in range(9)) + "}"
        for i in range(1, 9)
    ]
)


@examples
@example("c.yaml", LAUGHS.encode())
@example("c.yaml", b"a: &a {b: *a}")
@example("c.yaml", b"&a {x: 1}: *a\n")
@example("c.yaml", "\n".join(f"k{i}: {i}" for i in range(20_000)).encode())
@example("c.json", json.dumps({f"k{i}": i for i in range(100_000)}).encode())
@given(
    st.sampled_from(sorted(CONFIGS)),
    damaged([text for kind in CONFIGS.values() for text in kind], YAML),
)
def test_a_configuration_file_is_read_and_written_or_refused(name: str, data: bytes) -> None:
    file = ConfigFile(name, data.decode(errors="replace"))
    found = read(file.values, refusals=TestbedError)
    if not found:
        return
    values = {key: constant.value for key, constant in found.items()}
    key = next(iter(values))
    written = read(lambda: file.with_values({key: 0.125}), refusals=TestbedError)
    if written is not None:
        again = ConfigFile(name, written).values()
        assert again[key].value == 0.125
        assert {k: repr(c.value) for k, c in again.items() if k != key} == {
            k: repr(v) for k, v in values.items() if k != key
        }


SCRIPT = ["parser.add_argument('--lr', type=float, default=0.1)", "import argparse", "argparse."]
SCRIPT += ["parser = argparse.ArgumentParser()", "os.environ.get('LR', '0.1')", "LR = 0.1", "{LR}"]
SCRIPT += [
    "float(os.environ['LR'])",
    "import os",
    "globals()",
    "exec(open('c.py').read())",
    "(" * 90,
]


@examples
@given(texts(SCRIPT))
def test_ways_into_a_script_are_found_or_it_is_refused(source: str) -> None:
    for parse in (read_arguments, read_variables, read_globals):
        read(parse, source, "train.py", refusals=TestbedError)


@examples
@given(texts(["python", "train.py", "--lr", "{LR}", "{", "}", "'", '"', "\\", "$(rm)", "|", "&&"]))
def test_a_command_is_words_or_refused(text: str) -> None:
    command = read(Command.parse, text, refusals=TestbedError)
    assert command is None or command.words
