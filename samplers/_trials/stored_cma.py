"""CMA-ES's optimizer as Optuna stores it, a pickle on a trial, read as data.

Whoever may write to a storage may put any pickle there, and Optuna's ``CmaEsSampler`` runs it.
Here, a pickle is read by an unpickler that knows the few names of NumPy and ``cmaes`` that a state
is made of, and its numbers are checked before an optimizer is made of them.
"""

from __future__ import annotations

import copy
from functools import cache
import io
import math
import pickle
import pickletools
from typing import Any
from typing import TYPE_CHECKING

import cmaes
import numpy as np
from optuna.logging import get_logger
from optuna.samplers import CmaEsSampler


if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.trial import FrozenTrial

_logger = get_logger(f"optuna.{__name__}")

_OPTIMIZERS: dict[tuple[str, str], Any] = {
    ("cmaes._cma", "CMA"): cmaes.CMA,
    ("cmaes._sepcma", "SepCMA"): cmaes.SepCMA,
    ("cmaes._cmawm", "CMAwM"): cmaes.CMAwM,
}
# NumPy 1 says numpy.core, NumPy 2 numpy._core.
_NUMPY = {
    ("multiarray", "scalar"),
    ("multiarray", "_reconstruct"),
    ("numeric", "_frombuffer"),
}
# A tuple that is made of one earlier tuple twice, and so on, takes for ever to hash; an entry of the
# memo of number four billion takes the memory. A genuine state needs neither.
_MAKE_TUPLES = {"EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
_REFUSED = {"PUT", "BINPUT", "LONG_BINPUT", "DUP", "GET", "INST", "OBJ", "EXT1", "EXT2", "EXT4"}
_MOST_BYTES = 2**24  # enough for 1,000 dimensions
_LARGEST_POPULATION = 100_000
_MOST_RESAMPLING = 100_000  # Optuna: 10 for each dimension
_LARGEST_INTEGER = 2**53


class UntrustedState(ValueError):
    """A stored optimizer that is not what ``cmaes`` would have stored."""


class CheckedCmaEsSampler(CmaEsSampler):
    """Optuna's CmaEsSampler, which takes an optimizer from a storage only as data.

    An optimizer that isn't sound is passed over with a warning, and the one before it is used.
    """

    # The one override of what Optuna keeps private: everything that it unpickles comes from here.
    # Should a release rename it, `_check_override` refuses the class rather than opening the door.
    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> Any:
        for trial in reversed(completed_trials):
            pickled = stored_pickle(trial, self._attr_key_optimizer)
            if pickled is None:
                continue
            try:
                return load_optimizer(pickled)
            except UntrustedState as error:
                _logger.warning(
                    f"The state of CMA-ES that is stored on trial {trial.number} was not read, since"
                    f" {error}. Somebody else may have written it."
                )
        return None


def _check_override() -> None:
    if not hasattr(CmaEsSampler, "_restore_optimizer"):
        raise ImportError("This version of Optuna reads CMA-ES's state in a way not known here.")


_check_override()


def stored_pickle(trial: FrozenTrial, key: str) -> bytes | None:
    """Return the bytes of the optimizer that a trial has in pieces under ``key``; None: it has none.

    What isn't hexadecimal text in pieces from 0 on comes out as bytes that are no pickle.
    """
    pieces = {name: piece for name, piece in trial.system_attrs.items() if name.startswith(key)}
    if not pieces:
        return None
    try:
        return bytes.fromhex("".join(pieces[f"{key}:{i}"] for i in range(len(pieces))))
    except (KeyError, TypeError, ValueError):
        return b""


def load_optimizer(pickled: bytes) -> Any:
    """Make a ``CMA``, ``SepCMA`` or ``CMAwM`` of a pickled one.

    Raises:
        UntrustedState: If the pickle names anything else, or its numbers are no state of these.
    """
    try:
        _check_operations(pickled)
        optimizer = _Unpickler(io.BytesIO(pickled)).load()
        if not isinstance(optimizer, _State):
            raise UntrustedState("it is no optimizer of cmaes")
        made = _made(optimizer)
        _try(made)
    except UntrustedState:
        raise
    except Exception as error:  # whatever foreign bytes may lead to, NumPy's errors included
        raise UntrustedState(f"it can't be read ({type(error).__name__})") from None
    return made


def _check_operations(pickled: bytes) -> None:
    if len(pickled) > _MOST_BYTES:
        raise UntrustedState(f"it has more than {_MOST_BYTES} bytes")
    tuples: set[int] = set()
    memorized = 0
    before = ""
    for operation, argument, _ in pickletools.genops(pickled):
        name = operation.name
        if name in _REFUSED:
            raise UntrustedState(f"it holds the operation {name}")
        if name == "MEMOIZE":
            if before in _MAKE_TUPLES:
                tuples.add(memorized)
            memorized += 1
        elif name in ("BINGET", "LONG_BINGET") and argument in tuples:
            raise UntrustedState("it holds a tuple twice")
        before = name


class _State:
    """Stands for an optimizer while it is read, so that nothing of ``cmaes`` is touched."""

    optimizer: Any
    values: dict[str, Any]

    def __setstate__(self, state: Any) -> None:
        self.values = state


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _OPTIMIZERS:
            # Made anew each time: a pickle may change what it gets hold of.
            return type(name, (_State,), {"optimizer": _OPTIMIZERS[module, name]})
        if (module, name) in (("numpy", "dtype"), ("numpy", "ndarray")):
            return getattr(np, name)
        package, _, last = module.rpartition(".")
        if package in ("numpy.core", "numpy._core") and (last, name) in _NUMPY:
            return _frombuffer() if name == "_frombuffer" else super().find_class(module, name)
        raise UntrustedState(f"it names {module[:80]}.{name[:80]}")


def _frombuffer() -> Callable[..., np.ndarray]:
    """NumPy's function of this name, which is written in Python, and so could be changed."""

    def make(buffer: bytes, dtype: np.dtype, shape: tuple[int, ...], order: Any) -> np.ndarray:
        return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order).copy()

    return make


