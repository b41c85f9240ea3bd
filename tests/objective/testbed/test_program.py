"""A recorded forward pass does what the model does, and nothing that a training could make it do."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import io
import json
import os
from pathlib import Path
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F


EMBEDDED = Path(__file__).parents[3] / "objective" / "testbed" / "embedded"
VOCAB = 11


@pytest.fixture(scope="module")
def program() -> Iterator[Any]:
    """program.py as a module, under the name that prepare.py imports it by."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EMBEDDED)
        patch.delitem(sys.modules, "program", raising=False)
        import program

        yield program
        del sys.modules["program"]


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.arange(24).view(4, 6) % VOCAB


class Gru(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(VOCAB, 8)
        self.layers = torch.nn.GRU(8, 8, num_layers=2, batch_first=True)
        self.out = torch.nn.Linear(8, VOCAB)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.layers(self.embed(tokens))
        logits: torch.Tensor = self.out(hidden)
        return logits


class Attention(torch.nn.Module):
    mask: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Parameter(torch.randn(VOCAB, 8))
        self.norm = torch.nn.LayerNorm(8)
        self.register_buffer("mask", torch.ones(6, 6).tril().bool())

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.embed[tokens])
        x = F.scaled_dot_product_attention(x, x, x, is_causal=True) + F.gelu(x, approximate="tanh")
        scores = (x @ x.mT).masked_fill(~self.mask, -torch.inf).softmax(-1)
        logits = (scores @ x) @ self.embed.t()
        logits.mul_(2).clamp_(-15, 15)
        first, rest = torch.split(logits, [5, VOCAB - 5], dim=-1)
        first.add_(1)  # in a view: seen in the whole
        return logits.to(torch.bfloat16).float()


@pytest.mark.parametrize("make", [Gru, Attention])
def test_it_does_with_other_tokens_what_the_model_does(
    program: Any, tokens: torch.Tensor, make: Callable[[], torch.nn.Module]
) -> None:
    torch.manual_seed(0)
    model = make()
    recorded = program.Program.from_bytes(program.Program.record(model, tokens).to_bytes())
    other = (tokens * 3 + 1) % VOCAB
    with torch.no_grad():
        expected = model(other)
    assert torch.equal(recorded(other), expected)
    assert torch.equal(recorded(other), expected)


def test_it_remembers_nothing(program: Any, tokens: torch.Tensor) -> None:
    """A weight that is written to in one batch is as it was in the next."""
    memory = torch.zeros(VOCAB)

    def model(x: torch.Tensor) -> torch.Tensor:
        memory.index_fill_(0, x[0, :1], 9.0)
        return memory.expand(*x.shape, VOCAB).clone()

    recorded = program.Program.record(model, tokens)
    seen = [recorded(torch.full((4, 6), i))[0, 0].nonzero().flatten().tolist() for i in (3, 4)]
    assert seen == [[0, 3], [0, 4]]  # 0 is from the tokens that it was recorded with


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda x: torch.randn(*x.shape, VOCAB), "must compute its logits from|nor be random"),
        (lambda x: F.one_hot(x, VOCAB) * float(x[0, 0] == 0), "must not depend on the values"),
        (lambda x: [x], "must return one tensor"),
        (lambda x: torch.zeros(3), "must return one tensor"),
    ],
)
def test_a_model_that_cannot_be_recorded_is_told_why(
    program: Any, tokens: torch.Tensor, model: Any, message: str
) -> None:
    with pytest.raises(program.ProgramError, match=message):
        program.Program.record(model, tokens)


def written(
    program: Any, *steps: list[Any], output: int = 1, constants: dict[int, Any] | None = None
) -> Any:
    """A program as a script could write it by itself."""
    data = io.BytesIO()
    torch.save(constants or {}, data)
    head = {"steps": steps, "output": output, "shape": [4, 6], "device": "cpu"}
    return program.Program.from_bytes(json.dumps(head).encode() + b"\n" + data.getvalue())


READ = ["from_file", ["mean", False, 24], {}, [1]]


