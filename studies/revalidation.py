"""Training the best configurations again, so that what is called best is not luck.

The repetitions of study NAME are a study NAME-revalidated, whose user attribute ``revalidates`` is
NAME; each of its trials says by `REPEATS` which trial it repeats. It has no method, so that nothing
takes it for a run.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import functools
from itertools import product
from typing import Any
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial

from objective import TrainScriptObjective
from objective.testbed.metric import Metric
from studies.budget import is_interrupted
from studies.budget import is_ok
from studies.budget import now
from studies.changes import changes
from studies.changes import FILES
from studies.changes import fingerprints
from studies.code_agent.agent import isolation
from studies.code_agent.files import script_and_others
from studies.code_agent.files import unedited
from studies.code_agent.history import kept_first
from studies.code_agent.sources import Sources
from studies.errors import Misuse
from studies.facts import configuration
from studies.facts import REPEATS
from studies.loop import evaluate
from studies.loop import put_back_if_stopped
from studies.methods import CODE_AGENT
from studies.notes import Notes
from studies.repetitions import Repeated
from studies.repetitions import repetitions
from studies.repetitions import SUFFIX
from studies.repetitions import why_not
from studies.spec import file_hash
from studies.spec import stored_runtime
from studies.spec import stored_testbed
from studies.spec import surrogate_file
from studies.spec import testbed_hash
from studies.stopping import finishing
from studies.storage.open import open_storage
from studies.storage.open import reading
from studies.storage.open import study_names
from studies.storage.recovery import alone
from studies.storage.recovery import is_given_up
from studies.storage.recovery import recover
from studies.storage.recovery import take_any


if TYPE_CHECKING:
    from studies.spec import Where
    from studies.workers.processes import Tell


# The trainings of a study have the script's own seed, a surrogate's noise the study's: both small.
FIRST_SEED = 1001

_EDITED = "{}, so that a repetition would measure something else; undo that"

Evaluate = Callable[[FrozenTrial, optuna.Trial], float]  # of a repetition


@dataclass(frozen=True)
class Work:
    """One process's share, in plain values: repetitions of a study that wait to be run."""

    where: Where
    study: str
    start_until: float | None = None  # seconds since 1970; no training begins later


def finalists(
    trials: Sequence[FrozenTrial], metric: Metric, count: int, attributes: Mapping[str, Any]
) -> list[FrozenTrial]:
    """Return the best trials with different configurations, the best first.

    ``attributes`` are the study's: of a code study the best is what the agent kept.
    """
    found: dict[str, FrozenTrial] = {}
    ranked = sorted(filter(is_ok, trials), key=lambda t: (metric.cost(t.values[0]), t.number))
    for trial in kept_first(ranked, trials, metric, attributes):
        found.setdefault(configuration(trial), trial)
    return list(found.values())[:count]


def queue_repetitions(
    work: Work,
    storage: optuna.storages.BaseStorage,
    repeats: int,
    best: int = 1,
    limit: int | None = None,
    earlier: bool = False,
) -> int:
    """Enqueue a study's missing repetitions, and return how many are to be run.

    Args:
        work: The study.
        storage: The one that it is in.
        repeats: Repetitions of each configuration in total, each with a seed of its own.
        best: How many of the best configurations are repeated.
        limit: Of the repetitions that are to be run. The seeds come one after the other, each for
            all of the configurations.
        earlier: Repeat those that were repeated before as often: the winner is found among them.

    Raises:
        Misuse: If the study has no best trial, or none that can be trained again.
    """
    if work.study not in study_names(storage):
        raise Misuse(f"there is no study {work.study!r} in {work.where.storage}: see `status`")
    with reading(work.study):
        original = optuna.load_study(study_name=work.study, storage=storage)
        metric = Metric.of(original)
        attrs_of_study = original.user_attrs
        originals = original.get_trials(deepcopy=False)
        found = finalists(originals, metric, best, attrs_of_study)
    if reason := why_not(attrs_of_study):
        raise Misuse(f"study {work.study!r} {reason}")
    if not found:
        raise Misuse(f"study {work.study!r} has no successful trial yet")
    with alone(work.where.lock_file):
        again = optuna.create_study(
            storage=storage,
            study_name=work.study + SUFFIX,
            direction=metric.direction,
            load_if_exists=True,
        )
        if "revalidates" not in again.user_attrs:
            metric.name_in(again)
            again.set_user_attr("revalidates", work.study)
        recover(again)
        trials = again.get_trials(deepcopy=False)
        there = {
            (t.user_attrs.get(REPEATS), t.user_attrs.get("train_seed"))
            for t in trials
            if not is_interrupted(t) or is_given_up(t)
        }
        if earlier:
            others = {number for number, _ in there} - {t.number for t in found}
            found += [t for t in originals if t.number in others]
        seeds = range(FIRST_SEED, FIRST_SEED + repeats)
        missing = [(s, t) for s, t in product(seeds, found) if (t.number, s) not in there]
        if limit is not None:
            wait = sum(not t.state.is_finished() for t in trials)
            missing = missing[: max(0, limit - wait)]
        for seed, trial in missing:
            attrs = {REPEATS: trial.number, "train_seed": seed, "source": "enqueued"}
            if "source_sha256" in trial.user_attrs:
                attrs["source_sha256"] = trial.user_attrs["source_sha256"]
            again.enqueue_trial(trial.params, user_attrs=attrs)
    return sum(not t.state.is_finished() for t in again.get_trials(deepcopy=False))


