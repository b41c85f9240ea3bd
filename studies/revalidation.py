"""Training the best configurations again, so that what is called best is not luck."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import statistics
from typing import Any
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial

from objective import Testbed
from objective import TrainScriptObjective
from objective.run.sandbox import require_sandbox
from objective.testbed.interface import Interface
from objective.testbed.metric import Metric
from studies.budget import is_evaluated
from studies.budget import is_interrupted
from studies.budget import is_ok
from studies.code_agent.sources import Sources
from studies.errors import Misuse
from studies.facts import best_trial
from studies.loop import evaluate
from studies.methods import CODE_AGENT
from studies.spec import file_hash
from studies.spec import surrogate_file
from studies.spec import testbed_hash
from studies.storage.open import open_storage
from studies.storage.recovery import alone
from studies.storage.recovery import recover
from studies.storage.recovery import take_any


if TYPE_CHECKING:
    from studies.spec import Where
    from studies.workers.processes import Tell


SUFFIX = "-revalidated"
# The trainings of a study have the script's own seed, a surrogate's noise the study's: both small.
FIRST_SEED = 1001

Evaluate = Callable[[optuna.Trial], float]


@dataclass(frozen=True)
class Work:
    """One process's share, in plain values: repetitions of a study that wait to be run."""

    where: Where
    study: str


def queue_repetitions(work: Work, storage: optuna.storages.BaseStorage, repeats: int) -> int:
    """Enqueue a study's missing repetitions, and return how many are to be run.

    Repetitions of a trial that is no longer the best are deleted, so that their mean is never
    taken for the best one's.

    Raises:
        Misuse: If the study has no best trial, or none that can be trained again.
    """
    studies = optuna.get_all_study_names(storage)
    if work.study not in studies:
        raise Misuse(f"there is no study {work.study!r} in {work.where.storage}: see `status`")
    original = optuna.load_study(study_name=work.study, storage=storage)
    metric = Metric.of(original)
    best = best_trial(original.get_trials(deepcopy=False), metric)
    if "testbed_hash" not in original.user_attrs:
        raise Misuse(f"study {work.study!r} doesn't say what it was trained with")
    if best is None:
        raise Misuse(f"study {work.study!r} has no successful trial yet")
    name = work.study + SUFFIX
    with alone(work.where.lock_file):
        if name in studies:
            again = optuna.load_study(study_name=name, storage=storage)
            if again.user_attrs.get("revalidates_trial") != best.number:
                optuna.delete_study(study_name=name, storage=storage)
        again = optuna.create_study(
            storage=storage, study_name=name, direction=metric.direction, load_if_exists=True
        )
        if "revalidates" not in again.user_attrs:
            metric.name_in(again)
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
    storage = open_storage(work.where.storage)
    original = optuna.load_study(study_name=work.study, storage=storage)
    again = optuna.load_study(
        study_name=work.study + SUFFIX,
        storage=storage,
        sampler=optuna.samplers.RandomSampler(seed=0),  # all parameters are fixed
        pruner=optuna.pruners.NopPruner(),
    )
    objective = _objective(original, work)
    while True:
        with alone(work.where.lock_file):
            claimed = take_any(again)
        if claimed is None:
            return
        evaluate(again, claimed, objective(claimed))
        tell(None)


def _objective(original: optuna.Study, work: Work) -> Callable[[FrozenTrial], Evaluate]:
    """Return a function from a repetition to an objective like that of the study's own trials.

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
    folder = None if attrs["testbed"] == "embedded" else attrs["testbed"]
    testbed = Testbed.load(folder, interface=Interface.of(attrs))
    _check_hash(attrs, testbed_hash(testbed))
    artifacts = work.where.open_artifacts()
    is_code = attrs.get("method") == CODE_AGENT
    sandbox = require_sandbox() if is_code else None
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
        if not is_code:
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
    """Return a study's best value beside the values of its repetitions."""
    original = optuna.load_study(study_name=name, storage=storage)
    best = best_trial(original.get_trials(deepcopy=False), Metric.of(original))
    trials = optuna.load_study(study_name=name + SUFFIX, storage=storage).trials
    values = [t.value for t in trials if is_ok(t) and t.value is not None]
    assert best is not None
    return {
        "study": name,
        "trial": best.number,
        "best": best.value,
        "values": values,
        "mean": statistics.fmean(values) if values else None,
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "failed": sum(is_evaluated(t) and not is_ok(t) for t in trials),
    }
