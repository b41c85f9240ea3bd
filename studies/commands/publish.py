"""``publish``: samplers, benchmark and plot as packages for OptunaHub's registry, checked."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
import shutil
from typing import Annotated

import typer

from studies.commands import options
from studies.commands.as_json import print_json
from studies.errors import Failed
from studies.errors import Misuse
from studies.publish.build import build_package
from studies.publish.build import PublishError
from studies.publish.build import ROOT
from studies.publish.build import sources
from studies.publish.checks import check_package
from studies.publish.checks import HEADER_CONFIRM
from studies.publish.environment import check_in_clean_environment


# Modules of the extra `dev` that the checks run.
TOOLS = ("frontmatter", "mdformat", "mypy", "ruff")


def publish(
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where the packages are built.")
    ] = Path("dist/package"),
    into: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="A checkout of optunahub-registry that packages which pass are copied into.",
        ),
    ] = None,
    registry: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="A checkout of optunahub-registry, whose own settings and check of READMEs are "
            "used. Without it, they are this project's.",
        ),
    ] = None,
    clean_environment: Annotated[
        bool,
        typer.Option(
            "--clean-environment",
            help="Also install each package's requirements.txt into a new environment, and load "
            "it and run its examples there. Needs git, the package index and the embedded language "
            "model, which LLAMBO's examples alone ask up to 300 times: half an hour on a core.",
        ),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Build packages for OptunaHub (samplers, a benchmark, a plot) and check them as its CI would.

    Needs a checkout of this project and its extra `dev` (ruff, mypy and mdformat).
    """
    from samplers._llm.embedded import embedded_server

    for option, folder, part in (
        ("--into", into, "package"),
        ("--registry", registry, HEADER_CONFIRM),
    ):
        if folder is not None and not (folder / part).exists():
            raise Misuse(
                f"{option} must be a checkout of optunahub-registry, but {folder} has no {part}."
            )
    if missing := [name for name in TOOLS if find_spec(name) is None]:
        raise Misuse(
            f"The checks need {', '.join(missing)}; install the extra: pip install -e '.[dev]'"
        )
    verdicts = {}
    for source in sources(ROOT):
        try:
            package = build_package(source, out.resolve(), ROOT)
            verdicts[source.package] = check_package(package, registry)
        except PublishError as error:
            verdicts[source.package] = [str(error)]
    for name, problems in verdicts.items():
        package = out.resolve() / name
        if clean_environment and not problems:
            options.complain(f"{name}: installed into a new environment, its examples run there")
            llm = {"OPENAI_BASE_URL": embedded_server(), "OPENAI_API_KEY": "none"}
            problems += check_in_clean_environment(package, llm)
        if not as_json:
            print(f"{name}: {'pass' if not problems else 'fail'}", flush=True)
            for problem in problems:
                print(f"  {problem}")
        if into is not None and not problems:
            target = into / "package" / name
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(package, target)
    if as_json:
        print_json(verdicts)
    if any(verdicts.values()):
        raise Failed("not every package passes; mend what is listed and publish again")
