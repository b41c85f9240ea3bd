"""A training script that grew: forty constants, of which nine matter."""

import math


DATA_DIR = "data"
RUN_NAME = "baseline"
VOCAB_SIZE = 8192
MAX_SEQ_LEN = 256
NUM_WORKERS = 4
PIN_MEMORY = True
DTYPE = "bfloat16"
DEVICE = "cuda"
COMPILE = False
SEED = 1337
LOG_INTERVAL = 10
EVAL_INTERVAL = 100
EVAL_BATCHES = 20
SAVE_CHECKPOINTS = False
CHECKPOINT_DIR = "checkpoints"
WANDB_PROJECT = "demo"
USE_WANDB = False
TOTAL_STEPS = 40
BATCH_SIZE = 32
GRAD_ACCUMULATION = 4
LEARNING_RATE = 3e-4
MIN_LEARNING_RATE = 3e-5
WEIGHT_DECAY = 0.1
BETA1 = 0.9
BETA2 = 0.95
EPSILON = 1e-8
GRAD_CLIP = 1.0
WARMUP_STEPS = 4
SCHEDULE = "cosine"
N_LAYER = 6
N_HEAD = 6
N_EMBD = 384
DROPOUT = 0.1
BIAS = False
TIE_WEIGHTS = True
INIT_STD = 0.02
ROPE_BASE = 10000
NORM = "rmsnorm"
ACTIVATION = "gelu"
LABEL_SMOOTHING = 0.0

distance = (
    (math.log10(LEARNING_RATE) + 3) ** 2
    + (N_LAYER - 8) ** 2 / 50
    + (DROPOUT - 0.05) ** 2
    + (WEIGHT_DECAY - 0.05) ** 2
    + (BETA2 - 0.98) ** 2 * 10
    + (0.1 if SCHEDULE == "constant" else 0.0)
    + abs(math.log2(BATCH_SIZE / 64)) / 10
    + abs(math.log10(GRAD_CLIP)) / 10
    + LABEL_SMOOTHING
)
for step in range(1, TOTAL_STEPS + 1):
    loss = 2.0 + distance + 3.0 * math.exp(-step / 10)
    if step % LOG_INTERVAL == 0:
        print(f"step {step}/{TOTAL_STEPS} | loss {loss:.4f} | lr {LEARNING_RATE:.2e}")
print("---")
print(f"val_loss:   {2.0 + distance:.6f}")
print(f"parameters: {12 * N_LAYER * N_EMBD**2}")
print("-" * 40)
