"""The files that a training sees: which of them are copied, which are links, and what they hold.

A trial runs in a folder of its own, so that trainings side by side don't disturb one another and
what they write doesn't lie about. It holds, beside the script:

- in a git checkout, the files that git tracks (hidden ones, too, but for git's own and ``.env``),
  and Python files that it doesn't track yet; elsewhere
  all files but hidden ones, databases, logs, caches, checkpoints and virtual environments;
- what a string in the script, ``prepare.py`` or the configuration file, or a word of the command
  names, as data that git ignores is;
- the configuration file, and what the user adds (``copy``).

Code, and other files up to 100 KB, are read once: a study that goes on for a night while its user
edits them tunes one program. Files beyond 10 MB, other files of a folder with more than 100 MB of
them, folders of more than 1,000 files and links to folders are links to the original,
which a script can write to; so a model's weights, which the script may have saved itself, are there
only if git tracks them or the user adds them. Above the testbed, up to the top of its checkout (without git: one
folder, if something in it is imported or named), packages that the scripts import are copied, and
the rest is linked, of hidden files what git tracks. What an import would find only in a ``src`` folder or further up is put on
``PYTHONPATH``.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
import hashlib
import os
from pathlib import Path
import re
import shutil
import stat
import subprocess
import sys

from objective.testbed.source import parsed
from objective.testbed.source import TestbedError


PREPARE = "prepare.py"

_LARGE_BYTES = 10 * 2**20
_SMALL_BYTES = 100_000
_FOLDER_BYTES = 100 * 2**20
_MANY_FILES = 1000
_GIT_SECONDS = 30.0
_WEIGHTS = (".pt", ".pth", ".ckpt", ".safetensors", ".h5", ".keras", ".onnx")
_CHECKPOINT = re.compile(r"checkpoint[-_]\d+|.+\.data-\d{5}-of-\d{5}")
_OUTPUT = (
    *(".db", ".db-journal", ".db-wal", ".db-shm", ".sqlite", ".sqlite3", ".claim"),
    *(".log", ".pyc"),
)
_OUTPUT_FOLDERS = ("__pycache__", "node_modules", "wandb", "mlruns")
_ARTIFACTS = "-artifacts"  # of a study that is stored beside the script
_PRIVATE = (".git", ".env")  # git's own files, and keys
# Code and configurations: inputs also where git doesn't say so, and no script names them.
CODE = (
    *(".py", ".pyx", ".so", ".pyd", ".c", ".cc", ".cpp", ".h", ".cu", ".cuh"),
    *(".sh", ".r", ".jl", ".js", ".lua", ".yaml", ".yml", ".toml", ".ini", ".cfg"),
)
# Files that decide no trial's value, so that a study goes on when they were changed.
_NO_INPUT = (".md", ".rst", ".ipynb", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".pdf", ".lock")
# What the study's other fingerprints cover, and what agents write.
_NO_INPUTS = ("results.tsv", "search_space.toml", PREPARE)


@dataclass(frozen=True)
class Files:
    """The files of a testbed, as paths relative to ``root``.

    Attributes:
        root: The folder that is reproduced: the testbed's, or one above it.
        folder: The testbed's folder in it.
        copies: Files that are copied.
        links: Files and folders that become links.
        paths: Folders for PYTHONPATH.
        cwd: Working directory.
        unnamed: Those of copies and links that decide nothing or may be output: no script or option
            names them, and they are hidden, or no code and not tracked by git.
        read: What is in the copies that may be edited meanwhile, and their modes.
        heavy: Those of the copies that together are too much to copy for every trial.
    """

    root: Path
    folder: Path
    copies: tuple[Path, ...]
    links: tuple[Path, ...]
    paths: tuple[Path, ...] = ()
    cwd: Path = Path()
    unnamed: frozenset[Path] = frozenset()
    read: Mapping[Path, tuple[bytes, int]] = field(default_factory=dict, repr=False)
    heavy: frozenset[Path] = frozenset()

    @classmethod
    def of(
        cls,
        testbed: Path,
        extra: Sequence[str] = (),
        *,
        config: str | None = None,
        cwd: str | None = None,
        alone: bool = False,
        texts: Sequence[str] = (),
        script: str = "train.py",
    ) -> Files:
        """Find the files of a testbed.

        Args:
            testbed: Its folder.
            extra: Further files, folders or patterns (``data/*.csv``), seen from the folder.
            config: The configuration file, beside which there may be others that it refers to.
            cwd: Working directory, seen from the folder; None is the folder.
            alone: Nothing above the folder belongs to it.
            texts: What may name files, beside the strings in the scripts.
            script: Path of the script in the folder.

        Raises:
            TestbedError: If one of the extra files matches nothing, or the working directory isn't
                there.
        """
        names, found_texts = imports_and_texts(testbed, (script, PREPARE))
        texts = [*found_texts, *texts]
        top = None if alone else _git_top(testbed)
        chosen, is_tracked = _beside(testbed, top is not None)
        chosen += [p for p in map(testbed.joinpath, texts) if _is_inside(p, testbed)]
        settings = [] if config is None else _matches(testbed, [config])
        added = [*_matches(testbed, extra), *settings]
        chosen += added
        paths: dict[Path, None] = {}
        root = testbed if top is None else top
        places = [p for level in _levels(testbed, top, alone) for p in (level, level / "src")]
        for name in names:
            found, place = next(
                ((m, p) for p in places if (m := _modules(p, name))), ([], testbed)
            )
            chosen += found
            if place != testbed:
                paths[place] = None
        if not alone and any(
            text.startswith("../") and (testbed / text).exists() for text in texts
        ):
            root = min(root, testbed.parent, key=lambda path: len(path.parts))
        place = Path(os.path.normpath(testbed / (cwd or ".")))
        if not place.is_dir():
            raise TestbedError(
                f"--cwd must be a folder as it is seen from {testbed}, but got {cwd!r}."
            )
        for path in (place, *chosen):
            while not path.is_relative_to(root):
                root = root.parent
        copies: dict[Path, None] = {}
        links: dict[Path, None] = {}
        for path in chosen:
            _sort(path, copies, links)
        links |= dict.fromkeys(_surroundings(testbed, root, chosen, settings))
        for kept in (copies, links):
            kept.pop(testbed / script, None)
            kept.pop(testbed / "__init__.py", None)
        unsure = [p for p in (*copies, *links) if not is_tracked or p.name.startswith(".")]
        unnamed = _unnamed(testbed, unsure, texts, added)
        read = {
            path: (path.read_bytes(), path.stat().st_mode)
            for path in copies
            if path.suffix.lower() in CODE or path.stat().st_size <= _SMALL_BYTES
        }
        heavy = _heavy(testbed, [path for path in copies if path not in read])
        outermost = [p for p in sorted(links) if links.keys().isdisjoint(p.parents)]

        def seen(found: Iterable[Path]) -> tuple[Path, ...]:
            return tuple(path.relative_to(root) for path in found)

        return cls(
            root,
            testbed.relative_to(root),
            seen(sorted(copies)),
            seen(outermost),
            seen(paths),
            place.relative_to(root),
            frozenset(seen(unnamed)),
            dict(zip(seen(read), read.values())),
            frozenset(seen(heavy)),
        )

    def lay_out(self, target: Path, *, sandboxed: bool = False) -> Path:
        """Make the files below an existing folder, and return the testbed's folder in it.

        Args:
            target: The folder.
            sandboxed: For a sandbox, which would have to show what each link leads to, no file in
                the testbed's folder is a link for being one of many.

        Raises:
            OSError: If one can't be copied.
        """
        (target / self.folder).mkdir(parents=True, exist_ok=True)
        for path in self.copies:
            if any(link in self.links for link in path.parents):
                continue
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            if path in self.read:
                content, mode = self.read[path]
                (target / path).write_bytes(content)
                (target / path).chmod(stat.S_IMODE(mode))
            elif path in self.heavy and not sandboxed:
                (target / path).symlink_to(self.root / path)
            else:
                shutil.copyfile(self.root / path, target / path)
                shutil.copymode(self.root / path, target / path)
        for path in self.links:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).symlink_to(self.root / path)
        (target / self.cwd).mkdir(parents=True, exist_ok=True)
        return target / self.folder

    def left_out(self, text: str) -> list[str]:
        """Return what a text names that lies beside the script, but git doesn't track.

        So it isn't there for a training. Empty folders, weights and the like don't count.
        """
        folder = self.root / self.folder
        given = (*self.links, *self.copies)
        there = {level for path in given for level in (path, *path.parents)}
        others = [
            path
            for path in sorted(folder.iterdir())
            if self.folder / path.name not in there
            and path.suffix != ".py"  # the script
            and not _is_ignored(path)
        ]
        names = "|".join(re.escape(path.name) for path in others)
        named = re.findall(rf"(?m)(?:[\"'/]|: *)({names})(?:[\"'/]|\s*$)", text) if names else []
        return [
            path.name
            for path in others
            if path.name in named and (path.is_file() or (path.is_dir() and _files(path) != []))
        ]

    def python_path(self, target: Path) -> list[str]:
        """Return the folders for PYTHONPATH, where the files were laid out."""
        return [str(target / path) for path in self.paths]

    def texts(self) -> dict[str, str]:
        """Return what the small copies hold, by the names of `fingerprints`."""
        found = self.read.items()
        return {
            _name(p, self.folder): content.decode("utf-8", "replace") for p, (content, _) in found
        }

    def fingerprints(self) -> dict[str, str]:
        """Return a hash of what each file holds that may decide a trial's value, by its name.

        Of a large file it is its size. The script isn't among them, nor are documents and what may
        be output.
        """
        prints = {}
        others = {*self.unnamed, *(self.folder / name for name in _NO_INPUTS)}
        for path in self.copies:
            if path.suffix not in _NO_INPUT and path not in others:
                read = self.read.get(path)
                content = (self.root / path).read_bytes() if read is None else read[0]
                prints[_name(path, self.folder)] = hashlib.sha256(content).hexdigest()[:12]
        for path in self.links:
            original = self.root / path
            if original.is_file() and path.is_relative_to(self.folder) and path not in others:
                prints[_name(path, self.folder)] = f"{original.stat().st_size} bytes"
        return prints


def _name(path: Path, folder: Path) -> str:
    """Return a file's path as seen from the testbed's folder."""
    return os.path.relpath(path, folder).replace(os.sep, "/")


def imports_and_texts(testbed: Path, scripts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the top-level names that the scripts import, and the texts that may name a file."""
    names: dict[str, None] = {}
    texts: dict[str, None] = {}
    for script in scripts:
        try:
            tree = parsed((testbed / script).read_bytes())
        except (OSError, ValueError, SyntaxError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= dict.fromkeys(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names[node.module.partition(".")[0]] = None
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                if 0 < len(node.value) < 256 and node.value.isprintable():
                    texts[node.value] = None
    return [name for name in names if name not in sys.stdlib_module_names], list(texts)


def _is_inside(path: Path, testbed: Path) -> bool:
    """Return whether a text of the script names something below the testbed's folder."""
    try:
        inside = Path(os.path.normpath(path)) != testbed and path.exists()
    except (OSError, ValueError):  # too long, say
        return False
    return (
        inside
        and Path(os.path.normpath(path)).is_relative_to(testbed)
        and path.suffix not in _WEIGHTS
    )


def _unnamed(
    testbed: Path, paths: Sequence[Path], texts: Collection[str], added: Collection[Path]
) -> Iterator[Path]:
    """Yield the files below the testbed's folder that are no code, or hidden, and nothing names."""
    modules = [str(path) for path in paths if path.suffix == ".py"]
    words = {*texts, *imports_and_texts(testbed, modules)[1]}
    words |= {os.path.normpath(word) for word in words}
    patterns = [Path(word) for word in words if "*" in word]
    for path in paths:
        is_code = path.suffix.lower() in CODE and not path.name.startswith(".")
        if is_code or not path.is_relative_to(testbed):
            continue
        name = path.relative_to(testbed)
        is_named = (
            not words.isdisjoint((str(name), *name.parts))
            or any(len(p.parts) == len(name.parts) and name.match(str(p)) for p in patterns)
            or not {path, *path.parents}.isdisjoint(added)
        )
        if not is_named:
            yield path


def _heavy(testbed: Path, paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the files of those folders beside the script of which there are too many megabytes.

    Links to the files, not to the folder: what a script writes there anew stays its trial's own.
    """
    folders: dict[str, list[Path]] = {}
    for path in paths:
        if path.is_relative_to(testbed) and path.parent != testbed:
            folders.setdefault(path.relative_to(testbed).parts[0], []).append(path)
    for files in folders.values():
        if sum(path.stat().st_size for path in files) > _FOLDER_BYTES:
            yield from files


def _beside(testbed: Path, in_git: bool) -> tuple[list[Path], bool]:
    """Return the files and folders beside the script that belong to it, and whether git says so."""
    entries = [path for path in sorted(testbed.iterdir()) if not _is_ignored(path)]
    if not in_git:
        return entries, False
    tracked = _git(testbed, "ls-files", "-z", "--cached")
    new = _git(testbed, "ls-files", "-z", "--others", "--exclude-standard")
    listed = [*tracked, *(name for name in new if name.endswith(".py"))]
    # The folder may be ignored by the git around it; then there is nothing that it tracks.
    if not listed:
        return entries, False
    counts = Counter(name.partition("/")[0] for name in listed)
    many = {name for name, count in counts.items() if count > _MANY_FILES}
    files = [testbed / name for name in listed if name.partition("/")[0] not in many]
    modules = [p for p in entries if p.suffix == ".py" or (p / "__init__.py").is_file()]
    belong = [
        *(path for path in files if path.exists() and not path.name.startswith(_PRIVATE)),
        *modules,
        *(testbed / name for name in many),
    ]
    return belong, True


def _is_ignored(path: Path) -> bool:
    return (
        path.name.startswith(".")
        or path.name.endswith((*_OUTPUT, *_WEIGHTS, _ARTIFACTS))
        or _is_checkpoint(path)
        or path.name in _OUTPUT_FOLDERS
        or (path / "pyvenv.cfg").exists()
    )


def _is_checkpoint(path: Path) -> bool:
    """Return whether it is what TensorFlow, Flax or Hugging Face's trainer would go on from."""
    name = path.name
    return (
        _CHECKPOINT.fullmatch(name) is not None
        or (name == "checkpoint" and path.is_file())  # a folder may be a package
        or (name.endswith(".index") and path.with_suffix(".data-00000-of-00001").exists())
    )


def _matches(testbed: Path, patterns: Sequence[str]) -> list[Path]:
    found: list[Path] = []
    problems = []
    for pattern in patterns:
        if not pattern or os.path.isabs(pattern):
            matches = []
        elif (testbed / pattern).exists():
            matches = [Path(os.path.normpath(testbed / pattern))]
        else:
            matches = [Path(os.path.normpath(path)) for path in testbed.glob(pattern)]
        if not matches:
            problems.append(
                "--copy must name files or folders as they are seen from the testbed's folder,"
                f" but {pattern!r} matches nothing in {testbed}."
            )
        found += matches
    if problems:
        raise TestbedError.of(problems)
    return found


def _levels(testbed: Path, top: Path | None, alone: bool) -> list[Path]:
    """Return the testbed's folder and those above it that may hold what it imports."""
    if alone:
        return [testbed]
    if top is None:
        return [testbed, testbed.parent]
    return [p for p in (testbed, *testbed.parents) if p.is_relative_to(top)]


def _modules(place: Path, name: str) -> list[Path]:
    """Return the module or package of this name in a folder."""
    if (place / f"{name}.py").is_file():
        return [place / f"{name}.py"]
    package = place / name
    try:
        is_package = (package / "__init__.py").is_file() or (
            package.is_dir() and any(package.glob("*.py"))
        )
    except OSError:
        return []
    return [package] if is_package else []


def _surroundings(
    testbed: Path, root: Path, chosen: Iterable[Path], settings: Iterable[Path]
) -> Iterator[Path]:
    """Yield what lies beside the folders that lead from the root to the testbed, and settings."""
    wholly = set(chosen)
    inside = wholly.union(*(path.parents for path in wholly))
    levels = dict.fromkeys(level for path in (testbed, *settings) for level in path.parents)
    for level in levels:
        is_chosen = not {testbed, *wholly}.isdisjoint((level, *level.parents))
        if is_chosen or not level.is_relative_to(root):
            continue
        entries = sorted(level.iterdir())
        hidden = [p.name for p in entries if p.name.startswith(".")]
        tracked = _git(level, "ls-files", "-z", "--", *hidden) if hidden else []
        kept = {level / name for name in tracked if not name.startswith(_PRIVATE)}
        for path in entries:
            if path not in inside and not testbed.is_relative_to(path):
                if (path in kept or not _is_ignored(path)) and path.exists():
                    yield path


def _sort(path: Path, copies: dict[Path, None], links: dict[Path, None]) -> None:
    """Put a file, or the files of a folder, to the copies or the links."""
    if path.is_dir():
        files = None if path.is_symlink() else _files(path)
        if files is None:
            links[path] = None
        else:
            for file in files:
                _sort(file, copies, links)
    elif path.is_file():  # no dangling link, no pipe
        (links if path.stat().st_size > _LARGE_BYTES else copies)[path] = None


def _files(folder: Path) -> list[Path] | None:
    """Return the files below a folder and the links to folders in it; None if they are many."""
    found: list[Path] = []
    folders = [folder]
    while folders:
        for path in sorted(folders.pop().iterdir()):
            if _is_ignored(path):
                continue
            if path.is_dir() and not path.is_symlink():
                folders.append(path)
            else:
                found.append(path)
        if len(found) + len(folders) > _MANY_FILES:
            return None
    return found


def _git_top(testbed: Path) -> Path | None:
    """Return the top of the checkout that the folder is in; None if there is none."""
    top = _git(testbed, "rev-parse", "--show-toplevel", end="\n")
    return Path(top[0]) if top and testbed.is_relative_to(top[0]) else None


def _git(folder: Path, *words: str, end: str = "\0") -> list[str]:
    """Return the items that git prints; none if it fails, or there is no git."""
    # Nothing that a checkout's configuration names is to be run.
    options = ("-c", "core.fsmonitor=false")
    try:
        done = subprocess.run(
            ["git", *options, "-C", str(folder), *words],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [item for item in os.fsdecode(done.stdout).split(end) if item]
