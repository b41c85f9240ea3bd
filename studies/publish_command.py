"""``publish``: the samplers as packages for OptunaHub's registry, built and checked."""

from __future__ import annotations

import json
from pathlib import Path
import shutil
from typing import Annotated

import typer

from studies import options
from studies.errors import Failed
from studies.errors import Misuse
from studies.publish import build_package
from studies.publish import check_in_clean_environment
from studies.publish import check_package
from studies.publish import packages


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
    clean_environment: Annotated[
        bool,
        typer.Option(
            "--clean-environment",
            help="Also install each package's requirements.txt into a new environment, and import "
            "it and run its example there. Takes minutes, and the package index.",
        ),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Build a package for OptunaHub from each sampler, and check it as the registry's CI would.

    Needs a checkout of this project and its extra `dev` (ruff, mypy and mdformat).
    """
    if into is not None and not (into / "package").is_dir():
        raise Misuse(
            f"--into must be a checkout of optunahub-registry, but {into} has no package/."
        )
    verdicts = {}
    for name in packages():
        package = build_package(name, out.resolve())
        problems = check_package(package).problems
        if clean_environment and not problems:
            problems += check_in_clean_environment(package)
        verdicts[name] = problems
        if not as_json:
            print(f"{name}: {'pass' if not problems else 'fail'}")
            for problem in problems:
                print(f"  {problem}")
        if into is not None and not problems:
            target = into / "package" / "samplers" / name
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(package, target)
    if as_json:
        print(json.dumps(verdicts, indent=2))
    if any(verdicts.values()):
        raise Failed("not every package passes; mend what is listed and publish again")
