"""A package where only Optuna and its requirements are: loaded as a user would, and run.

optunahub fetches packages by git, so a repository of what was built stands in for the registry:

- ``load_module(..., base_url=...)`` takes a file URL. The folder of its cache is named after the
  URL's host, which ``file:///path`` has not; git reads ``file://./path`` as the same folder.
- The README's example and ``example.py`` are run as they are. They fetch from github.com, which
  git's own setting ``url.<base>.insteadOf`` leads to the repository.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import os
from pathlib import Path
import re
import shutil
import subprocess
import sys
import tempfile
import venv


# The slowest asks the embedded model some 70 times: a quarter of an hour on an idle core.
_EXAMPLE_SECONDS = 3600

# What a clean environment must not have, whichever way it would come in.
_NOT_THERE = ("torch", "samplers", "objective", "studies")

_LOAD = """
import importlib.util, sys
import optunahub
package, root, base_url, *not_there = sys.argv[1:]
found = [name for name in not_there if importlib.util.find_spec(name)]
assert not found, f"the environment is not clean: it has {found}"
for module in (
    optunahub.load_local_module(package, registry_root=root),
    optunahub.load_module(package, base_url=base_url),
):
    for name in module.__all__:
        getattr(module, name)
"""


def make_registry(packages: Path, home: Path) -> str:
    """Make a git repository ``home/optuna/optunahub-registry``, and return optunahub's base URL.

    Args:
        packages: A folder of ``<category>/<name>``.
        home: An absolute path.
    """
    repository = home / "optuna" / "optunahub-registry"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(packages, repository / "package", ignore=ignored)
    author = ("-c", "user.name=publish", "-c", "user.email=publish@localhost")
    for arguments in (
        ("init", "-q", "-b", "main"),
        ("add", "--all", "--force"),
        (*author, "-c", "commit.gpgsign=false", "commit", "-q", "-m", "Packages"),
    ):
        subprocess.run(["git", *arguments], cwd=repository, check=True)
    return f"file://.{home}"


def redirect_github(home: Path) -> dict[str, str]:
    """Return variables with which git takes ``home/<owner>/<name>`` for github.com's."""
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{home}/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/",
    }


def readme_example(package: Path) -> str:
    """Return the Python block of the README's section ``## Example``."""
    text = (package / "README.md").read_text(encoding="utf-8")
    block = re.search(r"^## Example$.*?^```python$(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return block[1] if block else "raise SystemExit('## Example has no block of Python')"


def check_in_clean_environment(package: Path, llm: Mapping[str, str]) -> Iterator[str]:
    """Load the package, and run its examples, where only Optuna and its requirements are.

    Args:
        package: ``.../<category>/<name>``.
        llm: Environment variables that tell of a language model. Those of this process are not
            passed on: a check must not spend somebody's money.
    """
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder).resolve()
        venv.create(home / "venv", with_pip=True)
        python = home / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        wanted = ["optuna>=5", "optunahub>=0.5"]
        if (package / "requirements.txt").exists():
            wanted += ["-r", str(package / "requirements.txt")]
        base_url = make_registry(package.parents[1], home / "git")
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "PYTHON"))},
            **redirect_github(home / "git"),
            "OPTUNAHUB_CACHE_HOME": str(home / "cache"),
            **llm,
        }
        name = "/".join(package.parts[-2:])
        for what, arguments in {
            "requirements.txt": ("-m", "pip", "install", "-q", *wanted),
            "loading": ("-c", _LOAD, name, package.parents[1], base_url, *_NOT_THERE),
            "the README's example": ("-c", readme_example(package)),
            "example.py": (package / "example.py",),
        }.items():
            try:
                done = subprocess.run(
                    [python, *arguments],
                    capture_output=True,
                    text=True,
                    cwd=home,
                    env=environment,
                    timeout=_EXAMPLE_SECONDS,
                )
            except subprocess.TimeoutExpired:
                yield f"In a clean environment, {what} takes more than {_EXAMPLE_SECONDS} seconds."
                return
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no output"])[-1]
                yield f"In a clean environment, {what} fails: {last}"
                return
