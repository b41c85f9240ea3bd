"""Every module's tests are found by its name: studies/spec.py has tests/studies/test_spec.py."""

from __future__ import annotations

from pathlib import Path


ROOT = Path(__file__).parent.parent
FEW_LINES = 50
# A published package is tested as one: samplers/smac by tests/samplers/test_smac.py.
PACKAGES = {f"samplers/{path.parent.name}" for path in (ROOT / "samplers").glob("*/sampler.py")}
PACKAGES |= {"objective/benchmark", "studies/best_so_far"}
# Modules that are parts of what another test file tests, and seen only through that.
ELSEWHERE = {
    # Measured and hidden from a training.
    "objective/testbed/data.py": "objective/testbed/test_evaluation.py",
    "objective/testbed/embedded/prepare.py": "objective/testbed/test_embedded.py",
    "objective/testbed/embedded/program.py": "objective/testbed/test_program.py",
    "objective/testbed/embedded/train.py": "objective/testbed/test_embedded.py",
    # Parts of the objective: how values are suggested, progress reported, folders made.
    "objective/suggesting.py": "objective/test_objective.py",
    "objective/reporter.py": "objective/test_objective.py",
    "objective/run/folder.py": "objective/test_objective.py",
    # Results are kept for, and told to, a storage that was away.
    "objective/results.py": "faults/test_database.py",
    "studies/storage/patient.py": "faults/test_database.py",
    # A metric's name is seen in what people read.
    "objective/testbed/metric.py": "studies/test_metric.py",
    # Only together are they a prediction.
    "objective/surrogate/data_set.py": "objective/surrogate/test_surrogate.py",
    "objective/surrogate/learning.py": "objective/surrogate/test_surrogate.py",
    "objective/surrogate/models.py": "objective/surrogate/test_surrogate.py",
    # A protocol and errors, a choice among its clients, and a base class without a use of its own.
    "samplers/_llm/chat.py": "samplers/_llm/test_openai_chat.py",
    "samplers/_llm/address.py": "samplers/_llm/test_openai_chat.py",
    "samplers/_llm/client.py": "samplers/_llm/test_openai_chat.py",
    "samplers/_llm/connect.py": "samplers/_llm/test_openai_chat.py",
    "samplers/_llm/openvino_model.py": "samplers/_llm/test_openvino_server.py",
    "samplers/_llm/llama_cpp_server.py": "samplers/_llm/test_local_http.py",
    "samplers/_llm/random_base.py": "samplers/_llm/test_propose.py",
    # What a study is, is seen in studies.
    "studies/errors.py": "studies/test_cli.py",
    "studies/spec.py": "studies/commands/test_run.py",
    "studies/study.py": "studies/commands/test_run.py",
    "studies/comparison.py": "studies/commands/test_compare.py",
    "studies/revalidation.py": "studies/commands/test_revalidate.py",
    "studies/code_agent/sources.py": "studies/code_agent/test_agent.py",
    "studies/code_agent/trials.py": "studies/code_agent/test_agent.py",
    # Parts of the page and of the pictures.
    "studies/report/content.py": "studies/report/test_page.py",
    "studies/report/drawing.py": "studies/report/test_pictures.py",
    "studies/report/interactive.py": "studies/report/test_page.py",
    "studies/report/layout.py": "studies/report/test_page.py",
    "studies/report/static.py": "studies/report/test_pictures.py",
    "studies/report/notes.py": "studies/report/test_findings.py",
    "studies/report/page_data.py": "studies/report/test_page.py",
    "studies/report/page_tables.py": "studies/report/test_page.py",
    "studies/report/plots.py": "studies/report/test_page.py",
    "studies/scoreboard/plots.py": "studies/commands/test_scoreboard.py",
    "studies/storage/examine.py": "studies/commands/test_doctor.py",
    # Clusters are started and killed.
    "studies/workers/cluster.py": "faults/test_clusters.py",
    "studies/workers/dask_worker.py": "faults/test_clusters.py",
    # Commands whose work is elsewhere.
    "studies/commands/serve.py": "studies/storage/test_proxy.py",
    "studies/commands/tables.py": "studies/commands/test_run.py",
}


def _home(path: Path) -> str:
    """The test file of a module, relative to ``tests/``."""
    return ELSEWHERE.get(path.relative_to(ROOT).as_posix()) or _own_home(path)


def _own_home(path: Path) -> str:
    """The one that its name leads to."""
    name = path.relative_to(ROOT).as_posix()
    for package in PACKAGES:
        if name.startswith(f"{package}/"):
            parent, _, last = package.rpartition("/")
            # llambo_paper's are called test_llambo.py.
            return f"{parent}/test_{last.removesuffix('_paper')}.py"
    # What a command does is tested by the command.
    parent = path.relative_to(ROOT).parent.as_posix().removesuffix("/work")
    return f"{parent}/test_{path.stem}.py"


def _modules() -> list[Path]:
    found = [
        p for name in ("samplers", "objective", "studies") for p in (ROOT / name).rglob("*.py")
    ]
    return [
        path
        for path in sorted(found)
        if path.name != "__init__.py" and len(path.read_text().splitlines()) >= FEW_LINES
    ]


def test_every_module_has_tests_that_its_name_leads_to() -> None:
    missing = [
        f"{path.relative_to(ROOT)}: there is no tests/{_home(path)}"
        for path in _modules()
        if not (ROOT / "tests" / _home(path)).is_file()
    ]
    assert not missing, "\n".join(missing)


def test_only_what_has_no_tests_of_its_own_has_them_elsewhere() -> None:
    stale = [
        name
        for name, home in ELSEWHERE.items()
        if not (ROOT / name).is_file()
        or ((ROOT / "tests" / (own := _own_home(ROOT / name))).is_file() and own != home)
    ]
    assert not stale, "\n".join(stale)
