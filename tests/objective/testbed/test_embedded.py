"""The embedded testbed itself: its data, its evaluation, and real trainings of 2 seconds."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import importlib.util
import io
import itertools
import os
from pathlib import Path
import random
import re
import shutil
import subprocess
import sys
import time
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from objective.testbed.source import set_constants
from tests.conftest import not_here
from tests.conftest import one_at_a_time


TESTBED = Path(__file__).parents[3] / "objective" / "testbed" / "embedded"

# What a launcher does: set the time budget before train.py reads it, then run train.py. FAKE_CLOCK
# makes a look at the clock last so many seconds, so that a run has the same steps on any machine.
LAUNCHER = """
import itertools, os, runpy, sys, time
sys.path.insert(0, os.getcwd())
import prepare
prepare.TIME_BUDGET = float(os.environ.get("BUDGET", "2"))
if "FAKE_CLOCK" in os.environ:
    clock = itertools.count(step=float(os.environ["FAKE_CLOCK"]))
    time.process_time = lambda: next(clock)
runpy.run_path("train.py", run_name="__main__")
"""


QUICK = {"DEPTH": 1, "TOTAL_BATCH_SIZE": 1024, "DEVICE_BATCH_SIZE": 8}  # a step of 10 ms


def load(name: str, as_name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(as_name, TESTBED / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[as_name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cache(shared_folder: Path) -> Path:
    return shared_folder / "embedded"


@pytest.fixture(scope="module")
def prepare(cache: Path) -> Iterator[Any]:
    """prepare.py as a module, with the embedded corpus in a cache of this test run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTORESEARCH_CACHE", str(cache))
        patch.delenv("AUTORESEARCH_CORPUS", raising=False)
        patch.setitem(sys.modules, "prepare", None)
        patch.syspath_prepend(TESTBED)
        module = load("prepare", "prepare")
        with one_at_a_time(cache):
            module.prepare()
        yield module


@pytest.fixture(scope="module")
def train(prepare: Any) -> Any:
    return load("train", "embedded_train")


