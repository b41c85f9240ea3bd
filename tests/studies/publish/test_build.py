"""Packages are self-contained and the same bytes every time."""

from __future__ import annotations

from pathlib import Path

import pytest

from studies.publish.build import BENCHMARK
from studies.publish.build import build_package
from studies.publish.build import PublishError
from studies.publish.build import relative_imports
from studies.publish.build import sources


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_only_the_shared_modules_that_are_reached_are_vendored(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name, text in {
        "_llm/__init__.py": '"""Asking.\n\nMore."""\n\nfrom .c import C\n',
        "_llm/a.py": "from .b import B\nfrom .._trials import history\n",
        "_llm/b.py": "B = 1\n",
        "_llm/c.py": "",
        "_trials/history.py": "try:\n    from samplers._llm.c import C\nexcept ImportError:\n    C = 0\n",
        "_trials/table.txt": "$rows",
        "_other/__init__.py": "",
        "_other/d.py": "",
        "_other/d.txt": "",
        "one/c.py": "",
        "one/sampler.py": "from .._llm.a import A\nfrom .c import C\n",
    }.items():
        path = root / "samplers" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (source,) = (each for each in sources(root) if each.package == "samplers/one")
    package = build_package(source, tmp_path / "dist", root)
    assert sorted(tree(package)) == [
        "_llm/__init__.py",
        "_llm/a.py",
        "_llm/b.py",
        "_trials/history.py",
        "_trials/table.txt",
        "c.py",
        "sampler.py",
    ]
    assert (package / "sampler.py").read_text() == "from ._llm.a import A\nfrom .c import C\n"
    assert (package / "_llm" / "__init__.py").read_bytes() == b""
    for name in ("_llm/a.py", "_trials/history.py"):
        assert (package / name).read_bytes() == (root / "samplers" / name).read_bytes()


def test_the_benchmark_has_what_it_starts_and_reads_but_no_sandbox(tmp_path: Path) -> None:
    (source,) = (each for each in sources() if each.folder == BENCHMARK)
    files = tree(build_package(source, tmp_path))
    own = "_objective/testbed/embedded"
    assert {f"{own}/train.py", f"{own}/prepare.py", f"{own}/search_space.toml"} <= files.keys()
    assert "_objective/run/launch.py" in files
    assert not [name for name in files if "sandbox" in name or "confine" in name]


def test_a_sampler_has_no_model_server(tmp_path: Path) -> None:
    source = next(each for each in sources() if each.folder == "samplers/karpathy_agent")
    files = tree(build_package(source, tmp_path))
    assert "_llm/openai_chat.py" in files and "prompt.txt" in files
    assert not {"_llm/embedded.py", "_llm/local_http.py", "_llm/schema_regex.py"} & files.keys()


@pytest.mark.parametrize(
    "line",
    [
        "from ..other import x",
        "from ....other import x",
        "from .._llm.nowhere import x",
        "from samplers.other import x",
        "from objective import y",
        "from objective.run.script import y",
        "import objective.run.script",
    ],
)
def test_an_import_that_cannot_be_published_is_named_by_file_and_line(line: str) -> None:
    one = Path("samplers/one")
    with pytest.raises(PublishError, match=r"samplers/one/sampler\.py:2"):
        relative_imports(f"import os\n{line}\n", one / "sampler.py", one)


@pytest.mark.parametrize(
    ("path", "run", "package"),
    [
        ("objective/benchmark/problem.py", "._objective.run.script", "._objective.run"),
        ("objective/benchmark/tests/problem.py", ".._objective.run.script", ".._objective.run"),
        ("objective/objective.py", ".run.script", ".run"),
        ("objective/testbed/testbed.py", "..run.script", "..run"),
    ],
    ids=["of a package", "in a folder of a package", "shared", "shared, in a folder"],
)
def test_imports_of_the_objective_lead_to_its_copy(path: str, run: str, package: str) -> None:
    source = "from objective.run.script import x\nfrom objective.run import outcome\n"
    rewritten, reached = relative_imports(source, Path(path), Path(BENCHMARK))
    assert rewritten == f"from {run} import x\nfrom {package} import outcome\n"
    assert reached == [Path("objective/run/script.py"), Path("objective/run/outcome.py")]
