"""What a storage holds that anybody may have written: attributes, journals, the state of CMA-ES."""

from __future__ import annotations

import json
from pathlib import Path
import pickle
from typing import Any

import cmaes
from hypothesis import example
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.storages import InMemoryStorage
from optuna.storages import JournalStorage
from optuna.trial import create_trial
from optuna.trial import TrialState
import pytest

from samplers._trials.stored_cma import load_optimizer
from samplers._trials.stored_cma import UntrustedState
from studies.budget import Budget
from studies.facts import study_facts
from studies.facts import trial_facts
from studies.storage.attributes import _OF_STUDIES
from studies.storage.attributes import _OF_TRIALS
from studies.storage.attributes import _OF_TRIALS_SYSTEM
from studies.storage.attributes import CheckedKept
from studies.storage.journal import _NOTHING
from studies.storage.journal import damage
from studies.storage.journal import is_journal
from studies.storage.journal import JournalFile
from studies.storage.journal import mend
from studies.storage.kinds import StorageError
from studies.storage.recovery import abandoned
from studies.storage.recovery import recover
from studies.storage.tls import make_identity
from studies.storage.tls import read_identity
from tests.properties.bounds import bounded
from tests.properties.bounds import damaged
from tests.properties.bounds import examples
from tests.properties.bounds import JSON_PIECES
from tests.properties.bounds import mixed
from tests.properties.bounds import read


class _Checked(CheckedKept, InMemoryStorage):
    """A storage like those that are used, without a file."""


def _attributes(checks: Any) -> st.SearchStrategy[dict[str, Any]]:
    plain = st.sampled_from([0, 1, 0.5, 10**15, True, "ok", "llm", "crash", [], {}, [1.0], "{}"])
    return mixed({name: plain for name in checks})


trials = st.lists(
    st.tuples(
        st.sampled_from(list(TrialState)),
        st.sampled_from([0.5, -1e308, 1e308, 5e-324]),
        _attributes(_OF_TRIALS),
        _attributes(_OF_TRIALS_SYSTEM),
    ),
    max_size=4,
)


@examples
@given(trials, _attributes(_OF_STUDIES))
def test_attributes_are_as_they_should_be_or_left_out(
    given_trials: list[tuple[TrialState, float, dict[str, Any], dict[str, Any]]],
    attributes: dict[str, Any],
) -> None:
    with bounded():
        study = optuna.create_study(storage=_Checked())
        for name, value in attributes.items():
            study.set_user_attr(name, value)
        for state, value, user, system in given_trials:
            study.add_trial(
                create_trial(
                    state=state,
                    value=value if state == TrialState.COMPLETE else None,
                    params={"x": 0.5},
                    distributions={"x": FloatDistribution(0, 1)},
                    user_attrs=user,
                    system_attrs=system,
                )
            )
        json.dumps(study_facts(study))
        for trial in study.trials:
            json.dumps(trial_facts(trial, "val_bpb"))
        Budget.of(study.user_attrs).is_used_up(study.trials)
        abandoned(study)
        recover(study)


# --- Journals -----------------------------------------------------------------------------------


