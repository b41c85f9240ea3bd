from __future__ import annotations

import pytest

from objective.testbed.references import References


SCRIPT = """\
import yaml, lib.core
from lib.models import tiny as model
from . import beside
subprocess.run(["python", "tools/export.py", "-m", "lib.main"])
torch.save(model, "best.pt")
open("configs/base.yaml"), open("data/x.csv"), load_all("extra/*_plan.py")
hydra.main(config_name="wide")
"""
FILES = {"train.py": SCRIPT, "configs/base.yaml": "_target_: heads.Linear\n", "no.py": "def ("}


@pytest.mark.parametrize(
    "name",
    [
        *(
            "b.py",
            "best.py",
            "notebooks/eda.py",
            "tests/core_test.py",
            "lib/other.py",
            "tiny/x.py",
        ),
        *(
            "scratch/__init__.py",
            "train_best.py",
            "configs/best.yaml",
            "run.sh",
            "fast.cu",
            "NOTES",
        ),
    ],
)
def test_what_nothing_imports_or_names_can_not_matter(name: str) -> None:
    assert not References.of(FILES).lead_to(name)


@pytest.mark.parametrize(
    "name",
    [
        # Imported, from a folder above it or its own, as a package, or as what is in one.
        *("beside.py", "lib/models/tiny.py", "src/lib/core.py", "lib/__init__.py", "yaml.py"),
        *("lib/core.cpython-310-x86_64-linux-gnu.so", "lib/main.py"),
        # Named.
        *("tools/export.py", "heads.py", "wide.yaml", "my_plan.py", "data/y.csv", "base.yaml"),
        # Imported by somebody else, or read by programs of their own accord.
        *("queue.py", "numpy.py", "pyproject.toml", "sitecustomize.py"),
    ],
)
def test_what_is_imported_or_named_may_matter(name: str) -> None:
    assert References.of(FILES).lead_to(name)


def test_a_word_of_the_command_names_a_file() -> None:
    assert not References.of(FILES).lead_to("more.yaml")
    assert References.of(FILES, ["--config=more.yaml"]).lead_to("more.yaml")
    assert not References.of(FILES, ["*", "--seeds"]).lead_to("b.py"), "a number of arguments"


def test_where_modules_or_files_are_found_by_looking_any_may_matter() -> None:
    plugins = {**FILES, "load.py": "importlib.import_module(f'lib.{name}')"}
    assert References.of(plugins).lead_to("b.py")
    listing = {**FILES, "load.py": "os.listdir('configs')"}
    assert References.of(listing).lead_to("configs/best.yaml")
    assert not References.of(listing).lead_to("b.py")