@pytest.fixture
def run(
    prepare: Any, cache: Path, tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run train.py with constants replaced; keyword arguments in capitals are the environment."""

    def run_with(
        constants: dict[str, Any], **environment: str
    ) -> subprocess.CompletedProcess[str]:
        source = (TESTBED / "train.py").read_text()
        (tmp_path / "train.py").write_text(set_constants(source, constants))
        for name in ("prepare.py", "program.py"):
            shutil.copy(TESTBED / name, tmp_path)
        return subprocess.run(
            [sys.executable, "-c", LAUNCHER],
            cwd=tmp_path,
            env={**os.environ, "AUTORESEARCH_CACHE": str(cache), **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run_with


@pytest.fixture
def run_here(
    train: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """What train.py prints with constants replaced and a fake clock, without a process of its own."""

    def run_with(constants: dict[str, Any], clock: float, seed: str = "0") -> str:
        with monkeypatch.context() as patch:
            for name, value in {**constants, "TIME_BUDGET": 2.0}.items():
                patch.setattr(train, name, value)
            patch.setattr(train, "keep_freed_memory", lambda: None)  # that is the whole process's
            ticks = itertools.count(step=clock)
            patch.setattr(time, "process_time", lambda: next(ticks))
            patch.setenv("AUTORESEARCH_SEED", seed)
            train.main()
        return capsys.readouterr().out

    return run_with


def summary(out: str) -> dict[str, float]:
    block = out.split("\n---\n")[1]
    return {key: float(value) for key, value in re.findall(r"(\w+): +(\S+)", block)}


def make_corpus(folder: Path, n_bytes: int = 2_600_000) -> Path:
    """English-like text files in `folder`."""
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 8))) for _ in range(3000)]
    folder.mkdir()
    for i in range(4):
        paragraphs: list[str] = []
        while sum(map(len, paragraphs)) < n_bytes / 4:
            paragraphs.append(" ".join(rng.choices(words, k=80)).capitalize() + ".")
        (folder / f"{i}.txt").write_text("\n\n".join(paragraphs))
    return folder


# Training


def test_two_seconds_of_training_end_with_a_complete_summary(run: Any, train: Any) -> None:
    done = run({})
    assert done.returncode == 0, done.stdout + done.stderr
    facts = summary(done.stdout)
    assert set(facts) == {
        *("val_bpb", "training_seconds", "total_seconds", "peak_vram_mb"),
        *("total_tokens_M", "num_steps", "num_params_M", "depth"),
    }
    assert facts["training_seconds"] >= 2
    assert facts["peak_vram_mb"] > 50
    tokens_per_step = facts["total_tokens_M"] * 1e6 / facts["num_steps"]
    assert tokens_per_step == pytest.approx(train.TOTAL_BATCH_SIZE, rel=0.05)
    assert re.search(r"^step \d{5} \(\d+\.\d%\) \| loss: \d+\.\d{6} \| ", done.stdout, re.M)


def test_thirty_steps_learn_more_than_how_often_each_token_occurs(
    run_here: Any, prepare: Any
) -> None:
    tokens = np.fromfile(prepare.validation_file(), dtype=np.uint16)
    share = np.bincount(tokens) / len(tokens)
    share = share[share > 0]
    lengths = np.array([len(b) for b in prepare.load_tokenizer().token_bytes])
    small = {"DEPTH": 2, "TOTAL_BATCH_SIZE": 1024, "DEVICE_BATCH_SIZE": 8}
    entropy = -(share * np.log2(share)).sum() / lengths[tokens].mean()
    assert 1.0 < summary(run_here(small, clock=0.0334))["val_bpb"] < entropy


def test_same_seed_and_steps_give_the_same_numbers_and_another_seed_others(
    run: Any, run_here: Any
) -> None:
    there = run(QUICK, FAKE_CLOCK="0.2", AUTORESEARCH_SEED="0").stdout
    outputs = [there, *(run_here(QUICK, clock=0.2, seed=seed) for seed in ("0", "1"))]
    bpb = [summary(out)["val_bpb"] for out in outputs]
    assert bpb[0] == bpb[1] != bpb[2]


def test_accumulated_gradients_are_those_of_the_whole_batch(run_here: Any) -> None:
    # A row of 8 sequences is drawn as two of 4 are. The clock is read once per pass and per step.
    outputs = [
        run_here({**QUICK, "DEVICE_BATCH_SIZE": size}, clock=clock)
        for size, clock in ((8, 0.3), (4, 0.2))
    ]
    losses = [[float(x) for x in re.findall(r"loss: (\S+)", out)] for out in outputs]
    assert len(losses[0]) == 3 and losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_step_that_outlasts_the_budget_is_cut_off(run_here: Any) -> None:
    large = {**QUICK, "DEVICE_BATCH_SIZE": 4, "TOTAL_BATCH_SIZE": 8192}  # 16 passes
    facts = summary(run_here(large, clock=0.1))
    assert (facts["num_steps"], facts["total_tokens_M"]) == (1, 0.0082)
    facts = summary(run_here(large, clock=0.5))
    assert (facts["num_steps"], facts["total_tokens_M"]) == (
        1,
        0.002,
    )  # the first, as far as it got


def test_diverged_training_stops_with_a_failure_that_says_nan(
    run_here: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_here({**QUICK, "MATRIX_LR": 1e30}, clock=0.1)
    assert ended.value.code == 1
    out = capsys.readouterr().out
    assert re.search(r"^FAIL: .*nan", out, re.M)
    assert "---" not in out


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"WINDOW_PATTERN": "SXL"}, "WINDOW_PATTERN must be of S and L, got 'SXL'"),
        ({"TOTAL_BATCH_SIZE": 1000}, "TOTAL_BATCH_SIZE must be a multiple of"),
    ],
)
def test_a_wrong_constant_is_named_before_training(
    run_here: Any, constants: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(AssertionError, match=re.escape(message)):
        run_here(constants, clock=0.1)
    assert "step 0" not in capsys.readouterr().out


def test_too_large_a_model_fails_with_the_allocators_own_error(run: Any, tmp_path: Path) -> None:
    if sys.platform != "linux":  # elsewhere it can be set: the model would just be trained
        not_here("RLIMIT_DATA is enforced on Linux only")
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (600 * 2**20, before[1]))  # children inherit it
    try:
        done = run(
            {"DEPTH": 6, "ASPECT_RATIO": 48, "DEVICE_BATCH_SIZE": 128, "TOTAL_BATCH_SIZE": 2**14}
        )
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
    assert done.returncode == 1
    assert "can't allocate memory" in done.stderr


# Parts of train.py


def test_schedule_rises_stays_and_falls_to_the_final_share(
    train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WARMUP_RATIO", 0.2), ("WARMDOWN_RATIO", 0.5), ("FINAL_LR_FRAC", 0.1)):
        monkeypatch.setattr(train, name, value)
    at = [0.0, 0.1, 0.2, 0.5, 0.75, 1.0]
    expected = [0.0, 0.5, 1.0, 1.0, 0.55, 0.1]
    assert [train.lr_multiplier(p) for p in at] == pytest.approx(expected)


def test_window_pattern_repeats_over_layers_and_the_last_sees_everything(train: Any) -> None:
    assert train.layer_windows("SSL", 5, 128) == [64, 64, 128, 64, 128]
    assert train.layer_windows("S", 1, 128) == [128]


def test_width_is_rounded_up_to_whole_heads(train: Any) -> None:
    assert train.model_width(3, 32, 64) == 128  # 96 and a part of a head
    assert train.model_width(4, 32, 64) == 128


def test_orthogonalize_brings_singular_values_near_one(train: Any) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(train.orthogonalize(torch.randn(3, 32, 8), 5))
    assert values.min() > 0.5 and values.max() < 1.3


def test_soft_cap_is_a_shifted_tanh_with_its_gradient(train: Any) -> None:
    z = torch.linspace(-40, 40, 9, dtype=torch.double, requires_grad=True)
    y = train.SoftCap.apply(z * (2 / 15.0), 15.0)
    assert torch.allclose(y - 15, 15 * torch.tanh(z / 15))
    (gradient,) = torch.autograd.grad(y.sum(), z)
    assert torch.allclose(gradient, 1 - torch.tanh(z / 15) ** 2)


def test_squared_relu_has_the_gradient_of_its_formula(train: Any) -> None:
    x = torch.linspace(-3, 3, 7, requires_grad=True)
    (gradient,) = torch.autograd.grad(train.SquaredReLU.apply(x).sum(), x)
    assert gradient.tolist() == [0, 0, 0, 0, 2, 4, 6]


def test_norm_is_pytorchs_rms_norm_with_its_gradient(train: Any) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 8, requires_grad=True)
    weights = torch.randn(4, 8)
    results = []
    for function in (train.norm, lambda x: torch.nn.functional.rms_norm(x, (8,))):
        y = function(x)
        results.append((y, *torch.autograd.grad((y * weights).sum(), x)))
    for ours, theirs in zip(*results):
        assert torch.allclose(ours, theirs, atol=1e-4)


# Evaluation


def test_bits_per_byte_do_not_depend_on_the_tokenizer(
    prepare: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random a and b are 1 bit per byte, told one by one or in pairs."""
    a, b = b"ab"
    text = random.Random(0).choices([a, b], k=4098)
    pairs = {(a, a): 256, (a, b): 257, (b, a): 258, (b, b): 259}
    tokenizations = [
        (prepare.Tokenizer([]), text, [a, b]),
        (
            prepare.Tokenizer(list(pairs)),
            [pairs[two] for two in zip(text[::2], text[1::2])],
            [256, 257, 258, 259],
        ),
    ]
    monkeypatch.setattr(prepare, "EVAL_BYTES", 4000)
    for tokenizer, tokens, possible in tokenizations:
        monkeypatch.setattr(prepare, "load_tokenizer", lambda: tokenizer)
        logits = torch.full((tokenizer.vocab_size,), -1e9)
        logits[possible] = 0.0
        example = torch.zeros(4, prepare.MAX_SEQ_LEN, dtype=torch.long)
        program = prepare.Program.record(lambda x: logits.expand(*x.shape, -1), example)
        file = io.BytesIO(np.array(tokens, dtype=np.uint16).tobytes())
        assert prepare.evaluate_program(program.to_bytes(), file) == pytest.approx(1.0)


def test_uniform_model_scores_the_bits_of_a_token_over_its_mean_bytes(prepare: Any) -> None:
    tokenizer = prepare.load_tokenizer()
    tokens = np.fromfile(prepare.validation_file(), dtype=np.uint16)
    bpb = prepare.evaluate_bpb(lambda x: torch.zeros(*x.shape, 1024), tokenizer, 16)
    ends = np.cumsum([len(tokenizer.token_bytes[t]) for t in tokens])
    n = int(np.searchsorted(ends, prepare.EVAL_BYTES))
    assert bpb == pytest.approx(10 * n / ends[n], rel=0.005)


def test_a_model_that_sees_the_next_token_is_refused(prepare: Any) -> None:
    def cheat(x: torch.Tensor) -> torch.Tensor:
        return 20.0 * torch.nn.functional.one_hot(x.roll(-1, 1), 1024)

    with pytest.raises(ValueError, match="must not look ahead"):
        prepare.evaluate_bpb(cheat, prepare.load_tokenizer(), 16)


def test_a_model_that_peeks_where_the_text_goes_on_naturally_is_refused(prepare: Any) -> None:
    """It knows which pairs of tokens follow each other, and looks ahead only at such."""
    tokens = np.fromfile(prepare.prepare() / "train.bin", dtype=np.uint16)[:500_000]
    pairs = torch.zeros(1024, 1024, dtype=torch.bool)
    pairs[tokens[:-1].astype(np.int64), tokens[1:].astype(np.int64)] = True

    def cheat(x: torch.Tensor) -> torch.Tensor:
        after = x.roll(-1, 1)
        known = pairs[x, after].unsqueeze(-1)
        return 20.0 * torch.nn.functional.one_hot(after, 1024) * known

    with pytest.raises(ValueError, match="must not look ahead"):
        prepare.evaluate_bpb(cheat, None, 16)


def hidden_by_a_constant(x: torch.Tensor) -> torch.Tensor:
    """What is added to all logits changes no prediction, and hides a difference."""
    return 20.0 * torch.nn.functional.one_hot(x.roll(-1, 1), 1024) + 1e5


def told_by_the_tokens(x: torch.Tensor) -> torch.Tensor:
    """Writes to the tokens, from which the other ending is made, what they are, and where."""
    place = torch.arange(1, 129).expand(16, 128)
    mark = x // 2**20
    own, shifted = x % 1024, x // 1024 % 1024
    real = torch.where((mark == 0) | (mark == place), own, shifted)
    x.copy_(real + 1024 * real.roll(-1, 0).roll(-1, 1) + 2**20 * place)
    return 20.0 * torch.nn.functional.one_hot(real.roll(-1, 1), 1024)


def told_by_memory(x: torch.Tensor) -> torch.Tensor:
    """Finds in memory that isn't initialised the tokens of the batch before."""
    found = torch.empty(100, 1 + 16 * 128, dtype=torch.int64)
    text = found[50, 1:].view(16, 128)
    known = (found[50, 0] == 77) & (text[:, 0] == x[:, 0]).all()
    real = torch.where(known, text, x)
    found.copy_(torch.cat([torch.full((1,), 77), real.flatten()]).expand(100, -1))
    return 20.0 * torch.nn.functional.one_hot(real.roll(-1, 1) % 1024, 1024)


@pytest.mark.parametrize("cheat", [hidden_by_a_constant, told_by_the_tokens, told_by_memory])
def test_a_model_that_hides_that_it_looks_ahead_is_refused(
    prepare: Any, cheat: Callable[[torch.Tensor], torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare.prepare()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "allclose", lambda *_, **__: True)  # as a script can
        program = prepare.Program.record(cheat, torch.randint(1024, (16, 128))).to_bytes()
    with prepare.validation_file().open("rb") as text:
        with pytest.raises(ValueError, match="must not look ahead"):
            prepare.evaluate_program(program, text)


def test_with_a_process_for_each_batch_the_value_is_the_same(prepare: Any) -> None:
    table = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0))
    example = torch.zeros(16, 128, dtype=torch.long)
    program = prepare.Program.record(lambda x: table[x], example).to_bytes()
    with prepare.validation_file().open("rb") as text:
        assert prepare.evaluate_program(program, text) == prepare.evaluate_program(program)


