from __future__ import annotations

from collections.abc import Callable
import os
from pathlib import Path
import shutil
import subprocess
import sys

import pytest

from objective.testbed.files import Files
from objective.testbed.source import TestbedError
from tests.toy_testbed import write_testbed


def put(folder: Path, names: str, text: str = "") -> None:
    for name in names.split():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def laid_out(files: Files, target: Path) -> set[str]:
    """Lay the files out and return the names of what is there; a link's ends with ``@``."""
    target.mkdir()
    files.lay_out(target)
    found = set()
    for folder, folders, names in os.walk(target):
        for name in (*folders, *names):
            path = Path(folder, name)
            if path.is_symlink() or path.is_file():
                found.add(str(path.relative_to(target)) + "@" * path.is_symlink())
    return found


@pytest.fixture
def git(tmp_path: Path) -> Callable[..., None]:
    """Run git in the temporary folder."""

    def run(*words: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)

    return run


def test_without_git_all_is_copied_but_what_no_script_reads(tmp_path: Path) -> None:
    bed = write_testbed(tmp_path / "bed", "LR = 1\n")
    put(bed, "config.json data/a.csv src/pkg/m.py names/b.py __init__.py")
    put(bed, ".env .git/config old.db my-artifacts/x __pycache__/m.pyc venv/pyvenv.cfg best.pt")
    files = Files.of(bed)
    assert (files.root, files.folder, files.paths) == (bed, Path("."), ())
    kept = {"config.json", "data/a.csv", "src/pkg/m.py", "names/b.py"}
    assert laid_out(files, tmp_path / "trial") == kept


def test_checkpoints_that_a_script_would_go_on_from_are_not_there(tmp_path: Path) -> None:
    bed = write_testbed(tmp_path / "bed", "LR = 1\nout = ['runs', 'checkpoint-9']\n")
    put(bed, "runs/tf/checkpoint runs/tf/ckpt-1.index runs/tf/ckpt-1.data-00000-of-00001")
    put(bed, "runs/flax/checkpoint_50 runs/checkpoint-500/pytorch_model.bin")
    kept = "runs/words.index base/pytorch_model.bin checkpoint/core.py checkpoint-9/config.json"
    put(bed, kept)
    assert laid_out(Files.of(bed), tmp_path / "trial") == set(kept.split())
    added = laid_out(Files.of(bed, ["runs/checkpoint-500"]), tmp_path / "another")
    assert added == {*kept.split(), "runs/checkpoint-500/pytorch_model.bin"}


def test_what_is_large_is_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("objective.testbed.files._LARGE_BYTES", 10)
    monkeypatch.setattr("objective.testbed.files._MANY_FILES", 3)
    bed = write_testbed(tmp_path / "bed", "LR = 1\n")
    put(bed, "large.bin some/large.npy", "x" * 11)
    put(bed, "some/a some/b images/1 images/2 images/more/3 images/more/4")
    (bed / "data").symlink_to(bed / "images")
    put(bed, "best.pt", "x" * 11)
    expected = {"large.bin@", "some/large.npy@", "some/a", "some/b", "images@", "data@"}
    assert laid_out(Files.of(bed), tmp_path / "trial") == expected
    assert (tmp_path / "trial" / "large.bin").read_text() == "x" * 11
    added = laid_out(Files.of(bed, ["best.pt"]), tmp_path / "another")
    assert added == {*expected, "best.pt@"}


def test_many_middling_files_are_links_and_count_as_the_copies_that_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed = write_testbed(tmp_path / "bed", "LR = 1\nopen('data/a.bin')\n")
    put(bed, "data/a.bin data/deep/b.bin data/m.py few/c.bin", "x" * 20)
    put(bed, "data/small.csv")
    put(bed, "d.bin e.bin", "x" * 20)
    monkeypatch.setattr("objective.testbed.files._SMALL_BYTES", 10)
    before = Files.of(bed).fingerprints()
    monkeypatch.setattr("objective.testbed.files._FOLDER_BYTES", 30)
    files = Files.of(bed)
    others = {"data/m.py", "few/c.bin", "data/small.csv", "d.bin", "e.bin"}
    linked = {"data/a.bin@", "data/deep/b.bin@"}
    assert laid_out(files, tmp_path / "trial") == {*others, *linked}
    assert files.fingerprints() == before
    files.lay_out(tmp_path / "sandboxed", sandboxed=True)
    assert not (tmp_path / "sandboxed" / "data" / "a.bin").is_symlink()


