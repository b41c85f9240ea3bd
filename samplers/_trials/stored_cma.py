"""CMA-ES's optimizer as Optuna stores it, a pickle on a trial, read as data.

Whoever may write to a storage may put any pickle there, and Optuna's ``CmaEsSampler`` runs it.
Here, a pickle is read by an unpickler that knows the few names of NumPy and ``cmaes`` that a state
is made of, and its numbers are checked before an optimizer is made of them.
"""

from __future__ import annotations

import io
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
_NONE_AT_FIRST = ("_B", "_D", "_bounds")
_LARGEST = 1e100  # of any value, whose products are to be finite


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
    numbers = {name: value for name, value in values.items() if name != "_cma"}
    for name, value in numbers.items():
        if not _is_number(name, value):
            raise UntrustedState(f"its {str(name)[:80]} is not of numbers")
    if not 0 < numbers["_n_max_resampling"] <= _MOST_RESAMPLING:
        raise UntrustedState("it would draw a sample for ever")
    made = kind.__new__(kind)
    if kind is cmaes.CMAwM:
        inner = values["_cma"]
        if not isinstance(inner, _State) or inner.optimizer is not cmaes.CMA:
            raise UntrustedState("its CMAwM holds no CMA")
        cma = _made(inner)
        _check_shapes(numbers, _shapes_with_margin(numbers, cma.dim))
        made.__dict__.update(numbers, _cma=cma)
    else:
        _check_shapes(numbers, _shapes(kind, numbers))
        made.__setstate__(dict(numbers))
    return made


def _is_number(name: str, value: Any) -> bool:
    if value is None:
        return name in _NONE_AT_FIRST
    if isinstance(value, int):
        return abs(value) <= _LARGEST_INTEGER
    if isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.kind not in "biuf" or value.nbytes > _MOST_BYTES:
            return False
        # The history is not filled from the start, and holds anything there.
        return name == "_funhist_values" or bool(np.all(np.abs(value) <= _LARGEST))
    return isinstance(value, float) and abs(value) <= _LARGEST


def _check_shapes(values: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
    for name, value in values.items():
        if name not in shapes:
            raise UntrustedState(f"it has a value named {str(name)[:80]!r}")
        if value is not None and np.shape(value) != shapes[name]:
            raise UntrustedState(f"its {name} has the shape {np.shape(value)}")
    if missing := shapes.keys() - values.keys():
        raise UntrustedState(f"it lacks {min(missing)}")


def _shapes(kind: Any, values: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of the values of a ``CMA`` or ``SepCMA``, by what it says of itself."""
    n, size = values["_n_dim"], values["_popsize"]
    if not (isinstance(n, int) and n > 0 and np.shape(values["_mean"]) == (n,)):
        raise UntrustedState("its number of dimensions isn't that of its mean")
    if not (isinstance(size, int) and 1 < size <= _LARGEST_POPULATION):
        raise UntrustedState("its population is too small or too large")
    fresh = kind(mean=np.zeros(n), sigma=1.0, population_size=size).__getstate__()
    shapes = {name: np.shape(value) for name, value in fresh.items()}
    if values.get("_mu") != fresh["_mu"] or values.get("_funhist_term") != fresh["_funhist_term"]:
        raise UntrustedState("its lengths are not those of its population")
    learned = {"_bounds": (n, 2), "_D": (n,), "_B": (n, n)}  # which a fresh one has not yet
    return {name: learned.get(name, shape) for name, shape in shapes.items()}


def _shapes_with_margin(values: dict[str, Any], n: int) -> dict[str, tuple[int, ...]]:
    """The shapes of what a ``CMAwM`` adds to its ``CMA`` of n dimensions."""
    discrete, continuous = values["_discrete_idx"], values["_continuous_idx"]
    if sorted([*discrete, *continuous]) != list(range(n)):
        raise UntrustedState("its coordinates are not each discrete or continuous")
    n_z = len(discrete)
    if values["_n_zdim"] != n_z:
        raise UntrustedState("its discrete coordinates are not as many as it says")
    shapes: dict[str, tuple[int, ...]] = {
        **dict.fromkeys(("_n_max_resampling", "_n_zdim"), ()),
        "_continuous_idx": (n - n_z,),
        "_continuous_space": (n - n_z, 2),
        **dict.fromkeys(("_discrete_idx", "_discrete_space_low", "_discrete_space_size"), (n_z,)),
        "_discrete_space_step": (n_z,),
    }
    if n_z:
        shapes |= {"margin": (), "_A": (n,), "m_z_lim_low": (n_z,), "m_z_lim_up": (n_z,)}
    return shapes
