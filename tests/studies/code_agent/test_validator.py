"""Sources that aren't worth a run are refused before it, in a sentence."""

from __future__ import annotations

import pytest

from studies.code_agent.validator import check_source
from studies.code_agent.validator import fingerprint
from studies.code_agent.validator import MAX_SOURCE_BYTES
from studies.code_agent.validator import ValidationError


BASELINE = '''\
"""A script."""

import math
import gc

import torch
import torch.nn.functional as F

from prepare import evaluate_bpb, TIME_BUDGET

LR = 0.1


def main():
    """Train."""
    gc.collect()
    model = torch.nn.Linear(1, 1)
    val_bpb = evaluate_bpb(model, None, 1)
    print("---")
    print(f"val_bpb:          {val_bpb:.6f}")
    print(f"training_seconds: {TIME_BUDGET:.1f}")


main()
'''


def test_a_changed_script_passes_and_gets_a_fingerprint() -> None:
    changed = BASELINE.replace("LR = 0.1", "LR = 0.2")
    assert check_source(changed, baseline=BASELINE) == fingerprint(changed)


def test_an_error_in_a_text_of_several_lines_is_told_in_one() -> None:
    with pytest.raises(ValidationError) as error:
        check_source('"""a\nb"""LR = 1', baseline=BASELINE)
    assert "\n" not in str(error.value)


def test_comments_docstrings_and_formatting_do_not_make_a_script_new() -> None:
    same = BASELINE.replace('"""A script."""', '"""Another."""').replace(
        "LR = 0.1", "LR   =   0.1  # a rate"
    )
    assert fingerprint(same) == fingerprint(BASELINE)
    with pytest.raises(ValidationError, match="same as the unedited"):
        check_source(same, baseline=BASELINE)


@pytest.mark.parametrize(
    "change", ["TIME_BUDGET = 600", "TIME_BUDGET = 300\nTIME_BUDGET += 9", ""]
)
def test_no_proposal_buys_itself_training_time(change: str) -> None:
    baseline = BASELINE.replace(", TIME_BUDGET", "").replace("LR = 0.1", "TIME_BUDGET = 300")
    with pytest.raises(ValidationError, match="must leave TIME_BUDGET"):
        check_source(baseline.replace("TIME_BUDGET = 300", change), baseline=baseline)


def test_a_script_that_was_tried_before_is_refused_however_it_is_formatted() -> None:
    earlier = fingerprint(BASELINE.replace("LR = 0.1", "LR = 0.2"))
    again = BASELINE.replace("LR = 0.1", "LR = (0.2)  # again")
    with pytest.raises(ValidationError, match="tried before"):
        check_source(again, baseline=BASELINE, earlier={earlier})


def test_a_module_that_the_baseline_imports_itself_is_allowed() -> None:
    check_source(BASELINE.replace("gc.collect()", "gc.freeze()"), baseline=BASELINE)


@pytest.mark.parametrize("marked", [("\ufeff", "\ufeff"), ("\ufeff", ""), ("", "\ufeff")])
def test_a_byte_order_mark_is_no_part_of_a_script(marked: tuple[str, str]) -> None:
    before, after = marked
    changed = after + BASELINE.replace("LR = 0.1", "LR = 0.2")
    passed = check_source(changed, baseline=before + BASELINE)
    assert passed == fingerprint(changed) == fingerprint(changed.removeprefix("\ufeff"))
    with pytest.raises(ValidationError, match="same as the unedited"):
        check_source(after + BASELINE, baseline=before + BASELINE)


@pytest.mark.parametrize(
    "line",
    [
        "torch.backends.cuda.matmul.allow_tf32 = True",
        "from torch import backends\nbackends.cudnn.benchmark = True",
        "from torch._inductor import config\nconfig.coordinate_descent_tuning = True",
        "import os\nos.environ['OMP_NUM_THREADS'] = '1'",
        "model = torch.nn.Linear(1, 1)\nmodel.weight.data = torch.zeros(1, 1)",
        "model = torch.nn.Linear(1, 1)\nsetattr(model, 'gain', 1.0)",
        "model = torch.compile(torch.nn.Linear(1, 1)).eval()",
        "p = torch.nn.Linear(1, 1)\nfor m in p.modules():\n    m.bias = None",
        "model = torch.nn.Linear(1, 1)\nfor p in [model.weight]: p.requires_grad = False",
        "def freeze(m, kind): m.bias = None\nfreeze(torch.nn.Linear(1, 1), torch.float32)",
        "class A:\n    def count(self): type(self).n = 1\n    def set(self, m): self.m = m\nA().set(F)",
        "opt = {'a': torch.optim.Adam}['a']([LR])\nopt.defaults = {}",
        "model = torch.nn.Linear(1, 1)\nprint(hasattr(F, 'gelu'), type(model), model.__class__)",
    ],
)
def test_settings_and_objects_of_ones_own_may_be_changed(line: str) -> None:
    check_source(BASELINE.replace("LR = 0.1", f"LR = 0.1\n{line}"), baseline=BASELINE)


