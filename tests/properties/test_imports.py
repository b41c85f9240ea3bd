"""Files of other programs: their trials, what `import` makes of them, surrogates."""

from __future__ import annotations

from collections import Counter
import json
import lzma
from pathlib import Path

from hypothesis import example
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution
from optuna.distributions import IntDistribution
import pytest

import objective.surrogate
from objective.surrogate.data_set import DataSet
from objective.surrogate.data_set import DataSetError
from studies.errors import Misuse
from studies.importing.foreign import Foreign
from studies.importing.foreign import read_file
from studies.importing.space import infer_space
from tests.properties.bounds import bounded
from tests.properties.bounds import damaged
from tests.properties.bounds import examples
from tests.properties.bounds import JSON_PIECES
from tests.properties.bounds import mixed
from tests.properties.bounds import read
from tests.properties.bounds import values


KNOWN: dict[str, BaseDistribution] = {"DEPTH": IntDistribution(1, 6)}
ROW = {"tid": 0, "val_bpb": 0.99, "success": True, "wt": 300.1, "DEPTH": 8, "LR": 0.1}
LINE = {
    "trial_id": 0,
    "backend": "tpe",
    "seed": 0,
    "config": {"DEPTH": 8, "PATTERN": "SSSL"},
    "val_bpb": 0.99,
    "success": False,
    "error": "CUDA out of memory",
    "wall_time_seconds": 300.1,
    "timestamp": "2026-03-01T12:00:00",
    "source": "llm",
    "llm_ratio": 0.3,
    "model": "m",
}
TSV = (
    "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"
    "a1b2c3d\t0.997900\t44.0\tkeep\tbaseline\n"
    "c3d4e5f\t0.000000\t0.0\tcrash\tdouble width (OOM)\n"
)
FILES = [json.dumps({"tpe": {"0": [ROW, {**ROW, "tid": 1, "DEPTH": 4}]}}), TSV]
FILES += [json.dumps(LINE) + "\n" + json.dumps({**LINE, "trial_id": 1}) + "\n"]
PIECES = [*JSON_PIECES, *(f'"{name}": ' for name in {**ROW, **LINE}), "\t", TSV.split("\n")[1]]
PIECES += ["commit\t", "\tstatus\t", "crash", "9999999-01-01", "1e308", "-0", "0x1", "١"]

row = mixed(
    {
        "trial_id": st.integers(),
        "backend": st.sampled_from(["tpe", "a\x1bb", "=1", ""]),
        "seed": st.integers(0, 2) | st.just("1"),
        "config": mixed({"DEPTH": st.integers(1, 8), "LR": st.floats(0, 1), "P": st.text()}),
        "val_bpb": st.floats() | st.none(),
        "success": st.booleans(),
        "error": st.text(),
        "wall_time_seconds": st.floats(),
        "timestamp": st.datetimes().map(str) | st.floats() | st.integers(),
        "llm_ratio": st.floats(),
        "source": st.text(),
        "attributes": mixed({"commit": st.text(), "peak_memory_mb": st.floats()}),
    }
)
nested = st.dictionaries(
    st.sampled_from(["tpe", "cma", ""]),
    st.dictionaries(st.sampled_from(["0", "1", "x"]), st.lists(row | values(), max_size=4)),
    max_size=3,
)
files = damaged(FILES, PIECES) | (
    st.lists(row, min_size=1, max_size=5).map(lambda rows: "\n".join(map(json.dumps, rows)))
    | nested.map(json.dumps)
    | values().map(json.dumps)
).map(str.encode)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "f"


@examples
@example(data=b'{"\\ud800": 1, "\\ud800": 2}')
@example(data=b"commit\t\tstatus\t\n")
@example(data=b"commit\tstatus\tval_bpb\tmemory_gb\n1\t2\t3\t4\n")
@given(data=files)
def test_a_file_is_trials_or_refused(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    foreign = read(read_file, file, refusals=Misuse)
    if foreign is None:
        return
    assert isinstance(foreign, Foreign)
    for trial in foreign.trials:
        json.dumps(trial.params, ensure_ascii=False).encode()
        assert trial.method and "\x1b" not in trial.method + trial.reason + trial.model
    with bounded():
        space = infer_space(foreign.trials, KNOWN, {}, Counter())
    assert space.keys() <= {name for trial in foreign.trials for name in trial.params}


DATA = next(Path(objective.surrogate.__file__).parent.rglob("*.json.xz"))
DOCUMENT = lzma.decompress(DATA.read_bytes()).decode()


@examples
@example(b"[" * 100_000)
@given(
    data=damaged([DOCUMENT[:3000], DOCUMENT[-3000:]], PIECES)
    | values().map(json.dumps).map(str.encode)
)
def test_a_surrogate_is_read_or_refused(file: Path, data: bytes) -> None:
    for packed in (data, lzma.compress(data, preset=0)):
        file.write_bytes(packed)
        read(DataSet.read, file, refusals=DataSetError)


def test_a_surrogate_that_unpacks_to_much_more_is_refused(file: Path) -> None:
    file.write_bytes(lzma.compress(bytes(2**28), preset=0))
    assert read(DataSet.read, file, refusals=DataSetError) is None
