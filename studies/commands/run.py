"""``run``: tune a training script by one method, or go on where the same command stopped."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from studies.commands import groups
from studies.commands import options
from studies.commands.as_json import print_json
from studies.errors import Misuse
from studies.methods import LLM_RATIO
from studies.methods import METHODS
from studies.stopping import FINISH
from studies.stopping import finishing
from studies.stopping import REQUEUE
from studies.stopping import stop_by_signal


@groups.with_groups
def run(
    method: Annotated[
        str,
        typer.Option(
            metavar="METHOD",
            help="; ".join(f"{name}: {row.summary}" for name, row in METHODS.items()) + ".",
        ),
    ],
    script: groups.Script,
    ending: groups.Ending,
    training: groups.OneTraining,
    asking: groups.AskingOptions,
    spending: groups.Spending,
    storage: options.Storage = options.DEFAULT_STORAGE,
    study: options.StudyName = None,
    cwd: options.Cwd = None,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="Same seed and storage, same study.")
    ] = 0,
    confirm: options.Confirm = 3,
    vary_seed: options.VarySeed = False,
    failure_value: options.FailureValue = None,
    prune: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="Stop trainings that do worse at the same share of their time than earlier ones: "
            "median (than half of them), percentile (than three quarters), wilcoxon (than the best, "
            "by a rank test). Needs a script that prints its loss as it goes, or the metric if that is "
            "to be maximized. What was trained is charged. [default: none is stopped]",
        ),
    ] = None,
    llm: options.Llm = None,
    model: options.ModelName = None,
    llm_option: options.LlmOption = None,
    llm_ratio: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            min=0,
            max=1,
            help="(centaur) Share of the trials after start-up that the language model decides. "
            f"[default: {LLM_RATIO}]",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
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
    no_check: options.NoCheck = False,
    accept_changes: options.AcceptChanges = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Train nothing and write nothing: print the search space, what ends the study and, if the "
            "method asks a language model, the first prompt, its tokens, the number of calls and their cost.",
        ),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Tune a training script by one method.

    Trial 0 is the script as it is; the study ends after --trials or --budget. The same command
    again goes on where it was stopped, by Ctrl-C, a crash or a power failure, and several of them
    at once share the work.
    """
    from objective.objective import default_wall_seconds
    from studies.code_agent.history import best_of
    from studies.commands.work import run as work
    from studies.facts import study_facts
    from studies.pruning import RULES
    from studies.spec import Model
    from studies.spec import Spec
    from studies.spec import trial_seconds
    from studies.workers.cluster import SLURM
    from studies.workers.slurm import slurm_options
    from studies.workers.slurm import slurm_script

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
    if prune not in (None, *RULES):
        raise Misuse(f"--prune must be one of {', '.join(RULES)}, but got {prune!r}")
    if method not in METHODS:
        raise Misuse(f"--method must be one of {', '.join(METHODS)}, but got {method!r}.")
    groups.refuse_unheeded(
        [method],
        llm_ratio=llm_ratio,
        llm=llm,
        model=model,
        llm_option=llm_option or None,
        failure_value=failure_value,
        vary_seed=vary_seed or None,
        **vars(spending),
    )
    if worker or cluster or METHODS[method].edits_code:
        confirm = 0  # by `revalidate`, where there is a machine for it
    where = script.where(storage, artifacts, cwd=cwd)
    tuned = where.load_script()
    if vary_seed:
        tuned.require_seed()
    train_seconds = trial_seconds(tuned, training.train_seconds, ending.budget)
    spec = Spec(
        where,
        study or options.study_name(method, seed, script.testbed),
        method,
        seed,
        ending.to_budget(train_seconds, confirm),
        training.limits(),
        Model(
            llm,
            model,
            **vars(spending),
            options=tuple(llm_option or ()),
            llm_ratio=LLM_RATIO if llm_ratio is None else llm_ratio,
            asking=asking.of([method], where, failure_value),
        ),
        prune=prune,
        failure_value=failure_value,
        vary_seed=vary_seed,
        accept_changes=accept_changes,
        command=options.this_command(),
    ).completed(workers or 1)
    limit = training.wall_seconds or default_wall_seconds(tuned, train_seconds)
    if dry_run:
        work.show_dry_run(spec, limit, as_json)
        return
    work.say_isolation(spec)
    if not no_check and cluster is None:
        work.check_script(spec, tuned)
    if training.wall_seconds is None and train_seconds is None:
        print(
            f"no TIME_BUDGET says how long a trial trains: it is killed after {limit:g} s;"
            " --wall-seconds sets another limit",
            file=sys.stderr,
        )
    stop_by_signal(on_stop)
    wrong: Exception | None = None
    try:
        if worker:
            done = work.be_worker(spec)
        elif cluster is not None:
            done, wrong = work.run_on_cluster(spec, cluster, job_options, workers)
        else:
            done, wrong = work.run_here(spec, workers or 1)
    except KeyboardInterrupt:
        options.stopped()
    facts = study_facts(done, best_of)
    if finishing() and wrong is None and facts["state"] != "done":
        options.stopped()
    if not worker and cluster is None:
        try:
            work.confirm(spec, done, workers or 1)
        except KeyboardInterrupt:
            options.stopped()
        except Exception as error:
            wrong = wrong or error
        if finishing() and wrong is None:
            options.stopped()
    if as_json:
        print_json({**facts, "winner": work.winner_facts(done)})
    elif not worker:
        work.say_result(spec, done, facts)
    if wrong is not None:
        raise wrong
