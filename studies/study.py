"""From a description of a study to its trials, in this process or in several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from typing import TYPE_CHECKING
import warnings

import optuna
from optuna.trial import TrialState

from objective import Testbed
from objective import TrainScriptObjective
from objective.results import Results
from studies.budget import Budget
from studies.llm import open_llm
from studies.loop import Objective
from studies.loop import StudyLoop
from studies.loop import Watch
from studies.methods import METHODS
from studies.methods import Setup
from studies.spec import load_testbed
from studies.spec import space_hash
from studies.spec import StudyConflict
from studies.storage.bulk import add_trials
from studies.storage.open import artifact_folder
from studies.storage.open import claim_lock
from studies.storage.open import open_artifacts
from studies.storage.open import open_storage
from studies.storage.recovery import alone


if TYPE_CHECKING:
    from optuna.artifacts import FileSystemArtifactStore

    from objective.surrogate.surrogate import Surrogate
    from samplers import Chat
    from studies.spec import AgentSpec
    from studies.spec import StudySpec


def open_study(
    spec: StudySpec, testbed: Testbed | Surrogate, storage: optuna.storages.BaseStorage
) -> optuna.Study:
    """The study of this name, new or as an equal command left it.

    Raises:
        StudyConflict: If it was made with other parameters or another search space.
    """
    study = optuna.create_study(
        storage=storage,
        study_name=spec.name,
        direction=testbed.metric.direction,
        pruner=optuna.pruners.NopPruner(),
        load_if_exists=True,
    )
    testbed.metric.name_in(study)
    _check_comparable(study, spec, testbed)
    note_facts(study, spec.facts(testbed), spec.budget)
    return study


def note_facts(study: optuna.Study, facts: Mapping[str, Any], budget: Budget) -> None:
    """Write what a study doesn't yet say of itself, and its limits as they are now."""
    stored = study.user_attrs
    for key, value in facts.items():
        if key not in stored or (key == "wall_seconds" and stored[key] != value):
            study.set_user_attr(key, value)
    for key, value in budget.facts().items():
        if stored.get(key) != value:
            study.set_user_attr(key, value)


def _check_comparable(study: optuna.Study, spec: StudySpec, testbed: Testbed | Surrogate) -> None:
    option = "--study" if spec.comparison is None else "--name"
    advice = f"choose another {option} or --storage, or repeat the command that made it"
    stored = study.user_attrs
    trials = study.get_trials(deepcopy=False)
    if trials and "method" not in stored:
        raise StudyConflict(f"study {spec.name!r} was made by another program; {advice}")
    if "method" in stored:
        stored = {"charge_llm": False, **stored}
    for key, value in spec.identity(testbed).items():
        if key in stored and stored[key] != value:
            if key == "testbed_hash":
                what = "another train.py, prepare.py or surrogate (or they were edited since)"
            else:
                what = f"{key} {stored[key]}, not {value}"
            raise StudyConflict(f"study {spec.name!r} was made with {what}; {advice}")
    for trial in trials:
        odd = {n for n, d in trial.distributions.items() if testbed.space.get(n) != d}
        if trial.state == TrialState.COMPLETE:
            odd |= testbed.space.keys() - trial.distributions.keys()
        if odd:
            raise StudyConflict(
                f"study {spec.name!r} has another search space than the testbed"
                f" ({', '.join(sorted(odd))}); {advice}"
            )
    # Two workers may begin before any trial says what its space is.
    if stored.get("space_hash", space_hash(testbed)) != space_hash(testbed):
        raise StudyConflict(
            f"study {spec.name!r} has another search space than the testbed; {advice}"
        )


def setup(spec: StudySpec, testbed: Testbed | Surrogate, chat: Chat | None) -> Setup:
    """What the method of a spec may know."""
    limits = []
    if spec.budget.train_seconds is not None:
        limits.append(f"Every trial trains for {spec.budget.train_seconds:g} seconds.")
    if spec.memory_limit_mb is not None:
        limits.append(f"A trial that needs more than {spec.memory_limit_mb} MB of memory fails.")
    return Setup(
        seed=spec.seed,
        n_trials=spec.budget.trials,
        task="\n".join([testbed.task.rstrip(), *limits]),
        rule=testbed.rule,
        chat=chat,
        llm_ratio=spec.llm_ratio,
    )


