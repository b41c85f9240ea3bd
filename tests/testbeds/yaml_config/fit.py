"""Fit a line to noisy points by gradient descent, as config.yaml says."""

import json
from pathlib import Path
import random

import yaml


config = yaml.safe_load(Path(__file__).with_name("config.yaml").read_text(encoding="utf-8"))
optimizer = config["optimizer"]
lr = float(optimizer["lr"])  # YAML takes 1e-2 for a text
beta = optimizer["momentum"] if optimizer["name"] == "momentum" else 0.0
rng = random.Random(config["seed"])


def points(n):
    xs = [rng.uniform(-1, 1) for _ in range(n)]
    return [(x, 3 * x - 1 + rng.gauss(0, config["data"]["noise"])) for x in xs]


def loss(data, a, b):
    return sum((a * x + b - y) ** 2 for x, y in data) / len(data)


train, valid = points(config["data"]["points"]), points(200)
a = b = speed_a = speed_b = 0.0
for step in range(1, config["steps"] + 1):
    errors = [(a * x + b - y, x) for x, y in train]
    speed_a = beta * speed_a - lr * sum(2 * e * x for e, x in errors) / len(train)
    speed_b = beta * speed_b - lr * sum(2 * e for e, _ in errors) / len(train)
    a, b = a + speed_a, b + speed_b
    if step % 10 == 0:
        print(json.dumps({"step": step, "loss": loss(train, a, b)}))
print(json.dumps({"valid": {"loss": loss(valid, a, b)}, "slope": a, "intercept": b}))
