"""``surrogate``: a model of the testbed, fitted to stored trials and judged by studies it hasn't seen."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version
import os
from pathlib import Path
import platform
import time
from typing import Annotated
from typing import TYPE_CHECKING

import typer

from studies.commands import options
from studies.commands.as_json import print_json
from studies.commands.console import console
from studies.errors import Misuse
from studies.rows import Rows


if TYPE_CHECKING:
    import optuna

    from objective import Surrogate

_PACKAGES = ("optuna-autoresearch", "optuna", "torch", "numpy", "scikit-learn")
_TIMED_CALLS = 200


def surrogate(
    out: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Where the trials and the fit are written: .json.xz."),
    ],
    storage: options.Storage = options.DEFAULT_STORAGE,
    testbed: options.TestbedFolder = None,
    made_by: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="The commands that made the trials, to be kept in the file."
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Fit a surrogate of the testbed to all studies of a storage, and say how good it is.

    Every score is of trials whose study the model has not seen. Run it on the machine that the
    trials ran on: the file tells its processor and versions.
    """
    from objective import DataSet
    from objective import fit_surrogate
    from objective import Testbed
    from objective.testbed.interface import Interface
    from studies.storage.open import opened
    from studies.storage.open import read_each

    if not out.parent.is_dir():
        raise Misuse(f"--out must be a file in a folder that exists, but got {out}.")
    made = provenance(_PACKAGES) | ({} if made_by is None else {"trials": made_by})
    with opened(storage, read_only=True) as there:
        studies = read_each(there, _read, options.complain)
        interface = next((Interface.of(s.user_attrs) for s in studies), Interface())
        data = DataSet.collect(studies, Testbed.load(testbed, interface=interface), made)
    with console(stderr=True).status(f"learning from {len(data.rows)} trials"):
        fitted = fit_surrogate(data)
    fitted.data.write(out)
    facts = {
        "file": str(out),
        "bytes": out.stat().st_size,
        "trials": len(data.rows),
        "studies": len({row.study for row in data.rows}),
        "ok": sum(row.status == "ok" for row in data.rows),
        "noise_sd": fitted.noise_sd,
        "milliseconds": _milliseconds(fitted),
        "scores": [asdict(row) for row in fitted.scores],
        "made": data.made,
    }
    if as_json:
        print_json(facts)
        return
    console().print(*_score_tables(fitted))
    print(
        f"{facts['trials']} trials of {facts['studies']} studies, {facts['ok']} ok;"
        f" {fitted.noise_sd:.2%} noise between runs of one good configuration (SD);"
        f" {facts['milliseconds']:.2f} ms for an evaluation\n"
        f"{out}: {out.stat().st_size} bytes"
    )


def _read(study: optuna.Study) -> optuna.Study:
    """Return a study all of which was read, as it is kept."""
    study.get_trials(deepcopy=False), study.user_attrs
    return study


def provenance(packages: Sequence[str]) -> dict[str, str]:
    """Tell date, command, versions (of those packages that are installed) and machine."""
    versions = [f"Python {platform.python_version()}"]
    for name in packages:
        with suppress(PackageNotFoundError):
            versions.append(f"{name} {version(name)}")
    return {
        "date": time.strftime("%Y-%m-%d"),
        "command": options.this_command(),
        "versions": ", ".join(versions),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}",
    }


def _processor() -> str:
    """Return the processor's name; Python's own answer is empty or the architecture on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _milliseconds(fitted: Surrogate) -> float:
    import numpy as np

    rng = np.random.default_rng(0)
    start = time.perf_counter()
    for _ in range(_TIMED_CALLS):
        fitted(fitted.baseline, rng)
    return round((time.perf_counter() - start) / _TIMED_CALLS * 1000, 3)


def _score_tables(fitted: Surrogate) -> list[Rows]:
    """Return a table for each set of metrics: of numbers and of failures."""
    tables: dict[tuple[str, ...], Rows] = {}
    target = ""
    for row in fitted.scores:
        table = tables.setdefault(tuple(row.metrics), Rows())
        if not table.columns:
            for heading in ("target", "model", ""):
                table.add_column(heading, no_wrap=True)
            for name in row.metrics:
                table.add_column(_HEADINGS[name], justify="right")
        if table.rows and row.target != target:
            table.add_section()
        cells = ["" if value is None else f"{value:.3f}" for value in row.metrics.values()]
        table.add_row(
            row.target if row.target != target else "",
            row.model,
            "chosen" if row.chosen else "baseline" if row.baseline else "",
            *cells,
            style="bold" if row.chosen else "",
        )
        target = row.target
    return list(tables.values())


_HEADINGS = {
    "r2": "R2",
    "spearman": "Spearman",
    "mae": "MAE",
    "r2_best": "R2 of the best quarter",
    "auc": "AUC",
    "log_loss": "log loss",
}
