"""CMA-ES's stored state is data, whoever wrote it."""

from __future__ import annotations

from collections.abc import Iterator
import copy
import importlib
import io
import logging
import os
from pathlib import Path
import pickle
import pickletools
from typing import Any

import cmaes
import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler
from optuna.trial import create_trial
import pytest

from samplers import CentaurSampler
from samplers import KarpathyAgentSampler
from samplers import LLAMBOSampler
from samplers import SMACSampler
from samplers._llm.scripted import ScriptedChat
from samplers._trials.stored_cma import CheckedCmaEsSampler
from samplers._trials.stored_cma import load_optimizer
from samplers._trials.stored_cma import UntrustedState
from studies.methods import METHODS
from studies.methods import Setup


MULTIARRAY: Any = importlib.import_module("numpy._core.multiarray")
NUMERIC: Any = importlib.import_module("numpy._core.numeric")
SPACE = {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)}
BOUNDS = np.array([[0.0, 1.0]] * 3)
STEPS = {"some": np.array([0.1, 0.0, 0.25]), "none": np.zeros(3)}


def _optimizers() -> Iterator[Any]:
    mean = np.full(3, 0.5)
    yield cmaes.CMA(mean, 0.2, bounds=BOUNDS, seed=1)
    yield cmaes.CMA(mean, 0.2, bounds=BOUNDS, seed=1, lr_adapt=True)
    yield cmaes.SepCMA(mean, 0.2, bounds=BOUNDS, seed=1)
    for steps in STEPS.values():
        yield cmaes.CMAwM(mean, 0.2, BOUNDS, steps, seed=1)


def _learn(optimizer: Any, generations: int) -> Any:
    for _ in range(generations):
        told = []
        for _ in range(optimizer.population_size):
            asked = optimizer.ask()
            x = asked[1] if isinstance(optimizer, cmaes.CMAwM) else asked
            told.append((x, float(np.sum(x**2))))
        optimizer.tell(told)
    return optimizer


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("generations", [0, 1, 60])
def test_what_cmaes_stores_is_read_as_it_was(generations: int, protocol: int) -> None:
    for optimizer in _optimizers():
        _learn(optimizer, generations)
        pickled = pickle.dumps(optimizer, protocol)
        if protocol < 4:  # which Python has not written by itself since 3.8
            with pytest.raises(UntrustedState):
                load_optimizer(pickled)
            continue
        read = load_optimizer(pickled)
        assert type(read) is type(optimizer)
        np.testing.assert_array_equal(read.mean, optimizer.mean)
        for one in (read, optimizer):
            one._rng.seed(7)
        # Some BLAS round differently where an array begins elsewhere in memory.
        np.testing.assert_allclose(_learn(read, 2).mean, _learn(optimizer, 2).mean, rtol=1e-9)


