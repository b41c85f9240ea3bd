"""A model as data: the tensor operations of one forward pass, with its weights.

The process that trains records what its model does with a batch of tokens, and another process,
which holds the text that the training never saw, does it again with batches of its own. What goes
between them is a list of ATen operations (JSON) and tensors (`torch.load` with `weights_only`), so
that no code of the training runs where it is evaluated. Its tensors are loaded afresh for each batch,
and :meth:`Program.alone` has a process for each, so that a model remembers nothing between two: not
by memory that isn't initialised, nor by random numbers, nor by what it was given.

    Program.record(model, tokens) -> Program -> to_bytes() -> from_bytes() -> program(tokens)

A recorded pass has one shape of batch. What Python decides in a forward pass (a loop over layers)
is decided once; a model whose operations depend on the values of its tokens is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
import io
import json
import os
import re
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary


# Texts that operations take. (A training could make a file of such a name.)
_WORDS = {
    *("none", "tanh", "floor", "trunc", "mean", "sum", "prod", "amax", "amin", "add", "multiply"),
    *("left", "right", "reflect", "constant", "linear", "bilinear", "bicubic", "nearest"),
}
_KINDS = (torch.dtype, torch.device, torch.layout, torch.memory_format)
_NAMES = {"dtype", "device", "layout", "memory_format"}
_MAX_STEPS = 100_000
# Operations on files, and on layouts whose indices may lead anywhere in memory: nobody checks them.
_REFUSED = re.compile("from_file|save|sparse|nested|_csr|_csc|_bsr|_bsc")
_LOGITS = "The model must return one tensor of logits, (B, T, vocab)."
# Few, so that a program runs many times: one that trains in its pass gains little (docs/safety.md).
MAX_ROWS = 16
Slot = int | None


class ProgramError(ValueError):
    """A model that can't be handed over, or data that is no program; the message says why."""


