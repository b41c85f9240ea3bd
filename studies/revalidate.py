"""``revalidate``: train each study's best configuration again, with fresh training seeds.

The best of many noisy trials is in part the luckiest. Its value when it is trained again is not:
the repetitions of study NAME are a study NAME-revalidated, whose user attribute ``revalidates`` is
NAME and which has no method, so that nothing takes it for a run. Each of its trials has the
parameters (of a code study: the script) of the best trial and a ``train_seed`` of its own, the same
seeds for every study, none of which was a trial's before.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
import json
import os
from pathlib import Path
import statistics
from typing import Annotated
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
import typer

from objective import Testbed
from objective import TrainScriptObjective
from objective.run.sandbox import require_sandbox
from objective.storage import claim_lock
from objective.storage import open_artifacts
from objective.storage import open_storage
from objective.storage import take
from studies import options
from studies.budget import is_evaluated
from studies.budget import is_interrupted
from studies.budget import is_ok
from studies.code_agent import METHOD as CODE_AGENT
from studies.code_sources import Sources
from studies.errors import Failed
from studies.errors import Misuse
from studies.facts import best_trial
from studies.loop import alone
from studies.loop import evaluate
from studies.loop import recover
from studies.processes import Event
from studies.processes import Job
from studies.processes import run_jobs
from studies.processes import stop_by_signal
from studies.processes import Tell
from studies.progress import Bar
from studies.study import file_hash
from studies.study import surrogate_file
from studies.study import testbed_hash


SUFFIX = "-revalidated"
# The trainings of a study have the script's own seed, a surrogate's noise the study's: both small.
FIRST_SEED = 1001

Evaluate = Callable[[optuna.Trial], float]


@dataclass(frozen=True)
class Work:
    """One process's share, in plain values: repetitions of a study that wait to be run."""

    storage: str
    study: str
    artifacts: Path | None

    @property
    def lock_file(self) -> str:
        return str(claim_lock(self.storage, self.artifacts))


def revalidate(
    storage: options.Storage = options.DEFAULT_STORAGE,
    study: Annotated[
        list[str] | None,
        typer.Option("--study", metavar="NAME", help="Only this one; may be repeated."),
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=1, help="Trainings of each best configuration in total.")
    ] = 3,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Trainings at the same time. [default: the cores; 1 if they use a GPU]",
        ),
    ] = None,
    artifacts: options.Artifacts = None,
    as_json: options.Json = False,
) -> None:
    """Train the best configuration of each study again, with fresh seeds.

    Training time, limits and testbed are those that the study recorded; code that a model wrote
    is run in the sandbox. The same command again trains only what is missing.
    """
    opened = open_storage(storage, must_exist=True)
    names = study or [n for n in optuna.get_all_study_names(opened) if not n.endswith(SUFFIX)]
    open_artifacts(storage, artifacts)
    skipped: dict[str, str] = {}
    queued: dict[str, int] = {}
    for name in names:
        work = Work(storage, name, artifacts)
        try:
            queued[name] = queue_repetitions(work, opened, repeats)
        except Misuse as error:
            if study:
                raise
            skipped[name] = str(error)
    if workers is None:
        workers = 1 if Path("/dev/nvidiactl").exists() else os.cpu_count() or 1
    errors = _run([Work(storage, n, artifacts) for n, k in queued.items() if k], queued, workers)
    facts = [{**repetition_facts(opened, name), "error": errors.get(name)} for name in queued]
    if as_json:
        print(json.dumps({"studies": facts, "skipped": skipped}, indent=2))
    else:
        Console(markup=False).print(_table(facts))
        for name, why in skipped.items():
            print(f"left out: {why}")
    if errors:
        said = "; ".join(f"{name}: {why}" for name, why in errors.items())
        raise Failed(f"{said}. Mend this and run the same command again: {options.this_command()}")


def queue_repetitions(work: Work, storage: optuna.storages.BaseStorage, repeats: int) -> int:
    """Enqueue what is missing of a study's repetitions: how many are to be run.

    Repetitions of a trial that is no longer the best are deleted, so that their mean is never
    taken for the best one's.

    Raises:
        Misuse: If the study has no best trial, or none that can be trained again.
    """
    studies = optuna.get_all_study_names(storage)
    if work.study not in studies:
        raise Misuse(f"there is no study {work.study!r} in {work.storage}: see `status`")
    original = optuna.load_study(study_name=work.study, storage=storage)
    best = best_trial(original.get_trials(deepcopy=False))
    if "testbed_hash" not in original.user_attrs:
        raise Misuse(f"study {work.study!r} doesn't say what it was trained with")
    if best is None:
        raise Misuse(f"study {work.study!r} has no successful trial yet")
    name = work.study + SUFFIX
    with alone(work.lock_file):
        if name in studies:
            again = optuna.load_study(study_name=name, storage=storage)
            if again.user_attrs.get("revalidates_trial") != best.number:
                optuna.delete_study(study_name=name, storage=storage)
        again = optuna.create_study(
            storage=storage, study_name=name, direction="minimize", load_if_exists=True
        )
        if "revalidates" not in again.user_attrs:
            again.set_metric_names(["val_bpb"])
            again.set_user_attr("revalidates_trial", best.number)
            again.set_user_attr("revalidates", work.study)
        recover(again)
        trials = again.get_trials(deepcopy=False)
        there = {t.user_attrs.get("train_seed") for t in trials if not is_interrupted(t)}
        for seed in range(FIRST_SEED, FIRST_SEED + repeats):
            if seed not in there:
                attrs: dict[str, Any] = {"train_seed": seed, "source": "enqueued"}
                if "source_sha256" in best.user_attrs:
                    attrs["source_sha256"] = best.user_attrs["source_sha256"]
                again.enqueue_trial(best.params, user_attrs=attrs)
    return sum(not t.state.is_finished() for t in again.get_trials(deepcopy=False))


