"""
Train a (pretended) language model. To override, for example:
$ python train.py --n_layer=4 --learning_rate=1e-3
"""

import math
import time


# -----------------------------------------------------------------------------
# default config values
out_dir = "out"
eval_interval = 20
log_interval = 5
# model
n_layer = 6
dropout = 0.2  # for pretraining 0 is good, for finetuning try 0.1+
bias = False
# adamw optimizer
learning_rate = 6e-4  # max learning rate
max_iters = 60
max_seconds = 1.0
# -----------------------------------------------------------------------------
exec(open("configurator.py").read())  # overrides from the command line
# -----------------------------------------------------------------------------


def loss_after(iter_num, gap):
    speed = math.exp(-((math.log10(learning_rate) + 2.5) ** 2))
    return 1.5 + 2.7 * math.exp(-speed * iter_num / 15) + abs(n_layer - 4) / 20 + gap


start = time.time()
for iter_num in range(max_iters + 1):
    if iter_num % eval_interval == 0:
        train, val = loss_after(iter_num, 0.0), loss_after(iter_num, abs(dropout - 0.1))
        print(f"step {iter_num}: train loss {train:.4f}, val loss {val:.4f}")
    if iter_num % log_interval == 0:
        print(f"iter {iter_num}: loss {loss_after(iter_num, 0.0):.4f}, time 0.51ms, mfu -100.00%")
    if time.time() - start > max_seconds:
        break