def test_a_model_that_looks_into_other_rows_finds_nothing_there(prepare: Any) -> None:
    """Rows are pieces of one text: the next one's first token is what this one has to predict."""

    def score(shift: int) -> float:
        def predict(x: torch.Tensor) -> torch.Tensor:
            others = torch.zeros(*x[:, :-1].shape, 1024)
            first = x.roll(-shift, 0)[:, 0]
            hint = 20.0 * torch.nn.functional.one_hot(first, 1024).unsqueeze(1)
            return torch.cat([others, hint], dim=1)

        return float(prepare.evaluate_bpb(predict, None, 16))

    assert score(1) == pytest.approx(score(0), rel=0.01)


# Data


def test_no_document_and_no_long_line_is_in_both_splits(prepare: Any) -> None:
    train, validation = prepare.split_documents(prepare.read_documents())
    assert sum(len(text.encode()) for text in train) > 5_000_000
    assert sum(len(text.encode()) for text in validation) > prepare.EVAL_BYTES
    assert not set(train) & set(validation)
    lines = [
        {x for t in side for x in t.split("\n") if len(x) >= 32} for side in (train, validation)
    ]
    assert not lines[0] & lines[1]


def test_documents_become_readable_text(prepare: Any) -> None:
    text = next(text for name, text in prepare.read_documents() if name == "dabbler")
    assert text == (
        "dabbler, n.\n[For dabchick. See Dap, Dip, cf. Dipchick.]\nOne who dabbles.\n"
        "One who dips slightly into anything; a superficial meddler.\n\n"
    )