@dataclass(frozen=True)
class Step:
    """One operation.

    Attributes:
        name: Of the ATen operation with its overload, such as ``add.Tensor``.
        arguments: Positional and named ones, encoded for JSON; a tensor is ``{"slot": number}``.
        outputs: The slots of its results; None for a result that is no tensor.
    """

    name: str
    arguments: tuple[Any, Any]
    outputs: list[Slot]


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the operations on tensors that are called while it is active."""

    def __init__(self, tokens: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[Step] = []
        self.constants: dict[int, torch.Tensor] = {}
        self.slots = WeakTensorKeyDictionary()
        self.slots[tokens] = 0
        self._count = 1

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the first call imports torch's compiler: seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        encoded = (self._encode(list(args)), self._encode(kwargs))
        result = func(*args, **kwargs)
        results = result if isinstance(result, (list, tuple)) else [result]
        outputs = [self._slot(r) if isinstance(r, torch.Tensor) else None for r in results]
        if any(slot is not None for slot in outputs):
            if func.namespace != "aten":
                raise ProgramError(
                    f"The model must consist of PyTorch's own operations, but uses {func}."
                )
            self.steps.append(Step(func.__name__, encoded, outputs))
        return result

    def _slot(self, tensor: torch.Tensor) -> int:
        if tensor not in self.slots:
            self.slots[tensor] = self._count
            self._count += 1
        return int(self.slots[tensor])

    def _encode(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            known = value in self.slots
            slot = self._slot(value)
            if not known:  # made before: a weight, a buffer
                self.constants[slot] = value
            return {"slot": slot}
        if isinstance(value, (list, tuple)):
            return [self._encode(item) for item in value]
        if isinstance(value, dict):
            return {name: self._encode(item) for name, item in value.items()}
        if isinstance(value, _KINDS):
            return {type(value).__name__: str(value).removeprefix("torch.")}
        if isinstance(value, complex):
            return {"complex": [value.real, value.imag]}
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise ProgramError(f"The model must not give an operation a {type(value).__name__}.")


class Program:
    """The recorded forward pass of a model: tokens (B, T) -> logits (B, T, vocab).

    Attributes:
        shape: Of the tokens, (B, T); the only one that it takes.
        device: Where its tensors are.
    """

    def __init__(
        self, steps: list[Step], constants: bytes, output: int, shape: tuple[int, int], device: str
    ) -> None:
        self.shape = shape
        self.device = device
        self._steps = steps
        self._constants = constants
        self._output = output
        # Slots that nothing after a step needs, so that memory is given back as in the original.
        last = {slot: i for i, step in enumerate(steps) for slot in _slots(step) if slot != output}
        self._done: list[list[int]] = [[] for _ in steps]
        for slot, i in last.items():
            self._done[i].append(slot)

    @classmethod
    @torch.no_grad()
    def record(
        cls, model: Callable[[torch.Tensor], torch.Tensor], tokens: torch.Tensor
    ) -> Program:
        """Record what a model does with these tokens (B, T).

        Raises:
            ProgramError: It can't be handed over.
        """
        model = getattr(model, "_orig_mod", model)  # as it was before torch.compile
        other = tokens.roll(1, 0).flip(1)
        with _Recorder(tokens) as recorder:
            logits = model(tokens)
        if not isinstance(logits, torch.Tensor) or logits.shape[:2] != tokens.shape:
            raise ProgramError(_LOGITS)
        if logits not in recorder.slots or recorder.slots[logits] in recorder.constants:
            raise ProgramError("The model must compute its logits from the tokens.")
        data = io.BytesIO()
        torch.save({slot: t.detach() for slot, t in recorder.constants.items()}, data)
        program = cls(
            recorder.steps,
            data.getvalue(),
            recorder.slots[logits],
            (tokens.size(0), tokens.size(1)),
            str(tokens.device),
        )
        if not torch.allclose(program(other), model(other), rtol=1e-3, atol=1e-3, equal_nan=True):
            raise ProgramError(
                "What the model does must not depend on the values of its tokens, nor be random: "
                "its operations are recorded once, and done again with other tokens."
            )
        return program

    @torch.no_grad()
    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """Do it again, with tensors as they were recorded.

        Raises:
            ProgramError: It does what no model does.
        """
        constants = torch.load(io.BytesIO(self._constants), weights_only=True)
        # It may write to the tokens, which are the caller's.
        values = {0: tokens.clone(), **{slot: _tensor(t) for slot, t in constants.items()}}
        with torch.autocast(tokens.device.type, enabled=False):  # the casts are recorded
            for step, done in zip(self._steps, self._done):
                args, kwargs = _decode(step.arguments, values)
                result = _operation(step.name)(*args, **kwargs)
                results = result if isinstance(result, (list, tuple)) else [result]
                for slot, value in zip(step.outputs, results):
                    if slot is not None:
                        values[slot] = _tensor(value)
                for slot in done:
                    values.pop(slot, None)
        logits = values[self._output]
        plain = logits.layout is torch.strided and not logits.is_quantized and not logits.is_meta
        if not plain or logits.dim() != 3 or logits.shape[:2] != tokens.shape:
            raise ProgramError(_LOGITS)
        return logits

    def alone(self, tokens: torch.Tensor) -> torch.Tensor:
        """Do it again in a process that ends with it, and has no open files; the logits are float32.

        Of a process that has used neither threads for tensors nor a GPU before, and on Linux.

        Raises:
            ProgramError: With the name of what was raised there, but for MemoryError.
        """
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.closerange(3, write_end)
                os.closerange(write_end + 1, os.sysconf("SC_OPEN_MAX"))
                with os.fdopen(write_end, "wb") as pipe:
                    try:
                        pipe.write(self(tokens).float().contiguous().numpy().data)
                        status = 0
                    except Exception as error:  # of what was handed over
                        pipe.write(f"{type(error).__name__}: {error}".encode())
            finally:
                os._exit(status)
        os.close(write_end)
        with os.fdopen(read_end, "rb") as pipe:
            data = bytearray(pipe.read())
        if os.waitpid(child, 0)[1]:
            kind, _, message = data.decode(errors="replace").partition(": ")
            if kind == "MemoryError":
                raise MemoryError(message)
            raise ProgramError(f"{kind}: {message}" if kind else "The evaluation was killed.")
        return torch.frombuffer(data, dtype=torch.float32).view(*self.shape, -1)

    def to_bytes(self) -> bytes:
        """Write it as one line of JSON and the tensors."""
        steps = [[s.name, *s.arguments, s.outputs] for s in self._steps]
        head = {"steps": steps, "output": self._output, "shape": self.shape, "device": self.device}
        return json.dumps(head).encode() + b"\n" + self._constants

    @classmethod
    def from_bytes(cls, data: bytes) -> Program:
        """Read what :meth:`to_bytes` wrote; nothing of it is believed.

        Raises:
            ProgramError: It is no program.
        """
        head, _, constants = data.partition(b"\n")
        try:
            read = json.loads(head)
            steps = [Step(name, (args, kwargs), out) for name, args, kwargs, out in read["steps"]]
            rows, columns = map(int, read["shape"])
            if not 0 < rows <= MAX_ROWS or len(steps) > _MAX_STEPS:
                raise ProgramError(
                    f"A program must have at most {MAX_ROWS} rows and 100,000 steps."
                )
            for step in steps:
                _operation(step.name)
            return cls(steps, constants, int(read["output"]), (rows, columns), str(read["device"]))
        except ProgramError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ProgramError(f"What was handed over is no program: {error}.") from None


def _tensor(value: Any) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        raise ProgramError(
            f"An operation must give tensors, but one gave a {type(value).__name__}."
        )
    return value


def _operation(name: str) -> Any:
    """Return an ATen operation by its name and overload."""
    if _REFUSED.search(str(name)):
        raise ProgramError(f"The model must not use the operation {name}.")
    packet, _, overload = str(name).partition(".")
    try:
        return getattr(getattr(torch.ops.aten, packet), overload or "default")
    except (AttributeError, RuntimeError):
        raise ProgramError(f"There is no operation {name}.") from None


def _slots(step: Step) -> Iterator[int]:
    """Return the slots that an operation reads or writes."""

    def walk(value: Any) -> Iterator[int]:
        if isinstance(value, dict):
            if value.keys() == {"slot"}:
                yield value["slot"]
            else:
                for item in value.values():
                    yield from walk(item)
        elif isinstance(value, (list, tuple)):
            for item in value:
                yield from walk(item)

    yield from walk(step.arguments)
    yield from (slot for slot in step.outputs if slot is not None)


def _decode(value: Any, values: dict[int, torch.Tensor]) -> Any:
    if isinstance(value, (list, tuple)):
        return [_decode(item, values) for item in value]
    if isinstance(value, str) and value not in _WORDS:
        raise ProgramError(f"An operation must not be given the text {value[:50]!r}.")
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((key, item),) = value.items()
        if key == "slot":
            return values[item]
        if key == "complex":
            return complex(*item)
        if key in _NAMES and isinstance(item, str):
            if key == "device":
                return torch.device(item)
            kind = getattr(torch, item, None)
            if not isinstance(kind, _KINDS):
                raise ProgramError(f"There is no {key} {item[:50]!r}.")
            return kind
    return {str(name): _decode(item, values) for name, item in value.items()}
