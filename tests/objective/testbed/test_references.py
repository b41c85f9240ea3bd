from __future__ import annotations

import sysconfig

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
FILES = {
    "train.py": SCRIPT,
    "configs/base.yaml": "_target_: heads.Linear\nplot: true\n",
    "README.md": "scratch and os.listdir, import_module",
    "no.py": "def (",
}
PACKAGES = [sysconfig.get_path("purelib")]


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
        *("scratch.py", "plot.py", "configs.best.yaml", "old/profile.py", "old/numpy/__init__.py"),
        # Words of the code: a variable, an attribute, a keyword, part of what is imported.
        *("model.py", "core.py", "best_train.py", "config_name.yaml", "model_plan.yaml"),
    ],
)
def test_what_nothing_imports_or_names_can_not_matter(name: str) -> None:
    assert not References.of(FILES, packages=PACKAGES).lead_to(name)


@pytest.mark.parametrize(
    "name",
    [
        # Imported, from a folder above it or its own, as a package, or as what is in one.
        *("beside.py", "lib/models/tiny.py", "src/lib/core.py", "lib/__init__.py", "yaml.py"),
        *("lib/core.cpython-310-x86_64-linux-gnu.so", "lib/main.py"),
        # Named.
        *("tools/export.py", "heads.py", "wide.yaml", "my_plan.py", "data/y.csv", "base.yaml"),
        # Imported by somebody else, or read by programs of their own accord.
        *("queue.py", "numpy.py", "yaml/__init__.py", "pyproject.toml", "sitecustomize.py"),
        *(".env", "lib/.env"),
    ],
)
def test_what_is_imported_or_named_may_matter(name: str) -> None:
    assert References.of(FILES, packages=PACKAGES).lead_to(name)


def test_a_word_of_the_command_names_a_file() -> None:
    assert not References.of(FILES).lead_to("more.yaml")
    assert References.of(FILES, ["--config=more.yaml"]).lead_to("more.yaml")
    assert not References.of(FILES, ["*", "--seeds"]).lead_to("b.py"), "a number of arguments"


def test_where_modules_or_files_are_found_by_looking_any_may_matter() -> None:
    plugins = {**FILES, "load.py": "importlib.import_module(f'lib.{name}')"}
    assert References.of(plugins).lead_to("b.py")
    listing = {**FILES, "load.py": "os.listdir('configs')"}
    for name in ("configs/best.yaml", "part_2.csv", "extra.yaml"):
        assert References.of(listing).lead_to(name)
    assert not References.of(listing).lead_to("b.py")
    package = {**FILES, "lib/__init__.py": "for f in os.listdir(HERE):\n    exec(f)\n"}
    assert References.of(package).lead_to("lib/big.py")


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("path = f'weights_{NAME}.json'", "weights_base.json"),
        ("path = 'stats_' + NAME + '.npz'", "stats_base.npz"),
        ("path = 'part_{}.csv'.format(1)", "part_1.csv"),
        ("rows = read('*.csv')", "more.csv"),
        ("rows = read('my data.csv')", "my data.csv"),
    ],
)
def test_what_a_computed_name_may_be_may_matter(line: str, name: str) -> None:
    files = References.of({"train.py": line})
    assert files.lead_to(name)
    assert not files.lead_to("best.txt") and not files.lead_to("best_train.py")


def test_what_a_package_says_of_itself_may_be_a_module() -> None:
    files = {"train.py": "from models import *", "models/__init__.py": "__all__ = ['small']"}
    assert References.of(files).lead_to("models/small.py")
    assert not References.of(files).lead_to("models/best.py")


@pytest.mark.parametrize("script", ["train.bash", "train"])
def test_the_script_counts_whatever_its_ending(script: str) -> None:
    files = {script: "python -m extra && cat more.yaml"}
    assert References.of(files, script=script).lead_to("more.yaml")
    assert References.of(files, script=script).lead_to("extra.py")