@pytest.mark.parametrize(
    ("steps", "constants"),
    [
        ([["from_file", ["/etc/passwd", False, 24], {}, [1]]], {}),
        ([READ], {}),  # one of the words that operations may be given
        ([["chr", [109], {}, [2]], ["from_file", [{"slot": 2}, False, 24], {}, [1]]], {}),
        ([["from_file", [{"slot": 2}, False, 24], {}, [1]]], {2: "mean"}),
        ([["save", [{"slot": 0}, "mean"], {}, [1]]], {}),
        ([["add.str", ["mean", "mean"], {}, [1]]], {}),
        ([["_sparse_coo_tensor_unsafe", [{"slot": 0}, {"slot": 0}, [4, 6]], {}, [1]]], {}),
        ([["_nested_view_from_buffer", [{"slot": 0}] * 4, {}, [1]]], {}),
        ([], {1: "mean"}),
        ([], {1: {"slot": 0}}),
    ],
)
def test_it_reads_no_file_and_nothing_but_tensors(
    program: Any,
    tokens: torch.Tensor,
    steps: Any,
    constants: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "mean").write_bytes(bytes(100))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(program.ProgramError):
        written(program, *steps, constants=constants)(tokens)
    assert os.listdir() == ["mean"]


@pytest.mark.parametrize(
    "step",
    [
        ["zero_", [{"slot": 0}], {}, [1]],
        ["manual_seed", [7], {}, [None]],
        ["rand_like", [{"slot": 2}], {}, [1]],
        ["set_grad_enabled", [True], {}, [None]],
    ],
)
def test_one_that_runs_alone_leaves_nothing_behind(
    program: Any, tokens: torch.Tensor, step: Any
) -> None:
    given, state = tokens.clone(), torch.get_rng_state()
    made = written(program, step, output=2, constants={2: torch.zeros(4, 6, VOCAB)})
    with torch.no_grad():
        assert torch.equal(made.alone(tokens), torch.zeros(4, 6, VOCAB))
        assert not torch.is_grad_enabled()
    assert torch.equal(tokens, given) and torch.equal(torch.get_rng_state(), state)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logits: logits.to("meta"), "must return one tensor of logits"),
        (lambda logits: logits.to_sparse(), "must return one tensor of logits"),
        (lambda logits: torch.quantize_per_tensor(logits, 1.0, 0, torch.qint8), "one tensor"),
        (lambda logits: logits[0], "must return one tensor of logits"),
        (lambda logits: logits[:, :, 0], "must return one tensor of logits"),
        (lambda logits: logits[:, :, :1].expand(-1, -1, 2**50), "RuntimeError"),
    ],
)
def test_strange_tensors_are_no_logits(
    program: Any, tokens: torch.Tensor, change: Any, message: str
) -> None:
    made = written(program, constants={1: change(torch.zeros(4, 6, VOCAB))})
    with pytest.raises(program.ProgramError, match=message):
        made.alone(tokens)


def test_one_that_kills_its_process_is_told_so(program: Any, tokens: torch.Tensor) -> None:
    made = written(program)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(made), "__call__", lambda *_: os.kill(os.getpid(), 9))
        with pytest.raises(program.ProgramError, match="The evaluation was killed"):
            made.alone(tokens)


@pytest.mark.parametrize(
    "step",
    [
        ["no_such_operation", [], {}, [1]],
        ["add.NoOverload", [], {}, [1]],
        ["__class__", [], {}, [1]],
        ["../add", [], {}, [1]],
    ],
)
def test_an_operation_that_is_not_pytorchs_is_refused(program: Any, step: list[Any]) -> None:
    with pytest.raises(program.ProgramError):
        written(program, step)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"[" * 100_000,
        b'{"steps": 1}',
        b'{"steps": [[1, 2]], "output": 0, "shape": [1, 1], "device": "cpu"}',
        b'{"steps": [], "output": 0, "shape": [1e9, 1], "device": "cpu"}',
        b'{"steps": [], "output": 0, "shape": [17, 1], "device": "cpu"}',
        b'{"steps": [], "output": null, "shape": [1, 1], "device": "cpu"}',
    ],
)
def test_data_that_is_no_program_is_refused(program: Any, data: bytes) -> None:
    with pytest.raises(program.ProgramError):
        program.Program.from_bytes(data)


def test_a_pickle_among_its_tensors_is_not_run(
    program: Any, tokens: torch.Tensor, tmp_path: Path
) -> None:
    class Planted:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    data = io.BytesIO()
    torch.save({1: Planted()}, data)
    head = {"steps": [], "output": 1, "shape": [4, 6], "device": "cpu"}
    planted = program.Program.from_bytes(json.dumps(head).encode() + b"\n" + data.getvalue())
    with pytest.raises(Exception, match="weights_only|Weights only"):
        planted(tokens)
    assert not (tmp_path / "ran").exists()
