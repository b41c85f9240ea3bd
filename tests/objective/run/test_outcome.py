"""From printed and measured values to a run's status, reason and value."""

from __future__ import annotations

import pytest

from objective.run.outcome import one_line
from tests.objective.run.conftest import GOOD
from tests.objective.run.conftest import PREPARE
from tests.objective.run.conftest import Run


def test_the_summary_is_what_follows_the_last_rule(run: Run) -> None:
    result = run(
        """
        print("---\\nval_bpb: 0.1\\nnum_steps: 1")
        print("val_bpb: 0.2\\n---")
        print("val_bpb:          1.234500\\npeak_vram_mb: -1e+3\\nrate: .5\\nodd: inf\\ntext: abc")
        print("no number: 1\\nnum_steps:         953", end="")
        """
    )
    assert (result.status, result.reason, result.returncode) == ("ok", "", 0)
    assert result.value == 1.2345
    assert result.summary == {
        "val_bpb": 1.2345,
        "peak_vram_mb": -1000.0,
        "rate": 0.5,
        "odd": float("inf"),
        "num_steps": 953.0,
    }


def test_training_seconds_are_charged_and_a_failure_costs_all_its_time(run: Run) -> None:
    assert run(GOOD + "print('training_seconds: 0.001')").charged_seconds == 0.001
    for line in ("", "print('training_seconds: 1e9')", "print('training_seconds: -1')"):
        result = run(GOOD + line)
        assert result.charged_seconds == result.seconds > 0, line
    result = run(GOOD + "print('training_seconds: 0.001', flush=True)\n1 / 0")
    assert result.charged_seconds == result.seconds


@pytest.mark.parametrize(
    ("train", "status", "reason"),
    [
        ("1 / 0", "crash", "ZeroDivisionError: division by zero"),
        ("raise ValueError('one\\ntwo')", "crash", "ValueError: one"),
        ("def f(:\n    pass", "crash", "SyntaxError: "),
        ("assert 0", "crash", "AssertionError"),
        ("exit(3)", "crash", "exit status 3"),
        ("print('bye'); exit(3)", "crash", "exit status 3: bye"),
        ("import os; os.kill(os.getpid(), 11)", "crash", "killed by SIGSEGV"),
        ("import os; os.kill(os.getpid(), 15)", "crash", "killed by SIGTERM"),
        ("import missing", "crash", "ModuleNotFoundError: No module named 'missing'"),
        ("input()", "crash", "EOFError: EOF when reading a line"),
        (
            "try:\n    1 / 0\nexcept Exception:\n    raise KeyError('k')",
            "crash",
            "KeyError: 'k'",
        ),
        ("raise MemoryError", "oom", "out of memory: MemoryError"),
        (
            "raise RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')",
            "oom",
            "out of memory: RuntimeError: CUDA out of memory. Tried to allocate 2 GiB",
        ),
        (
            "class OutOfMemoryError(RuntimeError): pass\nraise OutOfMemoryError('x')",
            "oom",
            "out of memory: OutOfMemoryError: x",
        ),
        ("import os; os.kill(os.getpid(), 9)", "oom", "killed by the system (SIGKILL), "),
        ("print('FAIL'); exit(1)", "nan", "the script stopped itself: "),
        ("print('FAIL: loss is nan'); exit(1)", "nan", "FAIL: loss is nan"),
        ("print('loss exploded at step 3'); exit(1)", "nan", "loss exploded at step 3"),
        (
            "print('step 00003 (5.0%) | loss: nan | x', end='\\r'); exit(1)",
            "nan",
            "the script stopped itself: ",
        ),
        ("raise FloatingPointError('loss')", "nan", "FloatingPointError: loss"),
        ("raise ValueError('Loss is NaN at step 3')", "nan", "ValueError: Loss is NaN at step 3"),
        ("assert 0, 'the loss exploded'", "nan", "AssertionError: the loss exploded"),
        ("raise ValueError('no loss yet')", "crash", "ValueError: no loss yet"),
        ("int(float('nan'))", "crash", "ValueError: cannot convert float NaN to integer"),
        ("nan", "crash", "NameError: name 'nan' is not defined"),
        ("print('---\\nval_bpb: nan')", "nan", "val_bpb is nan"),
        ("print('---\\nval_bpb: -inf')", "nan", "val_bpb is -inf"),
        ("print('val_bpb: 1.0')", "no-metric", "ended without a `val_bpb:` line after a `---`"),
        ("", "no-metric", "ended without a `val_bpb:` line after a `---` line"),
    ],
)  # fmt: skip
def test_every_end_has_its_class_and_reason(
    run: Run, train: str, status: str, reason: str
) -> None:
    result = run(train)
    assert result.status == status
    assert result.reason.startswith(reason)
    assert result.charged_seconds == result.seconds


def test_a_word_about_memory_in_the_output_of_a_crash_is_not_the_cause(run: Run) -> None:
    result = run("print('beware of out of memory')\n1 / 0")
    assert (result.status, result.reason) == ("crash", "ZeroDivisionError: division by zero")


def test_what_the_evaluator_returned_counts_and_a_lie_is_marked(run: Run) -> None:
    measure = "from prepare import evaluate_bpb\nv = evaluate_bpb(1.23456789)\n"
    honest = run(measure + "print('---')\nprint(f'val_bpb: {v:.6f}')", PREPARE)
    assert (honest.status, honest.value, honest.mismatch) == ("ok", 1.23456789, False)
    assert honest.printed == 1.234568
    liar = run(measure + "print('---\\nval_bpb: 0.5')", PREPARE)
    assert (liar.status, liar.value, liar.printed) == ("ok", 1.23456789, 0.5)
    assert liar.mismatch
    silent = run(measure, PREPARE)
    assert (silent.status, silent.value, silent.mismatch) == ("ok", 1.23456789, False)


def test_a_printed_metric_that_nobody_measured_is_none(run: Run) -> None:
    result = run(GOOD, PREPARE)
    assert (result.status, result.value, result.mismatch) == ("no-metric", None, True)
    assert result.reason == "val_bpb was printed, but prepare.evaluate_bpb did not return"
    result = run("import prepare\nprepare.evaluate_bpb(float('nan'))\n" + GOOD, PREPARE)
    assert result.status == "nan"


def test_progress_is_understood_across_carriage_returns_and_reads(run: Run) -> None:
    seen: list[tuple[float, float]] = []

    def watch(share: float, loss: float) -> bool:
        seen.append((share, loss))
        return False

    run(
        """
        import sys, time
        sys.stdout.write("\\rstep 00001 (1.5%) | loss: 9.5 | lrm: 1.00")
        for piece in ("\\rstep 00002 (50.0%) | lo", "ss: 1e-1 |", " dt: 3ms\\r"):
            sys.stdout.flush(); time.sleep(0.05); sys.stdout.write(piece)
        print("step 3 (100%) | loss: nan")
        print("step 3 | loss: 1.0")
        """,
        on_progress=watch,
    )
    assert seen[:2] == [(1.5, 9.5), (50.0, 0.1)]
    assert seen[2][0] == 100 and seen[2][1] != seen[2][1] and len(seen) == 3


def test_a_reason_is_one_short_line_without_control_characters(run: Run) -> None:
    assert one_line("\x1b[31ma\tb\r\nc\x00d\u2028e\x9b") == "a b c d e"
    result = run("raise ValueError('\\x1b[31m\\x07' + 'x' * 500)")
    assert len(result.reason) == 200 and result.reason.endswith("x…")
    assert result.reason.isprintable()