class _Plant:
    """What an attacker stores: unpickling it makes a file."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self._reduced = (call, arguments)

    def __reduce__(self) -> Any:
        return self._reduced


def _pieces(pickled: bytes, prefix: str) -> dict[str, str]:
    text = pickled.hex()
    return {
        f"{prefix}optimizer:{i}": text[start : start + 2045]
        for i, start in enumerate(range(0, len(text), 2045))
    }


def _samplers() -> dict[str, BaseSampler]:
    chat = ScriptedChat([])
    made: dict[str, BaseSampler] = {
        f"centaur-{critic}-{learn}": CentaurSampler(
            chat=chat, critic=critic, learn_from_llm=learn, warm_start=0, seed=0
        )
        for critic in ("gp", None)
        for learn in ("clipped", "all")
    }
    made["centaur-margin"] = CentaurSampler(chat=chat, with_margin=True, critic=None, seed=0)
    made["centaur-separable"] = CentaurSampler(
        chat=chat, use_separable_cma=True, critic=None, seed=0
    )
    made["smac"] = SMACSampler(seed=0)
    made["llambo"] = LLAMBOSampler(chat=chat, warm_start="random", n_startup_trials=99, seed=0)
    made["karpathy"] = KarpathyAgentSampler(chat=chat, n_startup_trials=99, warm_start=0, seed=0)
    for name, method in METHODS.items():
        if method.build is not None and not method.uses_llm:
            made[f"--method {name}"] = method.build(_setup())
    return made


def _setup() -> Setup:
    return Setup(seed=0, space=dict(SPACE), n_trials=20)


@pytest.mark.parametrize("name", _samplers())
def test_a_planted_pickle_is_run_by_no_sampler(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mark = tmp_path / "was-run"
    planted = pickle.dumps(_Plant(os.mkdir, str(mark)))
    study = optuna.create_study(sampler=_samplers()[name])
    for number in range(12):
        x, y = number / 12, 1 - number / 12
        system_attrs: dict[str, Any] = {}
        for prefix in ("cma:", "sepcma:", "cmawm:"):
            system_attrs |= {**_pieces(planted, prefix), f"{prefix}generation": 3}
        study.add_trial(
            create_trial(
                params={"x": x, "y": y},
                distributions=dict(SPACE),
                value=x + y,
                system_attrs=system_attrs,
            )
        )
    optuna.logging.enable_propagation()
    with caplog.at_level(logging.WARNING):
        trial = study.ask(dict(SPACE))
    optuna.logging.disable_propagation()
    assert not mark.exists()
    assert set(trial.params) == {"x", "y"}
    if "centaur" in name or "cma-es" in name:
        assert "mkdir" in caplog.text and "Somebody else may have written it" in caplog.text


def test_cma_es_goes_on_from_the_last_sound_state(tmp_path: Path) -> None:
    def objective(trial: optuna.Trial) -> float:
        return trial.suggest_float("x", 0, 1) + trial.suggest_float("y", 0, 1)

    for sampler in (CheckedCmaEsSampler(seed=0, popsize=4), CentaurSampler(llm_ratio=0, seed=0)):
        study = optuna.create_study(sampler=sampler)
        study.optimize(objective, n_trials=20)
        planted = copy.deepcopy(study.trials[3])
        planted.system_attrs = {
            **_pieces(pickle.dumps(_Plant(os.mkdir, str(tmp_path / "x"))), "cma:"),
            "cma:generation": 99,
        }
        study.add_trial(planted)
        study.optimize(objective, n_trials=1)
        assert study.trials[-1].system_attrs["cma:generation"] >= 2
        assert not (tmp_path / "x").exists()


def _with(values: dict[str, Any], optimizer: Any = None) -> bytes:
    """A pickle of an optimizer some of whose values are others."""
    changed = copy.deepcopy(optimizer or next(_optimizers()))
    vars(changed).update(values)
    return pickle.dumps(changed)


def _hash_bomb() -> bytes:
    """A dictionary whose key is a tuple of one tuple twice, and so on, 60 deep."""
    out = io.BytesIO()
    out.write(b"\x80\x04}")  # protocol 4, a dictionary
    out.write(b")\x94")  # (), memorized as 0
    for depth in range(60):
        out.write(b"h" + bytes([depth]) + b"\x86\x94")  # a pair of it and of it again
    out.write(b"K\x01s.")
    return out.getvalue()


HOSTILE = {
    "nothing": b"",
    "text": b"no pickle",
    "cut off": pickle.dumps(next(_optimizers()))[:-40],
    "a number": pickle.dumps(1),
    "a function of numpy": pickle.dumps(np.save),
    "the class itself": pickle.dumps(cmaes.CMA),
    "eval": b"\x80\x04cbuiltins\neval\n(X\x01\x00\x00\x001tR.",
    "an attribute of an attribute": b"\x80\x04\x8c\x05numpy\x8c\x0bndarray.fll\x93.",
    "objects": _with({"_mean": np.array([1, None, 2], dtype=object)}),
    "infinite": _with({"_sigma": float("inf")}),
    "text as a number": _with({"_sigma": "1"}),
    "a method": _with({"ask": 1}),
    "a large integer": _with({"_g": 10**400}),
    "many dimensions": _with({"_n_dim": 10**9}),
    "a large population": _with({"_popsize": 10**9}),
    "samples for ever": _with({"_n_max_resampling": 10**9}),
    "a short history": _with({"_funhist_values": np.zeros(1)}),
    "a margin in a margin": _with(
        {"_cma": cmaes.CMAwM(np.full(3, 0.5), 0.2, BOUNDS, STEPS["some"])},
        cmaes.CMAwM(np.full(3, 0.5), 0.2, BOUNDS, STEPS["some"]),
    ),
    "a tuple for ever": _hash_bomb(),
    "a memo of four billion": b"\x80\x04K\x01r\xff\xff\xff\xff.",
    "a huge array": pickle.dumps(_Plant(MULTIARRAY._reconstruct, np.ndarray, (10**12,), b"b")),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_cmaes_would_not_have_stored_is_refused(what: str) -> None:
    with pytest.raises(UntrustedState):
        load_optimizer(HOSTILE[what])


@pytest.mark.parametrize(
    "named", ["cmaes._cma CMA", "numpy dtype", "numpy ndarray", "numpy._core.numeric _frombuffer"]
)
def test_a_pickle_leaves_numpy_and_cmaes_as_they_are(named: str) -> None:
    """It may ask to set attributes on whatever it names."""
    loaded = pickletools.optimize(pickle.dumps((None, {"ask": 1, "__defaults__": (1,)})))
    texts = b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in named.split())
    defaults = NUMERIC._frombuffer.__defaults__
    with pytest.raises(UntrustedState):
        # Its protocol and frame are 11 bytes; then: build what is named of it, and stop.
        load_optimizer(b"\x80\x04" + texts + b"\x93" + loaded[11:-1] + b"b.")
    assert cmaes.CMA.ask.__name__ == "ask" and not hasattr(np.ndarray, "ask")
    assert NUMERIC._frombuffer.__defaults__ == defaults
