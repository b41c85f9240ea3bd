"""A configuration file beside a script: the values in it, and the same file with others.

The name of a value within tables is its path: ``optimizer.lr``. Items of lists have no names. YAML
and TOML keep their comments, YAML its anchors and tags; JSON is written anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
import json
from pathlib import PurePath
import re
from typing import Any
from typing import NoReturn

import tomlkit
import yaml

from objective.testbed.arguments import parse_number
from objective.testbed.nesting import read_toml
from objective.testbed.nesting import shallow
from objective.testbed.source import Constant
from objective.testbed.source import native
from objective.testbed.source import spliced
from objective.testbed.source import TestbedError
from objective.testbed.source import Value


_SCALARS = (bool, int, float, str)
_LONGEST_YAML = 100_000  # characters, of which PyYAML reads some 200,000 a second
_DEEPEST_YAML = 100  # brackets within brackets, in which PyYAML's time is quadratic
_YAML_MARK = re.compile(r"(?:[&!]\S*\s+)*")  # anchor and tag in front of a value


@dataclass(frozen=True)
class ConfigFile:
    """A configuration file.

    Attributes:
        name: Path within the testbed's folder, which ends in .json, .yaml, .yml or .toml.
        text: Its contents.
    """

    name: str
    text: str

    def values(self) -> dict[str, Constant]:
        """Return its numbers, strings and truth values by their names.

        Raises:
            TestbedError: If it isn't valid, or of another kind.
        """
        if self._kind == "yaml":
            found = {}
            for name, node in _nodes(self._composed()):
                try:
                    value = _of_yaml(node)
                except (ValueError, ArithmeticError, LookupError, yaml.YAMLError) as error:
                    self._refuse(error)  # as whatever else reads it would
                if value is not None:
                    found[name] = Constant(name, value, node.start_mark.line + 1)
            return found
        named = {".".join(path): value for path, value in _leaves(self._loaded())}
        return {n: Constant(n, v, 0) for n, v in named.items() if isinstance(v, _SCALARS)}

    def lists(self) -> list[str]:
        """Return the names of its lists, whose items have none."""
        if self._kind == "yaml":
            nodes = _nodes(self._composed(), yaml.SequenceNode)
            return [name for name, _ in nodes]
        return [
            ".".join(path) for path, value in _leaves(self._loaded()) if isinstance(value, list)
        ]

    def with_values(self, values: Mapping[str, Value]) -> str:
        """Return the file's text with other values under some of its names."""
        values = {name: native(value) for name, value in values.items()}
        if self._kind == "yaml":
            return self._yaml_with(values)
        data: Any = self._loaded()
        paths = {".".join(path): path for path, _ in _leaves(data)}  # a key may hold dots itself
        if self._kind == "toml":
            data = tomlkit.parse(self.text.removeprefix("\ufeff"))
        for name, value in values.items():
            *outer, key = paths[name]
            table = data
            for part in outer:
                table = table[part]
            table[key] = value
        if self._kind == "json":
            return json.dumps(data, indent=2) + "\n"
        return tomlkit.dumps(data)

    @property
    def _kind(self) -> str:
        suffix = PurePath(self.name).suffix.lower()
        kind = {".json": "json", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml"}.get(suffix)
        if kind is None:
            raise TestbedError(
                f"A configuration file must end in .json, .yaml, .yml or .toml, but got {self.name}."
            )
        return kind

    def _loaded(self) -> dict[str, Any]:
        text = self.text.removeprefix("\ufeff")
        try:
            if self._kind == "json":
                data = shallow(json.loads(text, object_pairs_hook=self._table))
            else:
                data = read_toml(text)
        except (ValueError, RecursionError) as error:
            self._refuse(error)
        if not isinstance(data, dict):
            raise TestbedError(f"{self.name} must hold names and values, but got {data!r:.80}.")
        self._require_once(".".join(path) for path, _ in _leaves(data))
        return data

    def _require_once(self, names: Iterable[str]) -> None:
        for name, times in Counter(names).items():
            if times > 1:
                raise TestbedError(f"{self.name} must hold {name} once, but it is there twice.")

    def _table(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            names = Counter(name for name, _ in pairs)
            raise ValueError(f"{names.most_common(1)[0][0]!r} is there more than once")
        return table

    def _composed(self) -> yaml.MappingNode:
        if len(self.text) > _LONGEST_YAML:
            self._refuse(ValueError(f"it has more than {_LONGEST_YAML} characters"))
        try:
            root = yaml.compose(self.text, _Loader)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            self._refuse(error)
        if not isinstance(root, yaml.MappingNode):
            raise TestbedError(f"{self.name} must hold names and values, but it doesn't.")
        self._require_once(name for name, _ in _nodes(root))
        return root

    def _yaml_with(self, values: Mapping[str, Value]) -> str:
        nodes = dict(_nodes(self._composed()))
        pieces = []
        for name, value in values.items():
            node = nodes[name]
            if repr(_of_yaml(node)) == repr(value):
                continue
            start, end = node.start_mark.index, node.end_mark.index
            mark = _YAML_MARK.match(self.text, start)
            assert mark is not None
            written = yaml.safe_dump(value)
            pieces.append((mark.end(), end, written.removesuffix("...\n").strip()))
        return spliced(self.text, pieces)

    def _refuse(self, error: Exception) -> NoReturn:
        raise TestbedError(
            f"{self.name} must be valid, but: {' '.join(str(error).split())}."
        ) from None


class _Loader(yaml.SafeLoader):
    def fetch_flow_collection_start(self, *token: Any) -> None:
        if self.flow_level >= _DEEPEST_YAML:
            raise ValueError(f"it has brackets within brackets, more than {_DEEPEST_YAML} deep")
        super().fetch_flow_collection_start(*token)


def _leaves(
    table: Mapping[str, Any], outer: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the values that are no tables, each with its keys from the outermost table on."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*outer, key))
        else:
            yield (*outer, key), value


def _nodes(
    root: yaml.MappingNode, kind: type[yaml.Node] = yaml.ScalarNode
) -> Iterator[tuple[str, Any]]:
    """Yield the scalars, or lists, and their names; those with several, by aliases, by the first one.

    What a key is made of, or an alias of it, is no value: with another one, others lose their names.
    """
    maps = [node for node in _reached([root]) if isinstance(node, yaml.MappingNode)]
    seen = _reached(key for node in maps for key, _ in node.value)
    waiting: list[tuple[str, yaml.Node]] = [("", root)]
    while waiting:
        name, node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node, kind):
            yield name, node
        elif isinstance(node, yaml.MappingNode):
            prefix = f"{name}." if node is not root else ""
            named = [(k.value, value) for k, value in node.value if isinstance(k, yaml.ScalarNode)]
            waiting += [(f"{prefix}{key}", value) for key, value in reversed(named)]


def _reached(nodes: Iterable[yaml.Node]) -> set[yaml.Node]:
    """Return these nodes and all within them."""
    found: set[yaml.Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node in found:
            continue
        found.add(node)
        if isinstance(node, yaml.MappingNode):
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
    return found


def _of_yaml(node: yaml.ScalarNode) -> Value | None:
    """Return a scalar as scripts mean it: 1e-3, which YAML 1.1 takes for a text, is a number."""
    kind = node.tag.rpartition(":")[2]
    if kind == "str":
        return parse_number(node.value) if node.style is None else str(node.value)
    if kind not in ("bool", "int", "float"):
        return None
    value = yaml.SafeLoader("").construct_object(node)
    return value if isinstance(value, _SCALARS) else None
