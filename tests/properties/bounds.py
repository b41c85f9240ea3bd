"""How a parser is held to its promise, and the bytes that it gets.

Whatever comes in, a value comes out or an error of one line; never another exception, never for a
second of the processor, never with 200 MB. `make test-properties` tries 10,000 random examples for
each parser. The suite tries 100, the same ones each time, and allows for a slow machine: what it
finds is what a change broke.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
import gc
import os
from pathlib import Path
import resource
import signal
from typing import Any
from typing import TypeVar

from hypothesis import HealthCheck
from hypothesis import settings
from hypothesis import strategies as st


_MANY = "HYPOTHESIS_EXAMPLES"
SECONDS, MEGABYTES = 1.0 if _MANY in os.environ else 5.0, 200

examples = settings(
    max_examples=int(os.environ.get(_MANY, "100")),
    derandomize=_MANY not in os.environ,
    deadline=None,  # of the wall clock, which a busy machine misses: `bounded` counts the processor's
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

_Value = TypeVar("_Value")

# Characters that are handled apart somewhere, or break what isn't careful.
ODD = ["\0", "\ufeff", "\x0c", "\u2028", "\x85", "\ud800", "\r", "\r\n", "\n", "\t", "é", "🙂"]
ODD += ["\x1b[2J", "\u202e", "$", "=1+1", "%s", "{}", "\\", '"', "'", "/../", "9" * 5000, "1e400"]
NUMBERS: list[Any] = [0, -1, 1, 2**53, 2**63, 10**30, 0.5, 1e308, -1e308, 5e-324]
NUMBERS += [float("nan"), float("inf"), float("-inf"), 10**400]
JSON_PIECES = ["{", "}", "[", "]", '"', ":", ",", "null", "true", "NaN", "-Infinity", "1e999"]
JSON_PIECES += ['"\\ud800"', "[" * 900, "]" * 900, '{"a":' * 300, "}" * 300, "\\u0000"]


class _TooMuch(BaseException):
    """More time than is allowed; no parser that catches an Exception catches it."""


def _stop(*_: object) -> None:
    raise _TooMuch


@contextmanager
def bounded() -> Iterator[None]:
    """Hold whatever is done to a second of the processor and 200 MB beyond what the process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * resource.getpagesize() + MEGABYTES * 2**20
    gc.disable()  # it would take its time for what others left, and drop what `_stop` raises
    handler = signal.signal(signal.SIGPROF, _stop)
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    except _TooMuch:
        raise AssertionError(f"it takes more than {SECONDS:g} s") from None
    except MemoryError:
        raise AssertionError(f"it takes more than {MEGABYTES} MB") from None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGPROF, handler)
        gc.enable()


def read(
    parse: Callable[..., _Value],
    *given: Any,
    refusals: type[Exception] | tuple[type[Exception], ...],
) -> _Value | None:
    """Parse something within the bounds: the value, or None if it is refused in one line."""
    with bounded():
        try:
            return parse(*given)
        except refusals as error:
            said = str(error)
    assert said and "\n" not in said and "\r" not in said and "\x1b" not in said, said
    assert len(said) < 5000
    return None


def texts(pieces: list[str]) -> st.SearchStrategy[str]:
    """Texts of pieces that mean something to a parser, among any others; some of them very often."""
    piece = st.one_of(st.sampled_from([*pieces, *ODD]), st.text(max_size=20))
    often = st.builds(
        lambda p, n: p * min(n, 30_000 // len(p)),
        st.sampled_from([piece for piece in (*pieces, *ODD) if piece]),
        st.sampled_from([2, 100, 30_000]),
    )
    separator = st.sampled_from(["\n", "", " ", "\n    "])
    several = st.lists(piece, max_size=30) | st.lists(piece | often, max_size=4)
    return st.builds(lambda parts, by: by.join(parts), several, separator)


def damaged(samples: list[str], pieces: list[str]) -> st.SearchStrategy[bytes]:
    """What a sound text becomes: parts of it cut out, written twice, or in the place of others."""
    edit = st.tuples(
        st.floats(0, 1), st.floats(0, 0.2), st.sampled_from(["cut", "again", "put"]), texts(pieces)
    )

    def apply(sample: str, edits: list[tuple[float, float, str, str]]) -> bytes:
        for place, length, how, text in edits:
            start = int(place * len(sample))
            end = start + int(length * len(sample))
            new = {"cut": "", "again": 2 * sample[start:end], "put": text}[how]
            sample = sample[:start] + new + sample[end:]
        return sample.encode("utf-8", "surrogatepass")

    return st.one_of(
        st.builds(apply, st.sampled_from(samples), st.lists(edit, max_size=4)),
        texts(pieces).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.binary(max_size=200),
    )


def values() -> st.SearchStrategy[Any]:
    """Anything that JSON can say."""
    leaf = st.one_of(
        st.none(),
        st.booleans(),
        st.sampled_from(NUMBERS),
        st.integers(),
        st.floats(),
        st.sampled_from(ODD),
        st.text(max_size=10),
    )
    return st.recursive(
        leaf,
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
        ),
        max_leaves=12,
    )


def mixed(known: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some of the known keys, whose values are as they should be or anything."""
    return st.fixed_dictionaries(
        {}, optional={key: good | values() for key, good in known.items()}
    )