def run_repetitions(work: Work, tell: Tell) -> None:
    """Run the repetitions of a study that wait, telling after each."""
    storage = open_storage(work.storage)
    original = optuna.load_study(study_name=work.study, storage=storage)
    again = optuna.load_study(
        study_name=work.study + SUFFIX,
        storage=storage,
        sampler=optuna.samplers.RandomSampler(seed=0),  # all parameters are fixed
        pruner=optuna.pruners.NopPruner(),
    )
    objective = _objective(original, work)
    while True:
        with alone(work.lock_file):
            waiting = again.get_trials(deepcopy=False, states=(TrialState.WAITING,))
            claimed = next((trial for trial in waiting if take(again, trial)), None)
        if claimed is None:
            return
        evaluate(again, claimed, objective(claimed))
        tell(None)


def _objective(original: optuna.Study, work: Work) -> Callable[[FrozenTrial], Evaluate]:
    """From a repetition to what evaluates it, as the study's own trials were evaluated.

    Raises:
        Misuse: If the testbed isn't what it was.
    """
    attrs = original.user_attrs
    if attrs.get("surrogate") is not None:
        _check_hash(attrs, file_hash(surrogate_file(attrs["surrogate"])))
        from objective.surrogate.surrogate import Surrogate
        from objective.surrogate.surrogate import SurrogateObjective

        surrogate = Surrogate.load(surrogate_file(attrs["surrogate"]))
        return lambda t: SurrogateObjective(
            surrogate, failure_value=None, train_seed=t.user_attrs["train_seed"]
        )
    testbed = Testbed.load(None if attrs["testbed"] == "embedded" else attrs["testbed"])
    _check_hash(attrs, testbed_hash(testbed))
    artifacts = open_artifacts(work.storage, work.artifacts)
    sandbox = require_sandbox() if attrs.get("method") == CODE_AGENT else None
    sources = Sources(artifacts, testbed.source)

    def objective(repetition: FrozenTrial) -> Evaluate:
        train = TrainScriptObjective(
            testbed,
            train_seconds=attrs.get("train_seconds"),
            wall_seconds=attrs.get("wall_seconds"),
            memory_limit_mb=attrs.get("memory_limit_mb"),
            failure_value=None,
            artifact_store=artifacts,
            train_seed=repetition.user_attrs["train_seed"],
            sandbox=sandbox,
        )
        if attrs.get("method") != CODE_AGENT:
            return train
        source = sources.load(repetition.user_attrs["source_sha256"])
        return lambda trial: train.run(trial, source)

    return objective


def _check_hash(attrs: dict[str, Any], found: str) -> None:
    if attrs["testbed_hash"] != found:
        raise Misuse(
            "its testbed or surrogate was edited since, so that a repetition would measure"
            " something else; restore it, or run the study anew"
        )


def repetition_facts(storage: optuna.storages.BaseStorage, name: str) -> dict[str, Any]:
    """A study's best value beside the values of its repetitions."""
    best = best_trial(optuna.load_study(study_name=name, storage=storage).trials)
    trials = optuna.load_study(study_name=name + SUFFIX, storage=storage).trials
    values = [t.user_attrs["val_bpb"] for t in trials if is_ok(t)]
    assert best is not None
    return {
        "study": name,
        "trial": best.number,
        "best": best.user_attrs["val_bpb"],
        "values": values,
        "mean": statistics.fmean(values) if values else None,
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "failed": sum(is_evaluated(t) and not is_ok(t) for t in trials),
    }


def _run(share: Sequence[Work], queued: dict[str, int], workers: int) -> dict[str, str]:
    """Run what is queued, side by side; why it failed by the study's name."""
    stop_by_signal()
    errors: dict[str, str] = {}
    # A few studies leave no worker idle: several processes take from the same one's queue.
    copies = max(1, workers // max(1, len(share)))
    jobs = [
        Job(work.study, run_repetitions, work)
        for work in share
        for _ in range(min(copies, queued[work.study]))
    ]
    with Bar() as bar:
        done, total = 0, sum(queued[work.study] for work in share)

        def watch(events: Sequence[Event]) -> None:
            nonlocal done
            for event in events:
                done += event.kind == "said"
                if event.kind == "said":
                    bar.console.print(f"{event.job}: {done} of {total} trainings")
                elif event.kind == "failed":
                    errors[event.job] = event.what
            bar.show(done, total, f"trainings {done}/{total}")

        try:
            run_jobs(jobs, workers, watch)
        except KeyboardInterrupt:
            bar.console.print(f"stopped; to go on:\n  {options.this_command()}")
            raise typer.Exit(1) from None
    return errors


def _table(facts: Sequence[dict[str, Any]]) -> Table:
    """One row per study."""
    table = Table("study", "trial", "best", "again", "sd", "n", "failed", box=SIMPLE_HEAD)
    for row in facts:
        table.add_row(
            row["study"],
            str(row["trial"]),
            f"{row['best']:.4f}",
            "-" if row["mean"] is None else f"{row['mean']:.4f}",
            "-" if row["sd"] is None else f"{row['sd']:.4f}",
            str(len(row["values"])),
            str(row["failed"]),
        )
    return table
