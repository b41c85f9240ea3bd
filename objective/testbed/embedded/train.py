"""Pretrain a small GPT on text for a fixed time. This file is what the methods tune and rewrite.

- rotary positions, RMSNorm without parameters, QK norm, squared ReLU, logit soft cap
- attention windows by layer: S sees half of the context, L all of it
- untied embedding and unembedding; a learned gain on every branch
- Muon for the matrices, AdamW for the rest, a learning rate for each kind of parameter
- the schedule runs over the share of TIME_BUDGET that has passed, not over steps

The architecture and the optimizers follow nanochat and karpathy/autoresearch, in a size that a
CPU core can train. Trained on CPU; the CUDA and MPS branches are kept simple and are untested here.
Data, tokenizer, evaluation and time budget come from prepare.py, which stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
import ctypes
import math
import os
import resource
import sys
import time
from typing import Any
from typing import cast

from prepare import evaluate_bpb
from prepare import load_tokenizer
from prepare import make_dataloader
from prepare import MAX_SEQ_LEN
from prepare import PrepareError
from prepare import TIME_BUDGET
import torch
import torch.nn as nn
import torch.nn.functional as F


# ------------------------------------------------------------------------------------------------
# Hyperparameters: edit these, there are no flags.

# Model
DEPTH = 3  # layers
ASPECT_RATIO = 32  # width = DEPTH * ASPECT_RATIO, rounded up to a multiple of HEAD_DIM
HEAD_DIM = 32  # width of an attention head; a power of two
WINDOW_PATTERN = "SSSL"  # attention window by layer, repeated: S half the context, L all of it

# Batches
DEVICE_BATCH_SIZE = 16  # sequences per forward pass: memory; a power of two
TOTAL_BATCH_SIZE = 2**12  # tokens per optimizer step; a power of two

# Optimizer
EMBEDDING_LR = 0.1  # token embedding (AdamW)
UNEMBEDDING_LR = 0.01  # output matrix (AdamW)
MATRIX_LR = 0.02  # attention and MLP matrices (Muon)
SCALAR_LR = 0.01  # gains of the branches (AdamW)
WEIGHT_DECAY = 0.1  # of the matrices, falling to 0 over training
ADAM_BETAS = (0.8, 0.95)  # decay of AdamW's two averages

# Schedule, as shares of the time budget
WARMUP_RATIO = 0.0  # learning rates rise from 0
WARMDOWN_RATIO = 0.5  # learning rates fall to FINAL_LR_FRAC of their value
FINAL_LR_FRAC = 0.0  # what is left of them at the end

SOFT_CAP = 15.0  # logits differ by 2 * SOFT_CAP at most
MUON_MOMENTUM = 0.9
MUON_STEPS = 3  # Newton-Schulz iterations: at this size more bring nothing measurable
MAX_LOSS = 20.0  # nats per token; chance is ln(vocab) = 6.9: beyond this, training has exploded


# ------------------------------------------------------------------------------------------------
# Model


def model_width(depth: int, aspect_ratio: int, head_dim: int) -> int:
    """Width of the model: depth * aspect_ratio, rounded up to whole heads."""
    return math.ceil(depth * aspect_ratio / head_dim) * head_dim


def layer_windows(pattern: str, depth: int, seq_len: int) -> list[int]:
    """Tokens that each layer may look back on; the last layer always sees the whole context."""
    assert pattern and set(pattern) <= set("SL"), (
        f"WINDOW_PATTERN must be of S and L, got {pattern!r}"
    )
    spans = {"S": seq_len // 2, "L": seq_len}
    windows = [spans[pattern[layer % len(pattern)]] for layer in range(depth)]
    return windows[:-1] + [seq_len]


class RMSNorm(torch.autograd.Function):
    """x / rms(x) over the last dimension. On CPU twice as fast as F.rms_norm, which is not fused."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = math.sqrt(x.size(-1)) / scale.add_(1e-6)
        y = x * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        y, scale = ctx.saved_tensors
        along = (grad * y).mean(-1, keepdim=True)  # what changes only the length of x is lost
        return torch.addcmul(grad, y, along, value=-1).mul_(scale)


def norm(x: torch.Tensor) -> torch.Tensor:
    if x.device.type != "cpu":
        return F.rms_norm(x, (x.size(-1),))
    return cast(torch.Tensor, RMSNorm.apply(x))  # type: ignore[no-untyped-call]