def test_in_a_checkout_it_is_what_git_tracks_and_what_the_script_names(
    tmp_path: Path, git: Callable[..., None]
) -> None:
    git("init")
    train = "import new\nopen('data/a.csv'), open('seen.json')\nLR = 1\n"
    write_testbed(tmp_path, train)
    put(tmp_path, "tracked.yaml data/a.csv data/b.csv seen.json unseen.json out/x.bin pkg/p.py")
    put(tmp_path, ".root .lint.yaml .gitattributes .env .env.local")
    (tmp_path / ".gitignore").write_text("data\nseen.json\nunseen.json\nout\n")
    git("add", ".")
    put(tmp_path, "new.py results.tsv .untracked")
    trial = tmp_path.with_name(f"{tmp_path.name}-trial")
    kept = {"tracked.yaml", "data/a.csv", "seen.json", "pkg/p.py", "new.py"}
    files = Files.of(tmp_path)
    assert laid_out(files, trial) == {*kept, ".root", ".lint.yaml"}
    assert files.fingerprints().keys() == kept
    assert ".root" in Files.of(tmp_path, texts=[".root"]).fingerprints()


def test_what_is_edited_meanwhile_is_laid_out_as_it_was(tmp_path: Path) -> None:
    bed = write_testbed(tmp_path / "bed", "import helper\nLR = 1\n", "T = 1\n")
    put(bed, "helper.py conf.json run.sh pkg/m.py", "before")
    (bed / "run.sh").chmod(0o755)
    files = Files.of(bed)
    before = files.fingerprints()
    put(bed, "helper.py conf.json prepare.py", "after")
    (bed / "run.sh").unlink()
    shutil.rmtree(bed / "pkg")
    expected = {"helper.py", "conf.json", "run.sh", "pkg/m.py", "prepare.py"}
    assert laid_out(files, tmp_path / "trial") == expected
    texts = {name: (tmp_path / "trial" / name).read_text() for name in expected}
    assert texts == {**dict.fromkeys(expected, "before"), "prepare.py": "T = 1\n"}
    assert os.access(tmp_path / "trial" / "run.sh", os.X_OK)
    assert files.fingerprints() == before != Files.of(bed).fingerprints()


def test_what_the_user_adds_is_there(tmp_path: Path, git: Callable[..., None]) -> None:
    git("init")
    bed = write_testbed(tmp_path / "bed", "LR = 1\n")
    put(tmp_path, "bed/data/a.csv bed/data/b.txt shared/c.csv bed/e.bin")
    git("add", "bed/train.py")
    files = Files.of(bed, ["data/*.csv", "../shared", "e.bin"])
    assert laid_out(files, tmp_path / "trial") == {"bed/data/a.csv", "shared/c.csv", "bed/e.bin"}
    with pytest.raises(TestbedError, match="2 problems.*'nothing\\*'.*'/etc'"):
        Files.of(bed, ["nothing*", "/etc"])


def test_what_lies_beside_a_configuration_above_is_there_too(tmp_path: Path) -> None:
    bed = write_testbed(tmp_path / "src" / "bed", "LR = 1\n")
    put(tmp_path, "configs/base.yaml configs/model/big.yaml configs/data.yaml other/x.py")
    kept = {"configs/base.yaml", "configs/model@", "configs/data.yaml@", "other@"}
    files = Files.of(bed, config="../../configs/base.yaml")
    assert laid_out(files, tmp_path.with_name(f"{tmp_path.name}-trial")) == kept
    assert files.fingerprints().keys() == {"../../configs/base.yaml"}
    both = Files.of(bed, ["../../configs"], config="../../configs/base.yaml")
    copied = {name.removesuffix("@") for name in kept if "configs" in name and "model" not in name}
    found = laid_out(both, tmp_path.with_name(f"{tmp_path.name}-both"))
    assert found == {*copied, "configs/model/big.yaml", "other@"}