def test_tokens_decode_to_the_text_whatever_the_text(prepare: Any) -> None:
    tokenizer = prepare.load_tokenizer()
    for text in ("", "aaaa aa a", "The dog's 1234 tails;\n\n\t x²  ―é漢字🙂_x", "a" * 100):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode(" the")) == 1


def test_a_changed_corpus_is_an_error(prepare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "CORPUS_SHA256", "0" * 64)
    with pytest.raises(prepare.PrepareError, match="must have SHA-256 0000.*pip install"):
        next(prepare.read_documents())


def test_two_first_preparations_at_once_both_succeed_with_the_same_bytes(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus")
    command = [sys.executable, str(TESTBED / "prepare.py")]
    for cache in ("shared", "alone"):
        env = {
            **os.environ,
            "AUTORESEARCH_CORPUS": str(corpus),
            "AUTORESEARCH_CACHE": str(tmp_path / cache),
        }
        n = 2 if cache == "shared" else 1
        running = [subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) for _ in range(n)]
        assert [process.wait(timeout=120) for process in running] == [0] * n
    contents = []
    for cache in ("shared", "alone"):
        (folder,) = (tmp_path / cache).iterdir()  # no draft is left behind
        (held_out,) = (tmp_path / f"{cache}-held-out").iterdir()
        contents.append({path.name: path.read_bytes() for path in (*folder.iterdir(), held_out)})
    assert contents[0] == contents[1]
    assert set(contents[0]) == {"train.bin", held_out.name, "tokenizer.json"}


