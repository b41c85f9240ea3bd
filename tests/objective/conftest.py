"""Testbeds for the tests: small scripts that need no torch and take a tenth of a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.toy_testbed import write_testbed


# In the manner of karpathy/autoresearch: constants in the middle of the file, powers, trailing
# comments, a tuple, names from prepare, progress on one line, the summary after a rule.
AUTORESEARCH_TRAIN = '''\
"""
Autoresearch pretraining script. Usage: uv run train.py
"""
import math
import time

from prepare import MAX_SEQ_LEN, TIME_BUDGET, Tokenizer, make_dataloader, evaluate_bpb

# Model architecture
ASPECT_RATIO = 64       # model_dim = depth * ASPECT_RATIO
HEAD_DIM = 128          # target head dimension for attention
WINDOW_PATTERN = "SSSL" # sliding window pattern: L=full, S=half context

# Optimization
TOTAL_BATCH_SIZE = 2**19 # ~524K tokens per optimizer step
EMBEDDING_LR = 0.6      # learning rate for token embeddings (Adam)
UNEMBEDDING_LR = 0.004  # learning rate for lm_head (Adam)
MATRIX_LR = 0.04        # learning rate for matrix parameters (Muon)
SCALAR_LR = 0.5         # learning rate for per-layer scalars (Adam)
WEIGHT_DECAY = 0.2      # cautious weight decay for Muon
ADAM_BETAS = (0.8, 0.95) # Adam beta1, beta2
WARMUP_RATIO = 0.0      # fraction of time budget for LR warmup
WARMDOWN_RATIO = 0.5    # fraction of time budget for LR warmdown
FINAL_LR_FRAC = 0.0     # final LR as fraction of initial

# Model size
DEPTH = 8               # number of transformer layers
DEVICE_BATCH_SIZE = 128  # per-device batch size (reduce if OOM)

H100_BF16_PEAK_FLOPS = 989.5e12

t_start = time.time()
tokenizer = Tokenizer()
loader = make_dataloader(tokenizer, DEVICE_BATCH_SIZE, MAX_SEQ_LEN, "train")
assert TOTAL_BATCH_SIZE % (DEVICE_BATCH_SIZE * MAX_SEQ_LEN) == 0


def get_lr_multiplier(progress):
    B, T = DEVICE_BATCH_SIZE, MAX_SEQ_LEN
    return min(1.0, (1 - progress) / max(WARMDOWN_RATIO, 1e-9))


step, training_time = 0, 0.0
while training_time < TIME_BUDGET:
    next(loader)
    time.sleep(0.01)
    training_time = time.time() - t_start
    loss = 9.0 + math.log10(MATRIX_LR) ** 2
    if math.isnan(loss) or loss > 100:
        print("FAIL")
        exit(1)
    pct = 100 * min(training_time / TIME_BUDGET, 1.0)
    print(f"\\rstep {step:05d} ({pct:.1f}%) | loss: {loss:.6f} | lrm: {get_lr_multiplier(pct):.2f}",
          end="", flush=True)
    step += 1
print()

val_bpb = evaluate_bpb((MATRIX_LR, DEPTH), tokenizer, DEVICE_BATCH_SIZE)
print("---")
print(f"val_bpb:          {val_bpb:.6f}")
print(f"training_seconds: {training_time:.1f}")
print(f"total_seconds:    {time.time() - t_start:.1f}")
print(f"peak_vram_mb:     {1234.5:.1f}")
print(f"mfu_percent:      {39.8:.2f}")
print(f"total_tokens_M:   {step * TOTAL_BATCH_SIZE / 1e6:.1f}")
print(f"num_steps:        {step}")
print(f"num_params_M:     {50.3:.1f}")
print(f"depth:            {DEPTH}")
'''

AUTORESEARCH_PREPARE = """\
import math

MAX_SEQ_LEN = 2048       # context length
TIME_BUDGET = 300        # training time budget in seconds (5 minutes)
EVAL_TOKENS = 40 * 524288


class Tokenizer:
    pass


def make_dataloader(tokenizer, B, T, split):
    while True:
        yield B * T


def evaluate_bpb(model, tokenizer, batch_size):
    matrix_lr, depth = model
    return 1.0 + abs(math.log10(matrix_lr / 0.03)) / 7 + abs(depth - 10) / 100
"""


@pytest.fixture
def autoresearch(tmp_path: Path) -> Path:
    """A testbed in the manner of karpathy/autoresearch."""
    return write_testbed(tmp_path / "autoresearch", AUTORESEARCH_TRAIN, AUTORESEARCH_PREPARE)


@pytest.fixture
def testbed_folder(tmp_path: Path) -> Callable[..., Path]:
    """Make a testbed of a ``train.py``, and a ``prepare.py`` and other files if given."""

    def make(train: str, prepare: str | None = None, **files: str) -> Path:
        return write_testbed(tmp_path / "testbed", train, prepare, **files)

    return make
