"""``run``: tune a training script by one method, or go on where the same command stopped."""

from __future__ import annotations

from collections.abc import Mapping
import json
import shlex
import sys
from typing import Annotated
from typing import Any
from typing import NoReturn

import optuna
from rich.console import Console
import typer

from objective import Testbed
from objective.objective import default_wall_seconds
from studies.budget import Budget
from studies.commands import options
from studies.commands.progress import Progress
from studies.commands.progress import WorkerLog
from studies.commands.tables import dry_run_report
from studies.commands.tables import final_table
from studies.errors import Misuse
from studies.facts import study_facts
from studies.methods import LLM_RATIO
from studies.methods import METHODS
from studies.spec import StudySpec
from studies.spec import trial_seconds
from studies.stopping import FINISH
from studies.stopping import finishing
from studies.stopping import REQUEUE
from studies.stopping import stop_by_signal
from studies.storage.kinds import check_sharing
from studies.storage.kinds import kind_of
from studies.storage.open import open_storage
from studies.study import run_study
from studies.workers.cluster import count_workers
from studies.workers.cluster import LOCAL
from studies.workers.cluster import run_cluster
from studies.workers.cluster import SLURM
from studies.workers.share import run_workers
from studies.workers.slurm import slurm_options
from studies.workers.slurm import slurm_script


DEFAULT_TRIALS = 20
_WAIT_SECONDS = 60.0  # for a database, or its connections, when a worker starts


