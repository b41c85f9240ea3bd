"""Opens a study from its description, and runs it in this process."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any
from typing import TYPE_CHECKING

import optuna
from optuna.trial import TrialState

from objective import Testbed
from objective import TrainScriptObjective
from objective.objective import is_side_data
from objective.objective import OWN_SEEDS
from objective.testbed.interface import Interface
from objective.testbed.search_space import to_lines
from objective.testbed.space_file import NAME as SPACE_FILE
from objective.testbed.space_file import SpaceFile
from studies.budget import is_ok
from studies.changes import changes
from studies.changes import FILES
from studies.llm import open_llm
from studies.llm import within_caps
from studies.loop import Objective
from studies.loop import StudyLoop
from studies.loop import Watch
from studies.methods import Setup
from studies.notes import Notes
from studies.pruning import make_pruner
from studies.repetitions import pooled_sd
from studies.repetitions import repetitions
from studies.spec import failure_value_of
from studies.spec import load_testbed
from studies.spec import RUNTIME
from studies.spec import space_hash
from studies.spec import StudyConflict
from studies.storage.bulk import add_trials
from studies.storage.open import check_name
from studies.storage.open import open_storage
from studies.storage.open import reading
from studies.storage.open import study_names
from studies.storage.recovery import alone
from studies.study_note import COMMAND


if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from objective.surrogate.surrogate import Surrogate
    from samplers import Chat
    from studies.spec import Spec


_SEEDS_OF_A_STUDY = 10_000  # from a study's first seed of a training to that of the next study

# User attributes of a study that each command may give another value, or none.
_MAY_CHANGE = {"wall_seconds", "memory_limit_mb", RUNTIME}


def open_study(
    spec: Spec, testbed: Testbed | Surrogate, storage: optuna.storages.BaseStorage
) -> optuna.Study:
    """Open the study of this name, new or as an equal command left it.

    Raises:
        StudyConflict: If it was made with other parameters or another search space.
        StorageError: If it can't be read, or has another name.
    """
    there = spec.name in study_names(storage)
    with reading(spec.name) if there else nullcontext():
        study = optuna.create_study(
            storage=storage,
            study_name=spec.name,
            direction=testbed.metric.direction,
            pruner=make_pruner(spec.prune),
            load_if_exists=True,
        )
        check_name(study, spec.name)
        numbers = [trial.number for trial in study.get_trials(deepcopy=False)]
        if numbers != list(range(len(numbers))):  # by which the loop finds a trial among them
            raise ValueError(f"its trials must be numbered 0 to {len(numbers) - 1}, but aren't")
        study.user_attrs
    metadata = spec.metadata(testbed, study.user_attrs.get(FILES))
    check_comparable(study, spec, testbed, metadata)
    testbed.metric.name_in(study)
    if not spec.row.edits_code:
        metadata.setdefault("failure_value", failure_value_of(study.user_attrs))
    # Repetitions run with what is stored: an option that is dropped must not stay there.
    dropped = dict.fromkeys(_MAY_CHANGE - metadata.keys())
    limits = {**dropped, **spec.budget.metadata(), **spec.model.metadata()}
    if spec.command is not None:
        limits[COMMAND] = spec.command
    _note_metadata(study, metadata, limits)
    return study


def _note_metadata(
    study: optuna.Study, metadata: Mapping[str, Any], limits: Mapping[str, Any]
) -> None:
    """Write what a study doesn't yet say of itself, and its limits and command as they are now."""
    stored = study.user_attrs
    # The hash first, so that the study is known for one of ours from there on. The method last:
    # who finds it, as another process just now may, finds all the others.
    turn = {"testbed_hash": 0, "method": 2}
    for key, value in sorted(metadata.items(), key=lambda item: turn.get(item[0], 1)):
        # What was made with another script or other files, `check_comparable` has judged.
        may_change = key in _MAY_CHANGE or key in ("testbed_hash", FILES)
        if key not in stored or (may_change and stored[key] != value):
            study.set_user_attr(key, value)
    for key, value in limits.items():
        if stored.get(key) != value:
            study.set_user_attr(key, value)


def check_comparable(
    study: optuna.Study, spec: Spec, testbed: Testbed | Surrogate, metadata: Mapping[str, Any]
) -> None:
    """Raise StudyConflict if new trials would not compare with those that a study has.

    ``metadata`` is what the study would have of its spec now.
    """
    option, base = (
        ("--study", spec.name) if spec.comparison is None else ("--name", spec.comparison)
    )
    names = study_names(study._storage)
    free = next(
        name
        for name in (f"{base}-{n}" for n in count(2))
        if not any(other.startswith(name) for other in names)
    )
    advice = f"to begin another, add {option} {free}"
    stored = study.user_attrs
    trials = study.get_trials(deepcopy=False)
    if trials and "method" not in stored:
        raise StudyConflict(f"study {spec.name!r} was made by another program; {advice}")
    if "method" in stored:
        defaults: dict[str, Any] = {**Interface().facts(), "charge_llm": False}
        defaults |= {"vary_seed": False, "tune": 0.0, "tune_edits": 0, "edit_files": []}
        stored = {**defaults, "failure_value": failure_value_of(stored), **stored}
    # `compare` has no such option.
    goes_on = "; --accept-changes goes on" if spec.comparison is None else ""
    # What never worked is mended by an edit, and there is no value yet that wouldn't compare.
    may_be_edited = spec.accept_changes or not (spec.row.edits_code or any(map(is_ok, trials)))
    for key, value in spec.identity(testbed).items():
        if key in stored and stored[key] != value:
            if key == "testbed_hash":
                if may_be_edited:
                    continue
                what = (
                    f"another script, prepare.py or surrogate (or they were edited since{goes_on})"
                )
            else:
                what = f"{key} {stored[key]}, not {value}"
            raise StudyConflict(f"study {spec.name!r} was made with {what}; {advice}")
    files = metadata.get(FILES, {})
    if edited := "" if may_be_edited else changes(stored.get(FILES, files), files):
        raise StudyConflict(
            f"study {spec.name!r} was made with other files ({edited}); undo that; {advice}{goes_on}"
        )
    if spec.row.edits_code:
        return
    ranges = [(n, d) for trial in trials for n, d in trial.distributions.items()]
    former = {name: d for name, d in ranges if testbed.space.get(name) != d}
    lacking = {
        name
        for trial in trials
        if trial.state == TrialState.COMPLETE
        for name in testbed.space.keys() - trial.distributions.keys()
    }
    # Two workers may begin before any trial says what its space is.
    is_other = stored.get("space_hash", space_hash(testbed)) != space_hash(testbed)
    if is_other and ranges:
        lacking |= testbed.space.keys() - dict(ranges).keys()
    if former or lacking or is_other:
        odd = ", ".join(sorted({*former, *lacking}))
        raise StudyConflict(
            f"study {spec.name!r} has another search space than the testbed{odd and f' ({odd})'};"
            f" {advice}{_as_it_was(testbed, former, lacking)}"
        )