class SquaredReLU(torch.autograd.Function):
    """relu(x)^2 (So et al., 2021) with the fewest passes over the widest activations."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        positive = x.relu()
        ctx.save_for_backward(positive)
        return positive.square()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (positive,) = ctx.saved_tensors
        return positive.mul_(grad).mul_(2)


class SoftCap(torch.autograd.Function):
    """cap * tanh(z / cap) + cap, written over z and then over itself: logits are the largest tensor.

    Softmax ignores the constant, and with it the function is 2 * cap * sigmoid(2 * z / cap), of
    which `forward` gets the argument of the sigmoid, as rows; a few rows at a time stay in the cache.
    """

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor, cap: float) -> torch.Tensor:
        ctx.mark_dirty(z)
        for rows in torch.split(z, 128):
            rows.sigmoid_().mul_(2 * cap)
        ctx.save_for_backward(z)
        ctx.cap = cap
        return z

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (y,) = ctx.saved_tensors
        for rows, grads in zip(torch.split(y, 128), torch.split(grad, 128)):
            rows.addcmul_(rows, rows, value=-0.5 / ctx.cap).mul_(grads)  # y * (1 - y / (2 * cap))
        return y, None


def rotate(x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding (Su et al., 2021) of x (B, T, ..., head_dim), as complex numbers."""
    pairs = torch.view_as_complex(x.float().view(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns).flatten(-2).type_as(x)


class Block(nn.Module):
    """One layer: windowed attention, then an MLP, each a branch with a gain of its own."""

    mask: torch.Tensor | None

    def __init__(self, width: int, head_dim: int, window: int, seq_len: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.qkv = nn.Parameter(torch.empty(3, width, width))
        self.out = nn.Parameter(torch.zeros(width, width))
        self.up = nn.Parameter(torch.empty(4 * width, width))
        self.down = nn.Parameter(torch.zeros(4 * width, width))  # used transposed: Muon's stack
        self.gains = nn.Parameter(torch.ones(2))  # of attention and MLP
        bound = math.sqrt(3 / width)  # uniform with standard deviation 1 / sqrt(width)
        nn.init.uniform_(self.qkv, -bound, bound)
        nn.init.uniform_(self.up, -bound, bound)
        mask = torch.ones(seq_len, seq_len, dtype=torch.bool).tril().triu(1 - window)
        self.register_buffer("mask", None if window >= seq_len else mask, persistent=False)

    def forward(self, x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
        B, T, D = x.shape
        gain_attention, gain_mlp = self.gains.unbind()
        qkv = F.linear(norm(x), self.qkv.flatten(0, 1)).view(B, T, 3, -1, self.head_dim)
        qk, v = torch.split(qkv, [2, 1], dim=2)
        q, k = rotate(norm(qk), turns).permute(2, 0, 3, 1, 4)  # each (B, heads, T, head_dim)
        v = v.squeeze(2).transpose(1, 2)
        mask = None if self.mask is None else self.mask[:T, :T]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        # Gains multiply the matrices: that is D * D numbers instead of B * T * D activations.
        x = x + F.linear(y.transpose(1, 2).reshape(B, T, D), self.out * gain_attention)
        h = SquaredReLU.apply(F.linear(norm(x), self.up))  # type: ignore[no-untyped-call]
        return x + h @ (self.down * gain_mlp)


class GPT(nn.Module):
    """Tokens (B, T) -> logits (B, T, vocab)."""

    turns: torch.Tensor  # (T, 1, 1, head_dim / 2) complex: what a position turns pairs by

    def __init__(self, vocab_size: int, seq_len: int) -> None:
        super().__init__()
        width = model_width(DEPTH, ASPECT_RATIO, HEAD_DIM)
        windows = layer_windows(WINDOW_PATTERN, DEPTH, seq_len)
        self.embed = nn.Parameter(torch.randn(vocab_size, width))
        layers = nn.ModuleList(Block(width, HEAD_DIM, w, seq_len) for w in windows)
        self.blocks = cast(list[Block], layers)
        self.unembed = nn.Parameter(0.001 * torch.randn(vocab_size, width))
        frequency = 1000.0 ** -torch.linspace(0, 1, HEAD_DIM // 2)  # radians per token
        angle = torch.outer(torch.arange(seq_len), frequency)[:, None, None]
        turns = torch.polar(torch.ones_like(angle), angle)
        self.register_buffer("turns", turns, persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        turns = self.turns[: tokens.size(1)]
        x = norm(F.embedding(tokens, self.embed))
        for block in self.blocks:
            x = block(x, turns)
        # A factor is cheaper on the matrix than on the logits.
        z = F.linear(norm(x).flatten(0, 1), self.unembed * (2 / SOFT_CAP))
        logits = SoftCap.apply(z, SOFT_CAP)  # type: ignore[no-untyped-call]
        return cast(torch.Tensor, logits.view(*tokens.shape, -1))


# ------------------------------------------------------------------------------------------------
# Optimizer


def orthogonalize(G: torch.Tensor, steps: int) -> torch.Tensor:
    """Nearest semi-orthogonal matrices, roughly, of a stack G: (n, rows, columns).

    The quintic Newton-Schulz iteration of Muon (Jordan et al., 2024): singular values end up in
    about [0.7, 1.2], which trains as well as exact ones.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    X = G.mT if G.size(-2) > G.size(-1) else G
    X = X / (X.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        A = X @ X.mT
        X = torch.baddbmm(X, torch.baddbmm(A, A, A, beta=b, alpha=c), X, beta=a)
    return X.mT if G.size(-2) > G.size(-1) else X


def take_grad(p: torch.Tensor) -> torch.Tensor:
    """The gradient of p, which forgets it: the next backward pass starts a new one."""
    grad, p.grad = p.grad, None
    assert grad is not None
    return grad


class MuonAdamW:
    """Muon for the matrices of the blocks, AdamW for embedding, unembedding and scalars.

    Written out because torch.optim imports torch's compiler on the first step (seconds), and
    because Muon is cheap at this size only if equal shapes are one batched multiplication.
    """

    def __init__(self, model: GPT) -> None:
        scale = (model.embed.size(1) / 128) ** -0.5  # AdamW's rates are given for width 128
        blocks = model.blocks
        self.adam: list[tuple[list[torch.Tensor], float]] = [
            ([model.embed], EMBEDDING_LR * scale),
            ([model.unembed], UNEMBEDDING_LR * scale),
            ([block.gains for block in blocks], SCALAR_LR),
        ]
        self.muon: list[list[nn.Parameter]] = [[b.qkv for b in blocks], [b.out for b in blocks]]
        self.muon += [[p for b in blocks for p in (b.up, b.down)]]
        self.averages = {
            p: torch.zeros(2, *p.shape, device=p.device) for g, _ in self.adam for p in g
        }
        self.momenta = [torch.zeros_like(torch.stack(list(group))) for group in self.muon]
        self.step_count = 0

    @torch.no_grad()
    def step(self, lr_scale: float, progress: float) -> None:
        """Update all parameters and forget their gradients."""
        self.step_count += 1
        beta1, beta2 = ADAM_BETAS
        for parameters, lr in self.adam:
            for p in parameters:
                mean, square = self.averages[p]
                grad = take_grad(p)
                mean.lerp_(grad, 1 - beta1)
                square.lerp_(grad.square(), 1 - beta2)
                root = (square / (1 - beta2**self.step_count)).sqrt_().add_(1e-10)
                p.addcdiv_(mean, root, value=-lr * lr_scale / (1 - beta1**self.step_count))
        lr = MATRIX_LR * lr_scale
        decay = 1 - lr * WEIGHT_DECAY * (1 - progress)
        for matrices, momentum in zip(self.muon, self.momenta):
            grads = torch.stack([take_grad(p) for p in matrices])
            momentum.lerp_(grads, 1 - MUON_MOMENTUM)
            grads.lerp_(momentum, MUON_MOMENTUM)  # Nesterov
            rows, columns = grads.shape[-2:]
            updates = orthogonalize(grads.view(-1, rows, columns), MUON_STEPS).view_as(grads)
            for p, update in zip(matrices, updates):
                p.mul_(decay).add_(update, alpha=-lr * max(1, rows / columns) ** 0.5)


def lr_multiplier(progress: float) -> float:
    """Factor of all learning rates when `progress` (0 to 1) of the time budget has passed."""
    if progress < WARMUP_RATIO:
        return progress / WARMUP_RATIO
    if progress < 1 - WARMDOWN_RATIO:
        return 1.0
    left = (1 - progress) / WARMDOWN_RATIO
    return left + (1 - left) * FINAL_LR_FRAC


# ------------------------------------------------------------------------------------------------
# Machine


def pick_device() -> torch.device:
    """AUTORESEARCH_DEVICE (auto, cuda, mps, cpu); auto takes the first of these that is there."""
    name = os.environ.get("AUTORESEARCH_DEVICE", "auto")
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def keep_freed_memory() -> None:
    """Let glibc reuse big blocks instead of returning them: a CPU step then has no page faults."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return  # another C library; only slower
    mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD: bytes from which a block is a mapping of its own
    mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD: free bytes at the top of the heap that are kept


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory on the device; on CPU, of the whole process (resident)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def fail(reason: str) -> None:
    print(f"FAIL: {reason}", flush=True)
    raise SystemExit(1)


# ------------------------------------------------------------------------------------------------
# Training


def train(
    model: GPT, batches: Iterator[tuple[torch.Tensor, torch.Tensor]], autocast: torch.autocast
) -> tuple[int, int, float]:
    """Train for TIME_BUDGET seconds; return (steps, tokens, seconds).

    The clock is read after every pass, so that no batch size overruns by more than one: a step that
    the end of the budget interrupts is dropped or, if it is the first, taken with the passes so far.
    On one core it counts processor time, so that a trial makes the same steps beside other load.
    """
    on_one_core = autocast.device == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if on_one_core else time.perf_counter
    optimizer = MuonAdamW(model)
    accumulation = TOTAL_BATCH_SIZE // (DEVICE_BATCH_SIZE * MAX_SEQ_LEN)
    start = clock()
    elapsed, printed, steps, tokens = 0.0, -1.0, 0, 0
    while elapsed < TIME_BUDGET:
        progress = elapsed / TIME_BUDGET
        losses: list[float] = []
        while len(losses) < accumulation and (elapsed < TIME_BUDGET or not losses):
            x, y = next(batches)
            with autocast:
                logits = model(x)
            loss = F.cross_entropy(logits.float().flatten(0, 1), y.flatten())
            (loss / accumulation).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.item())  # waits for the device, so that the clock is right
            elapsed = clock() - start
        if elapsed >= TIME_BUDGET and steps > 0:
            break
        mean_loss = sum(losses) / len(losses)
        if not mean_loss <= MAX_LOSS:
            fail(f"loss is nan or has exploded: {mean_loss:.4g} at step {steps}")
        optimizer.step(lr_multiplier(progress), progress)
        elapsed = clock() - start
        steps += 1
        tokens += len(losses) * DEVICE_BATCH_SIZE * MAX_SEQ_LEN
        share = min(elapsed / TIME_BUDGET, 1.0)
        if share - printed >= 0.01:
            printed = share
            facts = f"loss: {mean_loss:.6f} | tok/s: {tokens / elapsed:,.0f}"
            print(f"step {steps:05d} ({share:.1%}) | {facts}", flush=True)
    return steps, tokens, elapsed


def main() -> None:
    began = time.perf_counter()
    device = pick_device()
    if device.type == "cpu":
        keep_freed_memory()
        # One core unless told otherwise: trials may run side by side, and the sums are the same.
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    seed = int(os.environ.get("AUTORESEARCH_SEED", "42"))
    torch.manual_seed(seed)
    tokens_per_pass = DEVICE_BATCH_SIZE * MAX_SEQ_LEN
    assert TOTAL_BATCH_SIZE % tokens_per_pass == 0, (
        f"TOTAL_BATCH_SIZE must be a multiple of DEVICE_BATCH_SIZE * {MAX_SEQ_LEN}, "
        f"got {TOTAL_BATCH_SIZE} and {DEVICE_BATCH_SIZE}"
    )
    try:
        tokenizer = load_tokenizer()
    except PrepareError as error:
        fail(str(error))
    model = GPT(tokenizer.vocab_size, MAX_SEQ_LEN).to(device)
    parameters = sum(p.numel() for p in model.parameters())
    batches = make_dataloader(DEVICE_BATCH_SIZE, MAX_SEQ_LEN, seed, device)
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")
    print(f"{parameters / 1e6:.2f} M parameters, ready after {time.perf_counter() - began:.2f} s")

    steps, tokens, training_seconds = train(model, batches, autocast)
    with autocast:
        val_bpb = evaluate_bpb(model, tokenizer, 16, device)
    if not math.isfinite(val_bpb):
        fail(f"val_bpb is {val_bpb} (nan) after {steps} steps")
    print("---")
    print(f"val_bpb:          {val_bpb:.6f}")
    print(f"training_seconds: {training_seconds:.2f}")
    print(f"total_seconds:    {time.perf_counter() - began:.2f}")
    print(f"peak_vram_mb:     {peak_memory_mb(device):.1f}")
    print(f"total_tokens_M:   {tokens / 1e6:.4f}")
    print(f"num_steps:        {steps}")
    print(f"num_params_M:     {parameters / 1e6:.3f}")
    print(f"depth:            {DEPTH}")


if __name__ == "__main__":
    main()
