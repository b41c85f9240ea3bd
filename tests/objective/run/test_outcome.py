"""From printed and measured values to a run's status, reason and value."""

from __future__ import annotations

import codecs
from collections.abc import Callable
import json
import math
from pathlib import Path
import signal
import tracemalloc

import pytest

from objective.run.outcome import classify
from objective.run.outcome import Limits
from objective.run.outcome import one_line
from objective.run.outcome import Output
from objective.run.script import run_script
from objective.testbed.metric import METRIC
from objective.testbed.metric import Metric
from tests.objective.run.conftest import GOOD
from tests.objective.run.conftest import PREPARE
from tests.objective.run.conftest import Run
from tests.properties.bounds import bounded


def test_of_every_number_the_last_counts(run: Run) -> None:
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
        "number": 1.0,
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
        ("import json\njson.loads('')", "crash", "JSONDecodeError: Expecting value: line 1 column"),
        ("class E(Exception):\n    __module__ = 'a._b'\nraise E('c.D: e')", "crash", "E: c.D: e"),
        ("exit(3)", "crash", "exit status 3"),
        ("print('bye'); exit(3)", "crash", "exit status 3: bye"),
        ("import os; os.kill(os.getpid(), 11)", "crash", "killed by SIGSEGV"),
        ("import os; os.kill(os.getpid(), 15)", "crash", "killed by SIGTERM"),
        ("import os; os.kill(os.getpid(), 40)", "crash", "killed by signal 40"),
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
        ("import os; os.kill(os.getpid(), 9)", "killed", "killed by itself or from outside "),
        (
            "import os, time; os.kill(os.getppid(), 9); time.sleep(60)",
            "killed",
            "the process that watches over the training was killed",
        ),
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
        ("", "no-metric", "no `val_bpb: NUMBER`, `val_bpb=NUMBER` or JSON was printed"),
        (
            "print('acc: 0.5'); print('so long')",
            "no-metric",
            "no `val_bpb: NUMBER`, `val_bpb=NUMBER` or JSON was printed; numbers found: acc;"
            " last lines: acc: 0.5 | so long",
        ),
    ],
)  # fmt: skip
def test_every_end_has_its_class_and_reason(
    run: Run, train: str, status: str, reason: str
) -> None:
    result = run(train)
    assert result.status == status
    assert result.reason.startswith(reason)
    assert result.charged_seconds == result.seconds


CAUGHT = """
import traceback
print("epoch 1 val_bpb: 0.5", flush=True)
try:
    {}
except Exception:  # as people's scripts do, which is what is tested
    traceback.print_exc()
{}
"""


@pytest.mark.parametrize(
    ("raised", "then", "ending"),
    [
        ("raise MemoryError('CUDA')", "", ("oom", "out of memory: MemoryError: CUDA")),
        ("1 / 0", "", ("crash", "ZeroDivisionError: division by zero")),
        ("raise ValueError('the loss is nan')", "", ("nan", "ValueError: the loss is nan")),
        ("1 / 0", "print('val_bpb: 0.25')", ("ok", "")),
        ("1 / 0", "print('done')", ("ok", "")),
        ("pass", "class A:\n    def __del__(self): 1 / 0\na = A()\ndel a", ("ok", "")),
    ],
)
def test_what_came_before_an_exception_that_was_caught_is_no_result(
    run: Run, raised: str, then: str, ending: tuple[str, str]
) -> None:
    result = run(CAUGHT.format(raised, then))
    assert (result.status, result.reason) == ending


def test_an_exception_after_the_evaluation_leaves_its_value(run: Run) -> None:
    measure = "from prepare import evaluate_bpb\nevaluate_bpb(1.5)\n"
    result = run(measure + CAUGHT.format("1 / 0", ""), PREPARE)
    assert (result.status, result.value) == ("ok", 1.5)