def run_repetitions(work: Work, tell: Tell) -> None:
    """Run the repetitions of a study that wait, as long as there is time, telling after each."""
    storage = open_storage(work.where.storage)
    original = optuna.load_study(study_name=work.study, storage=storage)
    again = optuna.load_study(
        study_name=work.study + SUFFIX,
        storage=storage,
        sampler=optuna.samplers.RandomSampler(seed=0),  # all parameters are fixed
        pruner=optuna.pruners.NopPruner(),
    )
    objective = _objective(original, work)
    notes = Notes(again)
    with put_back_if_stopped(again):
        while not finishing() and (work.start_until is None or now() <= work.start_until):
            with alone(work.where.lock_file):
                claimed = take_any(again)
            if claimed is None:
                return
            evaluate(again, claimed, functools.partial(objective, claimed))
            notes.write(again.get_trials(deepcopy=False))
            tell(None)


def _objective(original: optuna.Study, work: Work) -> Evaluate:
    """Return an objective like that of the study's own trials, for each of the repetitions.

    Raises:
        Misuse: If the testbed isn't what it was, or what a model wrote can't be isolated.
        TestbedError: If a variable of its environment has no value here.
        RunError: If the testbed's ``prepare.py`` failed.
    """
    attrs = original.user_attrs
    if attrs.get("surrogate") is not None:
        _check_hash(attrs, file_hash(surrogate_file(attrs["surrogate"])))
        from objective.surrogate.surrogate import Surrogate
        from objective.surrogate.surrogate import SurrogateObjective

        surrogate = Surrogate.load(surrogate_file(attrs["surrogate"]))
        return lambda repetition, trial: SurrogateObjective(
            surrogate, failure_value=None, train_seed=repetition.user_attrs["train_seed"]
        )(trial)
    testbed = stored_testbed(attrs, stored_runtime(attrs, work.where.runtime))
    _check_hash(attrs, testbed_hash(testbed))
    files = fingerprints(testbed, attrs.get(FILES))
    if edited := changes(attrs.get(FILES, files), files):
        raise Misuse(_EDITED.format(f"files of its testbed were edited since ({edited})"))
    artifacts = work.where.open_artifacts()
    is_code = attrs.get("method") == CODE_AGENT
    sandbox = isolation(testbed) if is_code else None
    sources = Sources(artifacts, unedited(testbed, attrs.get("edit_files", ())))
    train = TrainScriptObjective(
        testbed,
        train_seconds=attrs.get("train_seconds"),
        wall_seconds=attrs.get("wall_seconds"),
        memory_limit_mb=attrs.get("memory_limit_mb"),
        failure_value=None,
        artifact_store=artifacts,
        sandbox=sandbox,
    )
    if sandbox is not None:
        train.prepare()

    def objective(repetition: FrozenTrial, trial: optuna.Trial) -> float:
        seeded = train.with_seed(repetition.user_attrs["train_seed"])
        if not is_code:
            return seeded(trial)
        source = sources.load(repetition.user_attrs["source_sha256"])
        return seeded.run(trial, *script_and_others(source))

    return objective


def _check_hash(attrs: dict[str, Any], found: str) -> None:
    if attrs["testbed_hash"] != found:
        raise Misuse(_EDITED.format("its testbed or surrogate was edited since"))


def repetition_facts(storage: optuna.storages.BaseStorage, name: str) -> list[dict[str, Any]]:
    """Return the values of a study's repeated trials beside those of their repetitions.

    The trial with the best value comes first, repeated or not.
    """
    study = optuna.load_study(study_name=name, storage=storage)
    trials = study.get_trials(deepcopy=False)
    ranked = finalists(trials, Metric.of(study), len(trials), study.user_attrs)
    # Those of the ranked are the values that count.
    value = {trial.number: trial.value for trial in (*trials, *ranked)}
    repeated = {ranked[0].number: Repeated(), **repetitions(storage, study)}
    return [
        {
            "study": name,
            "trial": number,
            "best": value[number],
            "values": list(again.values),
            "mean": again.mean,
            "sd": again.sd,
            "same_value_each_time": again.fixed,
            "failed": again.failed,
        }
        for number, again in repeated.items()
    ]
