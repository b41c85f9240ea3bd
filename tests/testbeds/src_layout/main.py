"""Fit prices by ridge regression and write metrics.json."""

import argparse
import json
from pathlib import Path
import sys


sys.path.insert(0, str(Path(__file__).parent / "src"))
from pricing.ridge import fit  # noqa: E402
from pricing.ridge import r2  # noqa: E402
from pricing.table import read  # noqa: E402


parser = argparse.ArgumentParser()
parser.add_argument("--penalty", type=float, default=1.0)
parser.add_argument("--degree", type=int, default=1, choices=[1, 2, 3])
args = parser.parse_args()

train, valid = read(Path(__file__).parent / "data" / "points.csv")
model = fit(train, args.degree, args.penalty)
Path("metrics.json").write_text(json.dumps({"r2": r2(model, valid), "terms": len(model)}))