def test_who_sent_a_kill_signal_is_told_by_the_systems_count_of_its_own() -> None:
    limits = Limits(wall_seconds=60, memory_mb=100)
    output = Output(METRIC, None)
    output.feed_metric(b'{"nonce": "n", "ended": true}\n', "n")
    reasons = {
        count: classify(output, "", -signal.SIGKILL, limits, oom_kills=count)
        for count in (1, 0, None)
    }
    assert reasons == {
        1: ("oom", "killed by the system for its memory (limit 100 MB)"),
        0: ("killed", "killed by itself or from outside (SIGKILL), not for its memory"),
        None: (
            "oom",
            "killed by the system (SIGKILL), most likely for its memory (limit 100 MB)",
        ),
    }


def test_what_is_written_into_the_metric_pipe_is_believed_or_left_out() -> None:
    output = Output(METRIC, None)
    lines: list[bytes] = [
        b"[" * 50_000 + b"]" * 50_000,
        b'{"nonce": "n", "value": ' + b"1" * 10_000 + b"}",
        b'{"nonce": "n", "value": [1]}',
        b'{"nonce": "n", "value": "1e999"}x',
        b'{"nonce": "other", "value": 2}',
        b'["n"]',
        b"\xff\xfe",
    ]
    output.feed_metric(b"\n".join(lines) + b"\n", "n")
    # Too long a line stays too long where it is cut.
    message = b'{"nonce": "n", "value": 2}'
    for part in (b"x" * 5000, b"x" * 5000, message + b"\n"):
        output.feed_metric(part, "n")
    assert output.measured is None
    output.feed_metric(b'{"nonce": "n", "value": 3}\n', "n")
    assert output.measured == 3


@pytest.mark.parametrize(
    "line",
    [
        "val_bpb: " + "1" * 10_000 + "x",
        "step 1 (1%) " * 1000,
        "BlockingIOError: " * 1000,
        "val_bpb:" + " " * 10_000 + "x",
        "loss " * 2000,
        "{" + "val_bpb:[" * 7000 + "}",
        "{loss" + " " * 60_000 + "}",
    ],
)
def test_a_line_takes_time_in_proportion_to_its_length(line: str) -> None:
    output = Output(METRIC, lambda step, value, is_share: False)
    data = (line + "\n").encode() * (10_000_000 // len(line))
    with bounded():
        output.feed(b"---\n" + data)
    assert classify(output, "", 1, Limits(wall_seconds=60))[0] == "crash"
    assert sum(map(len, output.tail)) <= 400 * 2000


@pytest.mark.parametrize("size", [1, 700, 2**20])
@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("." * 3000 + " val_bpb: 0.5", 0.5),
        ("." * 300_000 + " val_bpb: 0.5", 0.5),
        (json.dumps({"val_bpb": 0.5, "history": [0.25] * 600}), 0.5),
        (json.dumps({"history": [0.25] * 600, "val_bpb": 0.5}), 0.5),
        (json.dumps({"val_bpb": 0.5, "history": [0.25] * 30_000}), 0.5),
        ("val_bpb: 0.5" + "1" * 3000, None),
        ("x" * 985 + " val_bpb: 0.5" + "1" * 500 + " " * 1000 + "x", None),
        ('{"a":' * 10_000 + "1" + "}" * 10_000, None),
    ],
)
def test_of_a_long_line_both_ends_count(line: str, value: float | None, size: int) -> None:
    output = Output(METRIC, None)
    data = f"{line}\n".encode()
    for start in range(0, len(data), size):
        output.feed(data[start : start + size])
    assert output.value == value
    assert [len(kept) <= 2000 for kept in output.tail] == [True]


def test_a_long_line_without_an_end_takes_little_memory() -> None:
    output = Output(METRIC, None)
    for _ in range(100):
        output.feed(b"ValueError: " + b"x" * 2**16)
        assert len(output._line) <= 3 * 2**16
    output.feed(b"\n")
    assert output.tail[0].startswith("ValueError: x")


def test_names_in_a_long_object_take_little_memory() -> None:
    leaves = {f"a{i}": 1 for i in range(2500)}
    line = json.dumps({"k" * 32_000: leaves, "best": {"f1": 2}})
    assert len(line) < 2**16
    output = Output(METRIC, None)
    tracemalloc.start()
    output.feed(f"{line}\n".encode())
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert output.summary == {"best.f1": 2}
    assert most < 10 * 2**20