def run(
    method: Annotated[
        str,
        typer.Option(
            metavar="METHOD",
            help="; ".join(f"{name}: {row.summary}" for name, row in METHODS.items()) + ".",
        ),
    ],
    storage: options.Storage = options.DEFAULT_STORAGE,
    study: options.StudyName = None,
    testbed: options.TestbedFolder = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed and storage, same study.")] = 0,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Trials of the study in total, failures and earlier runs included. "
            f"[default: {DEFAULT_TRIALS}, if there is no --budget]",
        ),
    ] = None,
    budget: options.Budget = None,
    train_seconds: options.TrainSeconds = None,
    wall_seconds: options.WallSeconds = None,
    memory_limit: options.MemoryLimit = None,
    llm: options.Llm = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="(methods that ask a language model) Which of the server's models.",
        ),
    ] = None,
    llm_ratio: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="(centaur) Share of the trials after start-up that the language model decides.",
        ),
    ] = LLM_RATIO,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes that train at the same time, with a GPU each where there are enough. "
            "[default: 1; with --cluster ADDRESS one for each worker that Dask has there]",
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="local|slurm|ADDRESS",
            help="Let Dask start the workers and watch over them: on this machine, as jobs of "
            "SLURM, or on the cluster whose scheduler is at ADDRESS (tcp://HOST:8786). With slurm, "
            "--dry-run prints the script of a job. See docs/clusters.md.",
        ),
    ] = None,
    cluster_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="(slurm) What a job needs, beside or instead of ~/.config/dask/jobqueue.yaml: "
            "queue=gpu, account=, walltime=02:00:00, cores=8, memory=16GB, "
            "job_extra_directives=--gres=gpu:1. Can be repeated.",
        ),
    ] = None,
    worker: Annotated[
        bool,
        typer.Option(
            "--worker",
            help="Be one worker of the study, new or not, among others that are started in the "
            "same way: by hand, by a job array, on any machine that reaches --storage and shares "
            "the folder of --artifacts. Prints lines for a job's log: its own trials.",
        ),
    ] = False,
    on_stop: Annotated[
        str,
        typer.Option(
            metavar="requeue|finish",
            help="What Ctrl-C and SIGTERM do. requeue: stop the running trainings now; their "
            "trials are repeated when the study goes on. finish: let them end and begin no other; "
            "once more stops them. SIGUSR1 always means finish.",
        ),
    ] = REQUEUE,
    artifacts: options.Artifacts = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Train nothing and write nothing: print the search space and, if the method asks "
            "a language model, the first prompt, its tokens, the number of calls and their cost.",
        ),
    ] = False,
    price_in: Annotated[
        float | None, typer.Option(min=0, help="Price of a million prompt tokens, for --dry-run.")
    ] = None,
    price_out: Annotated[
        float | None,
        typer.Option(min=0, help="Price of a million completion tokens, for --dry-run."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Tune a training script by one method.

    Trial 0 is the script as it is; the study ends after --trials or --budget. The same command
    again goes on where it was stopped, by Ctrl-C, a crash or a power failure, and several of them
    at once share the work.
    """
    if on_stop not in (REQUEUE, FINISH):
        raise Misuse(f"--on-stop must be requeue or finish, but got {on_stop!r}")
    if worker and (cluster or workers):
        raise Misuse("--worker is a single worker: it must be without --workers and --cluster")
    if cluster_option and cluster != SLURM:
        raise Misuse("--cluster-option must be with --cluster slurm")
    job_options = slurm_options(cluster_option or [])
    if cluster == SLURM and dry_run:
        print(slurm_script(job_options), end="")
        return
    if method not in METHODS:
        raise Misuse(f"--method must be one of {', '.join(METHODS)}, but got {method!r}.")
    if trials is None and budget is None:
        trials = DEFAULT_TRIALS
    script = Testbed.load(testbed)
    train_seconds = trial_seconds(script, train_seconds, budget)
    name = f"{method}-seed{seed}"
    spec = StudySpec(
        storage=storage,
        name=study or (name if testbed is None else f"{script.path.name}-{name}"),
        method=method,
        seed=seed,
        budget=Budget(trials, budget, train_seconds),
        testbed=testbed,
        wall_seconds=wall_seconds,
        memory_limit_mb=memory_limit,
        llm=llm,
        model=model,
        llm_ratio=llm_ratio,
        artifacts=artifacts,
    )
    limit = wall_seconds or default_wall_seconds(script, train_seconds)
    if dry_run:
        _dry_run(spec, limit, price_in, price_out, as_json)
        return
    if wall_seconds is None and train_seconds is None:
        print(
            f"no TIME_BUDGET says how long a trial trains: it is killed after {limit:g} s;"
            " --wall-seconds sets another limit",
            file=sys.stderr,
        )
    stop_by_signal(on_stop)
    try:
        if worker:
            done = _work(spec)
        elif cluster is not None:
            done = _run_cluster(spec, cluster, job_options, workers)
        else:
            done = _run(spec, workers or 1)
    except KeyboardInterrupt:
        _stopped()
    facts = study_facts(done)
    if finishing() and facts["state"] != "done":
        _stopped()
    if as_json:
        print(json.dumps(facts, indent=2))
    elif not worker:
        Console(markup=False).print(final_table(facts))
        print(f"\nto look at it:\n  {_command('status', spec)}\n  {_command('dashboard', spec)}")


def _stopped() -> NoReturn:
    print(f"stopped; to go on:\n  {options.this_command()}", file=sys.stderr)
    raise typer.Exit(1)


def _dry_run(
    spec: StudySpec,
    wall_seconds: float,
    price_in: float | None,
    price_out: float | None,
    as_json: bool,
) -> None:
    from studies.commands.dry_run import dry_run

    facts = {**dry_run(spec, price_in, price_out), "wall_seconds": wall_seconds}
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        Console(soft_wrap=True, markup=False).print(dry_run_report(facts))
        print(f"A trial is killed after {wall_seconds:g} s (--wall-seconds).")


def _progress(spec: StudySpec, workers: int) -> Progress:
    metric = Testbed.load(spec.testbed).metric.name
    return Progress(spec.budget, metric, workers=workers, uses_llm=METHODS[spec.method].uses_llm)


def _run(spec: StudySpec, workers: int) -> optuna.Study:
    check_sharing(spec.storage, workers=workers)
    with _progress(spec, workers) as progress:
        if workers == 1:
            return run_study(spec, progress.update)
        return run_workers(spec, workers, progress.update, progress.say)


def _run_cluster(
    spec: StudySpec, cluster: str, job_options: Mapping[str, Any], workers: int | None
) -> optuna.Study:
    def say(line: str) -> None:
        print(line, file=sys.stderr)

    if workers is None:
        workers = 1 if cluster in (LOCAL, SLURM) else count_workers(cluster, say)
    with _progress(spec, workers) as progress:
        return run_cluster(spec, cluster, job_options, workers, progress.update, progress.say)


def _work(spec: StudySpec) -> optuna.Study:
    """As one worker among others."""
    kind = kind_of(spec.storage)
    if not kind.processes:
        raise Misuse(
            f"--worker must have a storage that it shares with others, but {kind.name} is seen by"
            " its own process only; choose sqlite:///FILE"
        )
    log = WorkerLog(spec.name, Testbed.load(spec.testbed).metric.name)
    open_storage(spec.storage, wait=_WAIT_SECONDS)  # many may come at once
    study = run_study(spec, log.update)
    log.end(study.get_trials(deepcopy=False))
    return study


def _command(name: str, spec: StudySpec) -> str:
    command = options.command(name, spec.storage)
    if name == "dashboard" and spec.artifacts is not None:
        command += f" --artifacts {shlex.quote(str(spec.artifacts))}"
    return command
