"""Configuration files: their values, and the same file with others."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import yaml

from objective.testbed.config_file import ConfigFile
from objective.testbed.nesting import read_toml
from objective.testbed.source import TestbedError


YAML = """\
# all of it
width: 8  # units
optimizer: &opt
  lr: &rate 1e-3
  name: adam
  "weight.decay": 0.1
again: {<<: *opt, rate: *rate}
tag: !custom {x: 1.5}
layers: [1, 2]
text: '5'
flag: true
"""
JSON = json.dumps({"width": 8, "optimizer": {"lr": 0.001, "a.b": 2}, "layers": [1], "flag": True})
TOML = 'width = 8\nwhen = 2026-01-01\n[optimizer]\nlr = 1e-3\nname = "a\\"b"\n[[layers]]\nn = 1\n'


def values(name: str, text: str) -> dict[str, Any]:
    return {key: c.value for key, c in ConfigFile(name, text).values().items()}


def test_yaml_keeps_all_but_the_values() -> None:
    found = values("c.yaml", YAML)
    assert found["optimizer.lr"] == 0.001 and found["text"] == "5" and found["flag"] is True
    assert found["optimizer.weight.decay"] == 0.1 and found["tag.x"] == 1.5
    assert "layers" not in found
    changed = ConfigFile("c.yaml", YAML).with_values(
        {"width": 16, "optimizer.lr": 1e-05, "optimizer.name": "a: b", "tag.x": 2.0, "flag": False}
    )
    assert changed == (
        YAML.replace("width: 8 ", "width: 16 ")
        .replace("&rate 1e-3", "&rate 1.0e-05")
        .replace("name: adam", "name: 'a: b'")
        .replace("x: 1.5", "x: 2.0")
        .replace("flag: true", "flag: false")
    )
    assert ConfigFile("c.yml", YAML).with_values({"width": 8}) == YAML


@pytest.mark.parametrize(("name", "text"), [("c.yaml", YAML), ("c.json", JSON), ("c.toml", TOML)])
def test_lists_are_told_apart_from_values(name: str, text: str) -> None:
    assert ConfigFile(name, text).lists() == ["layers"]


def test_a_scalar_of_numpy_that_is_there_already_changes_nothing() -> None:
    values = {"width": np.int64(8), "optimizer.lr": np.float64(1e-3)}
    assert ConfigFile("c.yaml", YAML).with_values(values) == YAML  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [("c.json", JSON, json.loads), ("c.toml", TOML, read_toml)],
)
def test_json_and_toml_read_back_with_the_new_values(name: str, text: str, read: Any) -> None:
    file = ConfigFile(name, text)
    before, after = read(text), read(file.with_values({"width": 16, "optimizer.lr": 1e-05}))
    assert (after.pop("width"), after["optimizer"].pop("lr")) == (16, 1e-05)
    assert (before.pop("width"), before["optimizer"].pop("lr")) == (8, 0.001)
    assert after == before
    assert read(ConfigFile(name, text).with_values({})) == read(text)


def test_a_name_may_hold_a_dot() -> None:
    file = ConfigFile("c.json", "\ufeff" + JSON)
    assert "optimizer.a.b" in file.values()
    assert json.loads(file.with_values({"optimizer.a.b": 3}))["optimizer"]["a.b"] == 3


@pytest.mark.parametrize(
    "tables",
    [
        {"a": {"x": 1}, "a.b": {"c": 2}},
        {"a": 1, "a.b": {"c": 2}},
        {"a": {"b.c": 2, "b": {"d": 1}}},
        {"a": {"b": {"c": 2}}, "a.b": {"d": 1}},
    ],
)
def test_a_dotted_name_leads_where_its_value_was_read(tables: dict[str, Any]) -> None:
    file = ConfigFile("c.json", json.dumps(tables))
    written = ConfigFile("c.json", file.with_values({"a.b.c": 3}))
    own = values("c.json", file.text)
    assert values("c.json", written.text) == {**own, "a.b.c": 3} != own


def test_yaml_that_was_written_is_what_scripts_read() -> None:
    written = ConfigFile("c.yaml", "a: 1\nb: x\n").with_values({"a": 1e-07, "b": "yes"})
    assert yaml.safe_load(written) == {"a": 1e-07, "b": "yes"}


@pytest.mark.parametrize("text", ["&a {x: 1}: *a", "a: &a x\n*a : 1", "a: [&a x]\n*a : 1"])
def test_what_is_also_a_key_in_yaml_is_no_value(text: str) -> None:
    file = ConfigFile("c.yaml", f"lr: 0.1\n{text}\n")
    found = values("c.yaml", file.text)
    assert found == {"lr": 0.1} or found == {"lr": 0.1, "x": 1}
    for name in found:
        changed = file.with_values({name: 0.125})
        assert values("c.yaml", changed) == {**found, name: 0.125}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.ini", "a=1", "must end in .json, .yaml, .yml or .toml, but got c.ini"),
        ("c.json", "{", "c.json must be valid, but: "),
        ("c.json", "[1]", r"must hold names and values, but got \[1\]"),
        ("c.json", '{"a": 1, "a": 2}', "'a' is there more than once"),
        ("c.json", '{"a.b": 1, "a": {"b": 2}}', "must hold a.b once, but it is there twice"),
        ("c.toml", '"a.b" = 1\na.b = 2', "must hold a.b once, but it is there twice"),
        ("c.json", "[" * 100_000, "c.json must be valid"),
        ("c.json", '{"a":' * 900 + "1" + "}" * 900, "c.json must be valid, but: .*50 deep"),
        ("c.toml", "a = 1\na = 2", "c.toml must be valid, but: "),
        ("c.toml", ".".join("a" * 900) + " = 1", "c.toml must be valid, but: .*50 deep"),
        ("c.yaml", "a: [", "c.yaml must be valid, but: "),
        ("c.yaml", "a: 1\na: 2\n", "must hold a once, but it is there twice"),
        ("c.yaml", "- 1", "must hold names and values"),
        ("c.yaml", "", "must hold names and values"),
        ("c.yaml", "a: 1\n---\nb: 1\n", "c.yaml must be valid"),
        ("c.yaml", "[" * 5000, "brackets within brackets, more than 100 deep"),
        ("c.json", '{"a": 1%s}' % ("0" * 5000), "c.json must be valid, but: Exceeds the limit"),
        ("c.toml", "a = 1" + "0" * 5000, "c.toml must be valid, but: Exceeds the limit"),
        ("c.yaml", "a: 1" + "0" * 5000, "c.yaml must be valid, but: Exceeds the limit"),
        ("c.yaml", "a: 1" + ":00" * 200 + ".5", "c.yaml must be valid, but: int too large"),
        ("c.yaml", "a: !!int x", "c.yaml must be valid, but: invalid literal"),
        ("c.yaml", "a: !!int ''", "c.yaml must be valid, but: "),
        ("c.yaml", "a: !!bool maybe", "c.yaml must be valid, but: 'maybe'"),
        ("c.yaml", "a: !x:int 1", "c.yaml must be valid, but: could not determine a constructor"),
        ("c.yaml", "a: " + "{" * 101, "brackets within brackets, more than 100 deep"),
    ],
)
def test_a_wrong_file_is_one_clear_line(name: str, text: str, message: str) -> None:
    with pytest.raises(TestbedError, match=message) as error:
        ConfigFile(name, text).values()
    assert "\n" not in str(error.value)


def test_the_comments_of_toml_stay() -> None:
    text = "# of the model\nwidth = 8  # a power of two\n\n[optimizer]\nlr = 1e-3\n"
    written = ConfigFile("c.toml", text).with_values({"width": 16, "optimizer.lr": 0.5})
    assert written == text.replace("= 8", "= 16").replace("1e-3", "0.5")