def test_a_flood_of_summary_keys_is_cut_but_not_the_metric() -> None:
    output = Output(METRIC, None)
    flood = "".join(f"key{i}: 1\n" for i in range(10_000))
    output.feed(f'{{"{"k" * 300}": 1}}\n---\n{flood}val_bpb: 2.5\n'.encode())
    assert len(output.summary) == 60 and output.value == 2.5
    assert max(map(len, output.summary)) < 10


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


@pytest.mark.parametrize(
    "make",
    [
        "os.mkfifo('m')",
        "os.mkdir('m')",
        "os.symlink('m', 'm')",
        "os.symlink('/dev/zero', 'm')",
        "socket.socket(socket.AF_UNIX).bind('m')",
        "open('m', 'w').truncate(10**12)",
    ],
)
def test_whatever_a_script_makes_of_its_metrics_file_is_read_at_once(
    testbed_folder: Callable[..., Path], make: str
) -> None:
    folder = testbed_folder(f"import os, socket\n{make}\n")
    result = run_script(folder, limits=Limits(10), metric=Metric("loss", file="m"))
    assert (result.status, result.value) == ("no-metric", None) and result.seconds < 9


@pytest.mark.parametrize(
    ("text", "value"), [(" 0.5\n", 0.5), ("-1E-03", -0.001), ("0,532", None), ("about 1", None)]
)
def test_a_metrics_file_may_be_nothing_but_a_number(
    tmp_path: Path, text: str, value: float | None
) -> None:
    (tmp_path / "m").write_text(text)
    output = Output(Metric("loss", file="m"), None)
    output.read_file(tmp_path / "m")
    assert output.value == value


@pytest.mark.parametrize(
    "data",
    [
        "acc,loss\n0.5,1\n".encode("utf-16"),
        codecs.BOM_UTF16_BE + "{'loss': 1}".encode("utf-16-be"),
        "acc\tloss\n0.5\t1\n".encode("utf-8-sig"),
        b"acc,loss\n" + b"0.1,%2000d\n" % 2 * 2500 + b"0.5,1\n",
        json.dumps({"history": [0.25] * 200_000, "loss": 1, "rest": [0.25] * 200_000}).encode(),
        json.dumps({"loss": 1, "history": [0.25] * 10**6}).encode(),
    ],
    ids=["utf-16", "utf-16-be", "utf-8", "long table", "object", "long object"],
)
def test_a_metrics_file_may_be_long_and_of_every_encoding(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m").write_bytes(data)
    output = Output(Metric("loss", file="m"), None)
    output.read_file(tmp_path / "m")
    assert output.value == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("los: 0.5\n" + "x" * 99, "begins with `los: 0.5`; numbers found: los"),
        ("\x1b[1m" + "x" * 99, f"begins with `{'x' * 59}…`"),
    ],
)
def test_of_a_file_without_the_metric_it_is_said_what_is_in_it(
    tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "m").write_text(text)
    output = Output(Metric("loss", file="m"), None)
    output.read_file(tmp_path / "m")
    _, reason = classify(output, "", 0, Limits(10))
    assert reason == f"no `loss: NUMBER`, `loss=NUMBER` or JSON is in m, which {said}"


def test_progress_is_understood_across_carriage_returns_and_reads(run: Run) -> None:
    seen: list[tuple[float, float, bool]] = []

    def watch(step: float, value: float, is_share: bool) -> bool:
        seen.append((step, value, is_share))
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
    assert seen[:2] == [(1.5, 9.5, True), (50.0, 0.1, True)]
    assert seen[2][0] == 100 and math.isnan(seen[2][1])
    assert seen[3:] == [(3.0, 1.0, False)]


def test_a_reason_is_one_short_line_without_control_characters(run: Run) -> None:
    assert one_line("\x1b[31ma\tb\r\nc\x00d\u2028e\u202ef\x9b") == "a b c d e f"
    result = run("raise ValueError('\\x1b[31m\\x07' + 'x' * 500)")
    assert len(result.reason) == 300 and result.reason.endswith("x…")
    assert result.reason.isprintable()