def test_what_the_baseline_changes_itself_may_stay() -> None:
    baseline = BASELINE.replace("LR = 0.1", "torch.Tensor.half = torch.Tensor.float\nLR = 0.1")
    check_source(baseline.replace("LR = 0.1", "LR = 0.2"), baseline=baseline)


# As many other names for one thing as a script has room for, the last of them first.
CHAIN = "".join(f"a{i} = a{i + 1}\n" for i in range(9999))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("LR = 0.1", "LR = = 0.1", "doesn't compile: invalid syntax at line 11"),
        ("LR = 0.1", "return 1", "doesn't compile"),
        ("LR = 0.1", "LR = '\0'", "null byte"),
        ("LR = 0.1", "LR = " + "(" * 3000 + "1" + ")" * 3000, "doesn't compile"),
        ("LR = 0.1", "LR = 0x" + "f" * 5000, "a number in it is too long"),
        ("LR = 0.1", "#" * MAX_SOURCE_BYTES, "at most"),
        ("import evaluate_bpb, TIME", "import TIME", "still import evaluate_bpb"),
        (", TIME_BUDGET\n", "\nTIME_BUDGET = 900\n", "still import TIME_BUDGET"),
        ("LR = 0.1", "TIME_BUDGET = 900", "must not define TIME_BUDGET again"),
        ("LR = 0.1", "def evaluate_bpb(*a): return 0.1", "must not define evaluate_bpb again"),
        ("LR = 0.1", "from math import pi as evaluate_bpb", "must not define evaluate_bpb"),
        ("LR = 0.1", "import prepare\nprepare.TIME_BUDGET = 900", "changes the module prepare"),
        ("LR = 0.1", "import prepare\nsetattr(prepare, 'x', 9)", "changes the module prepare"),
        ("LR = 0.1", "import prepare as p\np.TIME_BUDGET = 900", "changes the module prepare"),
        ("LR = 0.1", "evaluate_bpb.__defaults__ = ()", "changes the module prepare"),
        ("LR = 0.1", "import prepare\nprepare.np.exp = min", "changes the module prepare"),
        ("LR = 0.1", "import sys\nsys.modules['prepare'] = 1", "must not use sys.modules"),
        ("LR = 0.1", "import sys as s\ns.modules.pop('prepare')", "must not use sys.modules"),
        ("LR = 0.1", "from sys import modules as m\nm['prepare'] = 1", "must not use sys.modules"),
        ("LR = 0.1", "import importlib", "must not import importlib"),
        ("LR = 0.1", "import builtins\nbuiltins.float = min", "changes an imported module"),
        ("LR = 0.1", "__import__('prepare')", "must not call __import__"),
        ("LR = 0.1", "exec('F.cross_entropy = min')", "must not call exec"),
        ("LR = 0.1", "run = eval\nrun('1')", "must not call eval"),
        ("LR = 0.1", "globals()['evaluate_bpb'] = min", "must not call globals"),
        (
            "LR = 0.1",
            "setattr(torch.nn.functional, 'x', 1)",
            "changes an imported module or class",
        ),
        (
            "LR = 0.1",
            "from torch.nn import functional as G\nG.x = 1",
            "changes an imported module",
        ),
        ("LR = 0.1", "from torch import Tensor\nTensor.item = min", "changes an imported module"),
        ("LR = 0.1", "torch.Tensor.item = min", "changes an imported module or class"),
        *(
            ("LR = 0.1", line, "changes an imported module or class")
            for line in (
                "for m in (1, F): m.cross_entropy = min",
                "for m, n in [(F, 'x')]: setattr(m, n, min)",
                "mods = [F]\nfor m in mods: m.cross_entropy = min",
                "[setattr(m, 'cross_entropy', min) for m in [F]]",
                "mods = {'f': F}\nmods['f'].cross_entropy = min",
                "(F if LR else 1).cross_entropy = min",
                "getattr(torch.nn, 'functional').cross_entropy = min",
                "G = getattr(torch.nn, 'functional')\nG.cross_entropy = min",
                "type(torch.zeros(1)).item = min",
                "T = torch.zeros(1).__class__\nT.item = min",
                "def patch(m): m.cross_entropy = min\npatch(F)",
                "def patch(a, m=F): m.cross_entropy = min\npatch(1)",
                "def patch(*, m): m.x = 1\ndef p(m): m.x = 1\np(m=F)",
                "class A:\n    def patch(self, m): m.cross_entropy = min\nA().patch(F)",
                "(lambda m: setattr(m, 'cross_entropy', min))(F)",
                "from contextlib import nullcontext\nwith nullcontext(F) as m: m.x = min",
                "setattr(*[F, 'cross_entropy', min])",
            )
        ),
        ("LR = 0.1", "s = setattr\ns(F, 'x', 1)", "must call setattr and delattr by"),
        ("LR = 0.1", "map(setattr, [F], ['x'], [1])", "must call setattr and delattr by"),
        ("LR = 0.1", "s = type.__setattr__", "must not use __setattr__"),
        ("LR = 0.1", "del torch.Tensor.item", "changes an imported module or class"),
        ("LR = 0.1", "G = F\nH = G\nH.cross_entropy = min", "changes an imported module or class"),
        ("LR = 0.1", CHAIN + "a9999 = F\na0.x = 1", "changes an imported module or class"),
        ("LR = 0.1", "a, (b, c) = 1, (2, torch.nn)\nc.Linear = 1", "changes an imported module"),
        ("LR = 0.1", "for F.cross_entropy in [min]: pass", "changes an imported module or class"),
        ("LR = 0.1", "with open('x') as F.cross_entropy: pass", "changes an imported module"),
        ("LR = 0.1", "(F.cross_entropy, x) = (min, 1)", "changes an imported module or class"),
        ("LR = 0.1", "F.cross_entropy += 1", "changes an imported module or class"),
        ("LR = 0.1", "vars(F)['cross_entropy'] = min", "changes an imported module or class"),
        ("LR = 0.1", "F.__dict__['cross_entropy'] = min", "must not use __dict__"),
        ("LR = 0.1", "type.__setattr__(torch.Tensor, 'item', min)", "changes an imported module"),
        ("LR = 0.1", "from unittest import mock", "must not import unittest"),
        (
            "LR = 0.1",
            "class T(torch.Tensor):\n    def __torch_function__(self): pass",
            "must not use __torch_function__",
        ),
        ("LR = 0.1", "open('prepare.py', 'w')", "changes the module prepare"),
        ("LR = 0.1", "F.cross_entropy = min", "changes an imported module"),
        ("LR = 0.1", "torch.nn.functional.cross_entropy = min", "changes an imported module"),
        ("evaluate_bpb(model, None, 1)", "0.1", "still call evaluate_bpb"),
        ('f"val_bpb:          ', 'f"bpb: ', "still print 'val_bpb'"),
        ('f"training_seconds: ', 'f"', "still print 'training_seconds'"),
        ("LR = 0.1", "import ctypes", "must not import ctypes"),
        ("LR = 0.1", "from inspect import stack", "must not import inspect"),
        ("LR = 0.1", "evaluate_bpb.__closure__", "must not use __closure__"),
        ("LR = 0.1", "gc.get_objects()", "must not use get_objects"),
        ("LR = 0.1", "open('/proc/self/fd/3')", "must not name /proc/"),
    ],
)
def test_a_script_that_would_waste_or_falsify_a_run_is_refused(
    old: str, new: str, message: str
) -> None:
    assert old in BASELINE
    with pytest.raises(ValidationError, match=message):
        check_source(BASELINE.replace(old, new), baseline=BASELINE)


@pytest.mark.parametrize(
    "declared",
    [
        "# -*- coding: utf-7 -*-\n# +AAo-prepare = None\n",
        "#!/usr/bin/python\n# vim: set fileencoding=raw_unicode_escape :\n# \\u000aprepare = 1\n",
        "# coding: rot13\n",
        "# coding: no-such\n",
        "# coding: latin-1\nNAME = 'é'\n",
    ],
)
def test_a_script_that_python_reads_otherwise_is_refused(declared: str) -> None:
    with pytest.raises(ValidationError, match="must be UTF-8, but declares another encoding"):
        check_source(declared + BASELINE, baseline=BASELINE)
    for same in ("# coding: utf-8\n", "# coding: latin-1\n"):
        check_source(same + BASELINE.replace("LR = 0.1", "LR = 0.2"), baseline=BASELINE)
