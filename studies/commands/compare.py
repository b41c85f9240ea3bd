"""``compare``: methods by seeds and variants, a study each, side by side in one storage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from studies.commands import groups
from studies.commands import options
from studies.commands.parsing import parse_seeds
from studies.commands.parsing import split
from studies.errors import Failed
from studies.methods import DEFAULT_NAME
from studies.methods import LLM_RATIO
from studies.methods import METHODS


@groups.with_groups
def compare(
    methods: Annotated[
        str,
        typer.Option(
            metavar="A,B,...",
            help=f"Of {', '.join(METHODS)}, separated by commas.",
        ),
    ],
    script: groups.Script,
    training: groups.OneTraining,
    asking: groups.AskingOptions,
    spending: groups.Spending,
    seeds: Annotated[
        str, typer.Option(metavar="SEEDS", help="One run of each method for each: 0-7, or 0,3,5.")
    ] = "0-2",
    trials: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Trials of each run in total, failures included."),
    ] = None,
    budget: options.Budget = None,
    charge_llm: Annotated[
        bool,
        typer.Option(
            "--charge-llm",
            help="Charge the language model's time to --budget, too. It is recorded in any case.",
        ),
    ] = False,
    vary_seed: options.VarySeed = False,
    failure_value: options.FailureValue = None,
    llm_ratio: Annotated[
        str | None,
        typer.Option(
            metavar="R,R,...",
            help="(centaur) A variant for each: the share of the trials after start-up that the "
            f"language model decides. [default: {LLM_RATIO}]",
        ),
    ] = None,
    llm: options.Llm = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="M,M,...",
            help="(methods that ask a language model) A variant for each of the server's models.",
        ),
    ] = None,
    llm_option: options.LlmOption = None,
    surrogate: Annotated[
        bool,
        typer.Option(
            "--surrogate",
            help="Ask a model of the embedded testbed's trials instead of training: a millisecond "
            "a trial.",
        ),
    ] = False,
    surrogate_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The same, with a surrogate of your own trials."),
    ] = None,
    name: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Of the comparison, for more than one in a storage. Its studies' names begin "
            "with it, unless it is the default.",
        ),
    ] = DEFAULT_NAME,
    storage: options.Storage = options.DEFAULT_STORAGE,
    cwd: options.Cwd = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Runs at the same time, a process each. [default: the cores; 1 if trainings use "
            "a GPU; at least 4 on a surrogate if a language model is asked]",
        ),
    ] = None,
    artifacts: options.Artifacts = None,
    no_check: options.NoCheck = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be run, and write nothing.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Compare methods: one study per method, seed and variant, in one storage.

    Trial 0 of each run is the script as it is. The same command again goes on with what is not
    done and tries again what failed; with more seeds, methods or trials it adds them.
    """
    from studies.budget import Budget
    from studies.commands.work import compare as work
    from studies.comparison import Comparison
    from studies.spec import Model

    named = split("--methods", methods, str)
    groups.refuse_unheeded(
        named,
        llm_ratio=llm_ratio,
        llm=llm,
        model=model,
        llm_option=llm_option or None,
        failure_value=failure_value,
        vary_seed=vary_seed or None,
        **vars(spending),
    )
    where = script.where(
        storage, artifacts, cwd=cwd, surrogate=work.surrogate_named(surrogate, surrogate_file)
    )
    comparison = work.checked(
        Comparison(
            named,
            parse_seeds(seeds),
            where,
            Budget(trials, budget, training.train_seconds, charge_llm),
            training.limits(),
            Model(
                llm,
                **vars(spending),
                options=tuple(llm_option or ()),
                asking=asking.of(named, where, failure_value),
            ),
            split("--llm-ratio", llm_ratio, float),
            split("--model", model, str),
            name,
            failure_value,
            vary_seed,
            options.this_command(),
        ),
        check=not no_check,
    )
    if workers is None:
        workers = work.default_workers(comparison)
    specs = comparison.runs(workers)
    if dry_run:
        board = work.planned(specs)
    else:
        board = work.run_runs(comparison, specs, workers)
    work.tell(comparison, specs, board, workers if dry_run else None, as_json)
    if failed := [n for n, run in board.items() if run.state == "failed"]:
        raise Failed(work.advice(failed, board, dry_run))