def run_study(spec: StudySpec, watch: Watch = lambda trials: None) -> optuna.Study:
    """Do a study's trials in this process until its budget is used up.

    Args:
        spec: The study.
        watch: Is given the study's trials whenever that may be news.
    """
    testbed = load_testbed(spec)
    method = METHODS[spec.method]
    chat = open_llm(spec.llm, spec.model) if method.uses_llm else None
    storage = open_storage(spec.storage)
    study = open_study(spec, testbed, storage)
    artifacts = open_artifacts(spec.storage, spec.artifacts)
    folder = spec.artifacts or artifact_folder(spec.storage)
    results = Results(folder / "results")
    loop = StudyLoop(
        study,
        make_objective(spec, testbed, artifacts, results),
        testbed.baseline,
        method,
        replace(setup(spec, testbed, chat), artifact_store=artifacts),
        spec.budget,
        lock_file=str(claim_lock(spec.storage, spec.artifacts)),
        results=results,
    )
    if spec.surrogate is not None and not method.uses_llm:
        _run_in_memory(loop, storage, watch)
    else:
        loop.run(watch)
    return study


def make_objective(
    spec: StudySpec,
    testbed: Testbed | Surrogate,
    artifacts: FileSystemArtifactStore,
    results: Results,
) -> Objective:
    """What evaluates the trials of a spec."""
    if isinstance(testbed, Testbed):
        return TrainScriptObjective(
            testbed,
            train_seconds=spec.budget.train_seconds,
            wall_seconds=spec.wall_seconds,
            memory_limit_mb=spec.memory_limit_mb,
            artifact_store=artifacts,
            results=results,
        )
    from objective.surrogate.surrogate import SurrogateObjective

    # Seeds differ in their noise as they would in trainings; methods with one seed share it.
    return SurrogateObjective(testbed, train_seed=spec.seed)


def _run_in_memory(loop: StudyLoop, storage: optuna.storages.BaseStorage, watch: Watch) -> None:
    """Run a study whose trials cost less than to store each of their parts, and store it then.

    In SQLite a trial of 14 parameters takes 90 ms of processor time, of which a surrogate takes
    less than 1. A study that is killed meanwhile has only the trials of earlier commands; since
    samplers are functions of the seed and the trial's number, the others come again as they were.
    """
    stored = loop.study
    memory = optuna.create_study(direction=stored.direction, pruner=stored.pruner)
    memory.add_trials(stored.get_trials(deepcopy=False))
    replace(loop, study=memory, lock_file=None, results=None).run(watch)
    with alone(loop.lock_file):  # another process may have run the same
        there = len(stored.get_trials(deepcopy=False))
        if new := memory.get_trials(deepcopy=False)[there:]:
            add_trials(stored, storage, new)


def open_code_study(
    spec: AgentSpec, testbed: Testbed, storage: optuna.storages.BaseStorage
) -> optuna.Study:
    """The study of this name, new or as an equal command left it.

    Raises:
        StudyConflict: If it was made with other parameters, or is no code study.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            storage=storage,
            study_name=spec.name,
            direction=testbed.metric.direction,
            load_if_exists=True,
            # Optuna's default ends what is worse than the median; here all get the same time.
            pruner=optuna.pruners.NopPruner(),
        )
        testbed.metric.name_in(study)
    stored = study.user_attrs
    option = "--study" if spec.comparison is None else "--name"
    if study.get_trials(deepcopy=False) and "method" not in stored:
        raise StudyConflict(f"study {spec.name!r} was made by another program; choose another")
    if "method" in stored:
        stored = {"charge_llm": False, **stored}
    for key, value in spec.identity(testbed).items():
        if stored.get(key, value) != value:
            raise StudyConflict(
                f"study {spec.name!r} was made with {key} {stored[key]}, not {value}; choose"
                f" another {option} or --storage, or repeat the command that made it"
            )
    note_facts(study, spec.facts(testbed), spec.budget)
    return study