def _sound() -> str:
    """A journal of Optuna's own."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.log"
        study = optuna.create_study(storage=JournalStorage(JournalFile(path)), study_name="s")
        study.set_user_attr("method", "random")
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
        return path.read_text()


SOUND = _sound()
LINES = [*JSON_PIECES, *SOUND.split("\n"), '{"op_code":', '"worker_id":', "9" * 20, '"op_code":99']


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "s.log"


@examples
@given(data=damaged([SOUND], LINES))
def test_a_journal_is_read_as_far_as_it_is_one_and_mended(journal: Path, data: bytes) -> None:
    journal.write_bytes(data)
    before = read_whole(journal)
    assert len(before) == data.count(b"\n"), "a line is a change, if only one of nothing"
    if not is_journal(journal):
        return
    with bounded():
        found = damage(journal)
    with bounded():
        mend(journal)
    with bounded():
        after = damage(journal)
    assert not after.torn and not after.lines and after.short == found.short
    assert len(journal.read_bytes()) == len(data) - found.torn
    for number, (old, new) in enumerate(zip(before, read_whole(journal), strict=True), start=1):
        assert new == old or (new == _NOTHING and number in found.lines)
    JournalFile(journal).append_logs([{"op_code": 0, "worker_id": "w"}])
    assert len(read_whole(journal)) == len(before) + 1


def read_whole(journal: Path) -> list[dict[str, Any]]:
    with bounded():
        return list(JournalFile(journal, read_only=True).read_logs(0))


# --- The key of the proxy -----------------------------------------------------------------------


def _key() -> str:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        make_identity(path := Path(folder) / "key")
        return path.read_text()


PEM = ["-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----", "-----BEGIN PRIVATE KEY-----"]
PEM += ["-----BEGIN ENCRYPTED PRIVATE KEY-----", "-----BEGIN RSA PRIVATE KEY-----", "MII", "AA=="]
PEM += ["Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n"]


@examples
@given(data=damaged([_key()], PEM))
def test_a_key_and_its_certificate_are_read_or_refused(journal: Path, data: bytes) -> None:
    journal.touch(mode=0o600)
    journal.write_bytes(data)
    identity = read(read_identity, journal, refusals=StorageError)
    assert identity is None or identity.key + identity.certificate == data


# --- CMA-ES -------------------------------------------------------------------------------------


def _optimizers() -> list[Any]:
    bounds = np.array([[0.0, 1.0]] * 3)
    plain = cmaes.CMA(mean=np.full(3, 0.5), sigma=0.2, bounds=bounds, seed=0)
    separable = cmaes.SepCMA(mean=np.full(3, 0.5), sigma=0.2, bounds=bounds, seed=0)
    steps = np.array([0.0, 0.1, 0.0])
    margin = cmaes.CMAwM(mean=np.full(3, 0.5), sigma=0.2, bounds=bounds, steps=steps, seed=0)
    for optimizer in (plain, separable, margin):
        asked: list[Any] = [optimizer.ask() for _ in range(optimizer.population_size)]
        points = [one[1] if isinstance(one, tuple) else one for one in asked]
        optimizer.tell([(point, float(np.sum(point))) for point in points])
    return [plain, separable, margin]


PICKLES = [pickle.dumps(optimizer) for optimizer in _optimizers()]
CODE = [
    b"cos\nsystem\n(S'true'\ntR.",
    b"\x8c\x08builtins\x94\x8c\x04eval\x94\x93\x94",
    b"\x94",
    b"0",
]
CODE += [
    b"\x8c\x05numpy\x94\x8c\x07ndarray\x94\x93\x94",
    b"(",
    b"t",
    b"R",
    b"b",
    b".",
    b"\x85\x94h\x00",
]
CODE += [
    b"K\xff",
    b"G\x7f\xf0\x00\x00\x00\x00\x00\x00",
    b"G\x7f\xf8\x00\x00\x00\x00\x00\x00",
    b"]",
    b"}",
]


def _broken(sample: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    for place, length, new in edits:
        start = int(place * len(sample))
        sample = sample[:start] + new + sample[start + length :]
    return sample


pieces = st.sampled_from(CODE) | st.binary(max_size=8)
states = st.one_of(
    st.builds(
        _broken,
        st.sampled_from(PICKLES),
        st.lists(st.tuples(st.floats(0, 1), st.integers(0, 9), pieces), max_size=4),
    ),
    st.lists(pieces, max_size=20).map(b"".join),
)


@examples
@example(b"\x80\x04]" + b"\x94h\x00" * 100_000 + b".")
@given(states)
def test_a_state_of_cma_es_is_of_use_or_refused(data: bytes) -> None:
    optimizer = read(load_optimizer, data, refusals=UntrustedState)
    if optimizer is not None:
        with bounded():
            try:
                optimizer.ask()
            except (ArithmeticError, ValueError, np.linalg.LinAlgError) as error:
                raise AssertionError(f"it is of no use: {error}") from error


def test_sound_states_are_read() -> None:
    for data in PICKLES:
        load_optimizer(data).ask()
