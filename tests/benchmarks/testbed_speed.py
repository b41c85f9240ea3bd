"""Speed of the embedded testbed against plain PyTorch GPTs of the same shape, in one run.

    python -m tests.benchmarks.testbed_speed [--rounds 5] [--seconds 4]

Two plain models, both with LayerNorm, GELU, learned positions, full causal attention and
torch.optim.AdamW on all parameters: `modules` is put together from torch's own layers
(nn.TransformerEncoderLayer, so nn.MultiheadAttention), `sdpa` calls scaled_dot_product_attention
itself, with one matrix for queries, keys and values. All read the same data with the same batches on
one thread. Rounds alternate, each in a fresh process, so that none inherits another's allocator;
time is CPU time of that process, so that other work on the machine matters less.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import importlib
from pathlib import Path
import statistics
import subprocess
import sys
import time
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F


TESTBED = Path(__file__).parents[2] / "objective" / "testbed" / "embedded"


class PlainBlock(nn.Module):
    def __init__(self, width: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, T, D = x.shape
        q, k, v = (
            part.view(B, T, -1, self.head_dim).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).chunk(3, dim=-1)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(B, T, D))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class PlainGPT(nn.Module):
    def __init__(self, vocab: int, seq_len: int, depth: int, width: int, head_dim: int) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(vocab, width), nn.Embedding(seq_len, width)
        self.blocks = nn.Sequential(*(PlainBlock(width, head_dim) for _ in range(depth)))
        self.norm, self.unembed = nn.LayerNorm(width), nn.Linear(width, vocab, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens) + self.position.weight[: tokens.size(1)]
        logits: torch.Tensor = self.unembed(self.norm(self.blocks(x)))
        return logits


class ModulesGPT(nn.Module):
    def __init__(self, vocab: int, seq_len: int, depth: int, width: int, head_dim: int) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(vocab, width), nn.Embedding(seq_len, width)
        layer = nn.TransformerEncoderLayer(
            *(width, width // head_dim, 4 * width),
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.blocks = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.mask = nn.Transformer.generate_square_subsequent_mask(seq_len)
        self.norm, self.unembed = nn.LayerNorm(width), nn.Linear(width, vocab, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens) + self.position.weight[: tokens.size(1)]
        x = self.blocks(x, mask=self.mask, is_causal=True)
        logits: torch.Tensor = self.unembed(self.norm(x))
        return logits


PLAIN = {"modules": ModulesGPT, "sdpa": PlainGPT}


def tokens_per_second(which: str, seconds: float) -> float:
    """Train the `which` model on one thread for `seconds` of CPU; tokens per CPU second."""
    sys.path.insert(0, str(TESTBED))
    prepare: Any = importlib.import_module("prepare")
    train: Any = importlib.import_module("train")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    vocab, seq_len = prepare.load_tokenizer().vocab_size, prepare.MAX_SEQ_LEN
    batches = prepare.make_dataloader(train.DEVICE_BATCH_SIZE, seq_len, 0)
    accumulation = train.TOTAL_BATCH_SIZE // (train.DEVICE_BATCH_SIZE * seq_len)
    update: Callable[[], None]
    model: nn.Module
    if which == "testbed":
        train.keep_freed_memory()
        model = train.GPT(vocab, seq_len)
        muon = train.MuonAdamW(model)
        update = lambda: muon.step(1.0, 0.5)  # noqa: E731
    else:
        width = train.model_width(train.DEPTH, train.ASPECT_RATIO, train.HEAD_DIM)
        model = PLAIN[which](vocab, seq_len, train.DEPTH, width, train.HEAD_DIM)
        adam = torch.optim.AdamW(model.parameters(), lr=1e-3)

        def update() -> None:
            adam.step()
            adam.zero_grad()

    def step() -> None:
        for _ in range(accumulation):
            x, y = next(batches)
            loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten()) / accumulation
            loss.backward()  # type: ignore[no-untyped-call]
            loss.item()
        update()

    for _ in range(3):  # the first steps allocate and, for AdamW, import
        step()
    start, steps = time.process_time(), 0
    while time.process_time() - start < seconds:
        step()
        steps += 1
    return steps * train.TOTAL_BATCH_SIZE / (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--only", choices=["testbed", *PLAIN], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(tokens_per_second(args.only, args.seconds))
        return
    speeds: dict[str, list[float]] = {"testbed": [], **{name: [] for name in PLAIN}}
    for _ in range(args.rounds):
        for which, seen in speeds.items():
            command = [sys.executable, __file__, "--only", which, "--seconds", str(args.seconds)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            seen.append(float(out))
    for which, seen in speeds.items():
        low, middle, high = min(seen), statistics.median(seen), max(seen)
        print(f"{which:8} {middle:8,.0f} tokens/s (median; {low:,.0f} to {high:,.0f})")
    for name in PLAIN:
        ratio = statistics.median(a / b for a, b in zip(speeds["testbed"], speeds[name]))
        print(f"ratio    {ratio:8.2f} testbed / {name} (median of {args.rounds} pairs)")


if __name__ == "__main__":
    main()