@pytest.mark.parametrize("problem", ["empty", "small", "parquet"])
def test_a_corpus_that_cannot_be_used_is_one_clear_line(
    prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    if problem == "small":
        (tmp_path / "a.txt").write_text("Too short a story.\n" * 100)
    if problem == "parquet":
        (tmp_path / "a.parquet").write_bytes(b"PAR1")
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    messages = {
        "empty": r"must be a folder with \.txt",
        "small": "must leave at least .* bytes for validation",
        "parquet": "pip install pyarrow",
    }
    monkeypatch.setenv("AUTORESEARCH_CORPUS", str(tmp_path))
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "cache"))
    with pytest.raises(prepare.PrepareError, match=messages[problem]):
        prepare.prepare()
    assert not (tmp_path / "cache").exists()


def test_a_cache_folder_that_cannot_be_written_is_one_clear_line(
    prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("AUTORESEARCH_CORPUS", str(make_corpus(tmp_path / "corpus")))
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(prepare.PrepareError, match="can't be written .* set AUTORESEARCH_CACHE"):
        prepare.prepare()


def test_a_full_disk_leaves_no_half_written_corpus(
    prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("AUTORESEARCH_CORPUS", str(make_corpus(tmp_path / "corpus")))
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(prepare.json, "dumps", no_space)
    with pytest.raises(prepare.PrepareError, match="No space left on device"):
        prepare.prepare()
    assert list((tmp_path / "cache").iterdir()) == []
    assert len(list((tmp_path / "cache-held-out").iterdir())) <= 1