def test_what_lies_beside_a_file_of_data_is_not(tmp_path: Path) -> None:
    bed = write_testbed(tmp_path / "bed", "LR = 1\n")
    put(tmp_path, "data/1.bin data/2.bin")
    files = Files.of(bed, ["../data/1.bin"])
    assert laid_out(files, tmp_path.with_name(f"{tmp_path.name}-trial")) == {"data/1.bin"}


def test_packages_in_src_and_above_are_found_and_the_rest_is_linked(
    tmp_path: Path, git: Callable[..., None]
) -> None:
    git("init")
    bed = write_testbed(
        tmp_path / "experiments" / "one", "import pkg, above, top, here, json\nLR = 1\n"
    )
    put(bed, "src/pkg/m.py here.py")
    put(tmp_path, "experiments/above/__init__.py src/top/__init__.py json.py here.py data/x.csv")
    put(tmp_path, ".root .env .untracked")
    git("add", ".root", ".env")
    files = Files.of(bed)
    assert (files.root, files.folder) == (tmp_path, Path("experiments/one"))
    assert list(map(str, files.paths)) == ["experiments/one/src", "experiments", "src"]
    trial = tmp_path.with_name(f"{tmp_path.name}-trial")
    assert laid_out(files, trial) == {
        "experiments/one/src/pkg/m.py",
        "experiments/one/here.py",
        "experiments/above/__init__.py",
        "src/top/__init__.py",
        ".root@",
        "json.py@",
        "here.py@",
        "data@",
    }
    paths = os.pathsep.join(files.python_path(trial))
    subprocess.run(
        [sys.executable, "-c", "import pkg.m, above, top, json; json.dumps"],
        env={**os.environ, "PYTHONPATH": paths},
        check=True,
    )


def test_one_folder_up_counts_without_git_only_if_it_is_used(tmp_path: Path) -> None:
    bed = write_testbed(tmp_path / "bed", "LR = 1\n")
    put(tmp_path, "pkg/__init__.py data.csv")
    assert Files.of(bed).root == bed
    for line in ("import pkg\n", "open('../data.csv')\n"):
        (bed / "train.py").write_text(line)
        files = Files.of(bed)
        assert (files.root, files.folder) == (tmp_path, Path("bed"))
        assert Files.of(bed, alone=True).root == bed


def test_fingerprints_are_of_what_decides_a_value(tmp_path: Path) -> None:
    bed = write_testbed(tmp_path / "bed", "import up\nLR = 1\nopen('./data.csv')\n", "T = 1\n")
    put(bed, "helper.py pkg/train.py data.csv README.md results.tsv search_space.toml")
    put(tmp_path, "up.py unused/x.py")
    before = Files.of(bed).fingerprints()
    assert before.keys() == {"helper.py", "pkg/train.py", "data.csv", "../up.py"}
    put(bed, "pkg/train.py README.md train.py", "changed = 1\n")
    after = Files.of(bed).fingerprints()
    assert {name for name in before if after.get(name) != before[name]} == {
        "pkg/train.py",
        "../up.py",  # no longer imported
        "data.csv",  # no longer named
    }


def test_what_nothing_names_may_be_output_where_git_tracks_nothing(
    tmp_path: Path, git: Callable[..., None]
) -> None:
    source = "LR = 1\nopen('in/' + str(LR))\nglob('*.npy')\n"
    bed = write_testbed(tmp_path / "bed", source, "T = 1\n")
    put(bed, "in/deep/a.csv b.npy conf.yaml c.txt d.txt extra/e.csv")
    put(bed, "helper.py", "open('./d.txt')\n")
    before = Files.of(bed, ["extra"]).fingerprints()
    named = {"in/deep/a.csv", "b.npy", "d.txt", "extra/e.csv"}
    assert before.keys() == {*named, "conf.yaml", "helper.py"}
    put(bed, "run.out autoresearch.db.claim report/report.html report/x.npy c.txt", "new")
    files = Files.of(bed, ["extra"])
    assert files.fingerprints() == before
    assert {"run.out", "c.txt"} <= {path.name for path in files.copies}
    assert "autoresearch.db.claim" not in {path.name for path in files.copies}
    git("init")
    git("add", ".")
    assert {"c.txt", "run.out"} <= Files.of(bed).fingerprints().keys()