def _made(state: _State) -> Any:
    """Make the optimizer, once its values are known to be numbers that belong together."""
    values, kind = state.values, state.optimizer
    if strange := values.keys() - _names(kind):
        raise UntrustedState(f"it has a value named {min(map(str, strange))[:80]!r}")
    for name, value in values.items():
        if name != "_cma" and not _is_number(name, value):
            raise UntrustedState(f"its {name} is not of numbers")
    if values["_n_max_resampling"] > _MOST_RESAMPLING:
        raise UntrustedState("it would draw a sample for ever")
    made = kind.__new__(kind)
    if kind is cmaes.CMAwM:
        inner = values["_cma"]
        if not isinstance(inner, _State) or inner.optimizer is not cmaes.CMA:
            raise UntrustedState("its CMAwM holds no CMA")
        made.__dict__.update(values, _cma=_made(inner))
    else:
        _check_sizes(values)
        made.__setstate__(dict(values))
    return made


@cache
def _names(kind: Any) -> frozenset[str]:
    """The names of the values that an optimizer of this kind stores."""
    start: dict[str, Any] = {"mean": np.full(2, 0.5), "sigma": 0.1}
    if kind is cmaes.CMAwM:
        start.update(bounds=np.array([[0.0, 1.0]] * 2), steps=np.array([0.5, 0.0]))
        return frozenset(vars(kind(**start)))
    return frozenset(kind(**start).__getstate__())


def _check_sizes(values: dict[str, Any]) -> None:
    n, size = values["_n_dim"], values["_popsize"]
    if not (isinstance(n, int) and n > 0 and values["_mean"].shape == (n,)):
        raise UntrustedState("its number of dimensions isn't that of its mean")
    if not (isinstance(size, int) and 0 < size <= _LARGEST_POPULATION):
        raise UntrustedState("its population is too large")
    # Read a place further on at each generation, which a trial of one generation doesn't show.
    if values["_funhist_values"].shape != (2 * values["_funhist_term"],):
        raise UntrustedState("its history is not as long as it says")


def _is_number(name: str, value: Any) -> bool:
    if value is None:
        return True
    if isinstance(value, int):
        return abs(value) <= _LARGEST_INTEGER
    if isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.kind not in "biuf" or value.nbytes > _MOST_BYTES:
            return False
        # The history is not filled from the start, and holds anything there.
        return name == "_funhist_values" or bool(np.all(np.isfinite(value)))
    return isinstance(value, float) and math.isfinite(value)


def _try(optimizer: Any) -> None:
    """Sample from a copy, and tell it one generation."""
    copied = copy.deepcopy(optimizer)
    with np.errstate(all="ignore"):
        asked = copied.ask()
        x = asked[1] if isinstance(copied, cmaes.CMAwM) else asked
        if x.shape != (copied.dim,) or not np.all(np.isfinite(x)):
            raise UntrustedState("it draws no finite samples")
        copied.tell([(x, float(i)) for i in range(copied.population_size)])