def _as_it_was(
    testbed: Testbed | Surrogate, former: dict[str, BaseDistribution], lacking: set[str]
) -> str:
    """Say how a testbed gets a study's ranges back; "" if it can't."""
    if not isinstance(testbed, Testbed) or testbed.is_embedded or not (former or lacking):
        return ""
    if not former.keys() <= testbed.delivery.parameters.keys():
        return ""
    untuned = tuple(sorted(lacking - former.keys()))
    said = SpaceFile(defaults=testbed.file.defaults, untuned=untuned)
    lines = to_lines(former, testbed.rule, said)
    return (
        f"; to go on, begin {SPACE_FILE} with these lines, in place of what it says of them:"
        f" {' and '.join(lines)}"
    )


def setup(spec: Spec, testbed: Testbed | Surrogate, chat: Chat | None) -> Setup:
    """Build the `Setup` of a spec's method."""
    limits = []
    # The embedded testbed's task.md says what matters of it.
    if isinstance(testbed, Testbed) and not testbed.is_embedded and testbed.fixed:
        fixed = ", ".join(f"{name} = {value}" for name, value in testbed.fixed.items())
        limits.append(f"The same in every trial: {fixed}.")
    if spec.budget.train_seconds is not None:
        limits.append(f"Every trial trains for {spec.budget.train_seconds:g} seconds.")
    if spec.limits.memory_mb is not None:
        limits.append(f"A trial that needs more than {spec.limits.memory_mb} MB of memory fails.")
    return Setup(
        seed=spec.seed,
        space=testbed.space,
        n_trials=spec.budget.trials,
        task="\n".join([testbed.task.rstrip(), *limits]),
        rule=testbed.rule,
        derived=testbed.derived,
        side_data=partial(is_side_data, testbed.metric.name),
        chat=chat,
        llm_ratio=spec.model.llm_ratio,
        asking=spec.row.asking(spec.model.asking),
        goes_on=spec.comparison is None,
    )


def run_study(spec: Spec, watch: Watch = lambda trials: None) -> optuna.Study:
    """Do a study's trials in this process until its budget is used up.

    A study of the code agent needs `studies.code_agent.agent.run_agent` instead.
    """
    testbed = load_testbed(spec)
    where, method = spec.where, spec.row
    chat = open_llm(spec.model) if method.uses_llm else None
    storage = open_storage(where.storage, wait=where.wait)
    study = open_study(spec, testbed, storage)
    loop = StudyLoop(
        study,
        make_objective(spec, testbed, study),
        testbed.baseline,
        method,
        replace(
            setup(spec, testbed, chat),
            artifact_store=where.open_artifacts(),
            noise=pooled_sd(repetitions(storage, study).values()) if method.uses_llm else None,
        ),
        spec.budget,
        lock_file=where.lock_file,
        results=where.results,
    )
    if where.surrogate is not None and not method.uses_llm:
        _run_in_memory(loop, storage, watch)
    else:
        loop.run(within_caps(chat, watch))
    return study


def train_objective(spec: Spec, testbed: Testbed, **options: Any) -> TrainScriptObjective:
    """Build a spec's training objective, with further options of `TrainScriptObjective`."""
    return TrainScriptObjective(
        testbed,
        train_seconds=spec.budget.train_seconds,
        wall_seconds=spec.limits.wall_seconds,
        memory_limit_mb=spec.limits.memory_mb,
        artifact_store=spec.where.open_artifacts(),
        results=spec.where.results,
        **options,
    )


def make_objective(spec: Spec, testbed: Testbed | Surrogate, study: optuna.Study) -> Objective:
    """Build the objective that evaluates the trials of a spec's study."""
    failure_value = failure_value_of(study.user_attrs)
    if isinstance(testbed, Testbed):
        # As of a surrogate: methods with one seed share their noise.
        first = (OWN_SEEDS + _SEEDS_OF_A_STUDY * spec.seed) % 2**31 if spec.vary_seed else None
        return train_objective(
            spec,
            testbed,
            failure_value=failure_value,
            train_seed=first,
            vary_seed=spec.vary_seed,
        )
    from objective.surrogate.surrogate import SurrogateObjective

    # Seeds differ in their noise as they would in trainings; methods with one seed share it.
    return SurrogateObjective(testbed, train_seed=spec.seed, failure_value=failure_value)


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
            Notes(stored, storage).write(stored.get_trials(deepcopy=False))
