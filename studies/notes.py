"""Notes in optuna-dashboard: on each trial who proposed it, why, what it changed and what came of it;
on the study how it stands (`studies.study_note`).

They are system attributes of the study under the names of ``optuna_dashboard.save_note``, which is
not used: it would cost every worker the import of the dashboard.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from functools import cached_property
import re
from typing import Any
from typing import TYPE_CHECKING

from optuna.distributions import CategoricalDistribution
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from objective.best import values_run
from objective.testbed.metric import Metric
from samplers._llm.values import position
from samplers._trials.internals import first_number
from samplers._trials.internals import interrupted_before
from studies.budget import by_end
from studies.budget import is_interrupted
from studies.budget import is_ok
from studies.code_agent.history import best_of
from studies.code_agent.history import doubted_steps
from studies.facts import known_baseline
from studies.facts import REPEATS
from studies.facts import trial_status
from studies.printable import printable
from studies.printable import shortened
from studies.storage.bulk import add_study_attrs
from studies.study_note import describe_study
from studies.study_note import write_study_note


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


# Later trials have none: of each trial that it shows the dashboard looks through all notes.
MOST_TRIALS = 1000
_MOST_CHANGES = 4
_MOST_CHARACTERS = 200  # of somebody else's words

_PROPOSERS = {
    "cma-es": "a sample of CMA-ES",
    "steps": "a step from the best trials",
    "random": "a random configuration",
}
# Everything that Markdown, HTML in it, or a formula could begin with.
_MARKUP = re.compile(r"([!-/:-@\[-`{-~])")


class Notes:
    """Writes the notes that trials of a study don't have yet, and the study's own; what people wrote
    stays.

    Args:
        study: The study.
        storage: The one that it was opened with, if it is at hand.
    """

    def __init__(
        self,
        study: optuna.Study,
        storage: optuna.storages.BaseStorage | None = None,
    ) -> None:
        self._study = study
        self._storage = storage
        self._seen: set[int] = set()
        self._study_note = ""

    @cached_property
    def _of_study(self) -> tuple[Metric, dict[str, Any]]:
        return Metric.of(self._study), self._study.user_attrs

    def write(self, trials: Sequence[FrozenTrial]) -> None:
        """Write the notes of finished trials; ``trials`` are all of the study, by number."""
        ended = {t.number for t in trials if t.state.is_finished()} - self._seen
        if not ended:
            return
        storage = self._storage or self._study._storage
        numbers = {number for number in ended if number < MOST_TRIALS}
        written = []
        for trial, text in describe(trials, *self._of_study, numbers) if numbers else ():
            key = f"dashboard:{trial._trial_id}:note"
            written.append({f"{key}_ver": 1, f"{key}_str:0": text})
        note = self._describe_study(trials)
        try:
            if written:
                add_study_attrs(self._study, storage, written)
            if note != self._study_note:
                write_study_note(self._study, storage, note)
        except (StorageInternalError, SQLAlchemyError):  # who claims the next trial waits for it
            return
        self._seen |= ended
        self._study_note = note

    def _describe_study(self, trials: Sequence[FrozenTrial]) -> str:
        metric, attributes = self._of_study
        if all(REPEATS in t.user_attrs for t in trials):  # a study of repetitions has no best
            return ""
        best = best_of(trials, metric, attributes)
        baseline = known_baseline(trials, attributes)
        return describe_study(self._study.study_name, best, baseline, metric, attributes)


def describe(
    trials: Sequence[FrozenTrial],
    metric: Metric,
    attributes: Mapping[str, Any],
    numbers: set[int],
) -> Iterator[tuple[FrozenTrial, str]]:
    """Write the notes of trials as Markdown, in the order in which they ended.

    Args:
        trials: All trials of a study.
        metric: Its metric.
        attributes: The study's user attributes.
        numbers: Of the trials that are described.
    """
    ended = by_end(t for t in trials if t.state.is_finished())
    best: FrozenTrial | None = None
    doubted = doubted_steps(trials, metric, attributes)
    # What was doubted, with the value that counts, by the numbers of the second trainings.
    second = {
        step.again.number: step.counted
        for step in doubted.values()
        if step.again is not None and step.value is not None
    }
    repeated = {n: t.number for t in trials for n in interrupted_before(t)}
    for trial in ended:
        if trial.number in numbers:
            what = " ".join(filter(None, [_changes(trial, best), _outcome(trial, best, metric)]))
            if trial.number in repeated and is_interrupted(trial):
                what = f"Interrupted; trial {repeated[trial.number]} repeats it."
            elif trial.number in repeated:  # what the code agent did about a mistake in the code
                what = f"{what} Trial {repeated[trial.number]} is run in its place."
            if trial.number in doubted:
                what = f"{what} Doubted: {_quoted(doubted[trial.number].reason)}."
            # Two spaces at its end keep a line.
            yield trial, f"{_proposal(trial, attributes)}  \n{what}"
        counts = is_ok(trial) and trial.number not in doubted and not _tells_noise(trial)
        if trial.number in second:
            trial, counts = second[trial.number], True
        if counts and (best is None or _gain(trial, best, metric) > 0):
            best = trial


def _proposal(trial: FrozenTrial, study: Mapping[str, Any]) -> str:
    """Who proposed a trial, and why."""
    attrs = trial.user_attrs
    source = attrs.get("source")
    reason = f": {_quoted(attrs['llm_reason'])}" if attrs.get("llm_reason") else ""
    model = f"the language model ({_quoted(attrs.get('llm_model') or 'unknown')})"
    other = _PROPOSERS.get(str(attrs.get("proposer")), "the method's own configuration")
    chosen = ", chosen by the critic" if attrs.get("chosen_by") == "critic" else ""
    if source == "llm":
        return f"Proposed by {model}{chosen}{reason}."
    if source == "llm-screened":
        return f"Proposed: {other}, which the critic preferred to that of {model}."
    if source in ("llm-error", "llm-duplicate"):
        return f"Proposed: {other}, since {model} gave none that could be used{reason}."
    if source == "enqueued" and REPEATS in attrs:
        return f"Runs trial {attrs[REPEATS]} again, with another seed, to see how much was luck."
    if source == "enqueued" and first_number(trial) == 0:
        return "Given: the script's own values."
    if source == "enqueued":
        return "Given by a user (enqueued)."
    if source == "tuner":
        return "Proposed by the tuner of constants."
    if source == "again":
        return (
            f"Trains trial {attrs.get(REPEATS)} again, with another seed, whose gain is doubted."
        )
    if source == "startup" and "source_sha256" in attrs:
        noise = ", with another seed, to see how much is noise" if _tells_noise(trial) else ""
        return f"Given: the script as it is{noise}."
    if "proposer" in attrs:
        return f"Proposed: {other}{chosen}."
    if study.get("imported_from"):
        by = f", proposed by {_quoted(source)}" if source else ""
        return f"Imported from {_quoted(study['imported_from'])}{by}{reason}."
    if source == "startup":
        return "Proposed: a random configuration, as a start."
    method = study.get("method")
    return f"Proposed by {_quoted(method)}." if method else "Nobody said who proposed it."


def _changes(trial: FrozenTrial, best: FrozenTrial | None) -> str:
    """What a trial changed: an edit of its script, or values of the best trial before."""
    attrs = trial.user_attrs
    if "parent" in attrs:
        lines = f"+{attrs.get('lines_added', '?')} -{attrs.get('lines_removed', '?')} lines"
        said = attrs.get("description")
        return f"Changed from trial {attrs['parent']} ({lines}){_after(said)}."
    if best is None or not trial.params:
        return ""
    then, now = values_run(best), values_run(trial)
    changed = [name for name in now if name in then and now[name] != then[name]]
    if not changed:
        return f"The same values as trial {best.number}, the best then."
    first = sorted(changed, key=lambda name: -_distance(trial, name, then[name], now[name]))
    shown = [f"{_quoted(n)} {_value(then[n])} to {_value(now[n])}" for n in first[:_MOST_CHANGES]]
    more = f" and {len(changed) - len(shown)} more" if len(changed) > len(shown) else ""
    return f"Changed from trial {best.number}, the best then: {', '.join(shown)}{more}."


def _distance(trial: FrozenTrial, name: str, then: Any, now: Any) -> float:
    """How far apart two values are, as a share of the range; choices are far."""
    distribution = trial.distributions[name]
    if isinstance(distribution, CategoricalDistribution):
        return 1.0
    try:
        return abs(position(then, distribution) - position(now, distribution))
    except (TypeError, ValueError, ArithmeticError):  # of a best trial with another range
        return 1.0


def _outcome(trial: FrozenTrial, best: FrozenTrial | None, metric: Metric) -> str:
    """What came of a trial, beside the best before."""
    if trial.state == TrialState.PRUNED:
        step = trial.last_step
        at = f" at {step} (percent, or step if its end is unknown)" if step is not None else ""
        return f"Stopped early{at}, as hopeless."
    if is_interrupted(trial):
        return "Interrupted."
    if not is_ok(trial):
        if trial.state == TrialState.COMPLETE and "status" not in trial.user_attrs:
            return f"Came to {trial.values[0]:.5g}."
        return f"Failed: {_quoted(trial_status(trial))}{_after(trial.user_attrs.get('reason'))}."
    came = f"Came to {_quoted(metric.name)} {trial.values[0]:.5g}"
    if _tells_noise(trial):
        return f"{came}."
    if best is None:
        return f"{came}, the first value."
    gain = _gain(trial, best, metric)
    if gain > 0:
        return f"{came}: the best so far, by {gain:.2g}."
    behind = f"{-gain:.2g} behind" if gain else "the same as"
    return f"{came}, {behind} trial {best.number}."


def _tells_noise(trial: FrozenTrial) -> bool:
    """Return whether a trial ran only to see how much is noise, and may be the best by luck."""
    attrs = trial.user_attrs
    # Where each trial has a seed of its own, all are in search of the best.
    return REPEATS in attrs or {"train_seed", "source_sha256"} <= attrs.keys()


def _gain(trial: FrozenTrial, best: FrozenTrial, metric: Metric) -> float:
    return metric.cost(best.values[0]) - metric.cost(trial.values[0])


def _after(words: Any) -> str:
    return f": {_quoted(words)}" if words else ""


def _value(value: Any) -> str:
    return _quoted(f"{value:.3g}" if isinstance(value, float) else value)


def _quoted(words: Any) -> str:
    """Put somebody else's words into one line that Markdown shows as they are."""
    text = " ".join(printable(str(words)).split()).rstrip(".")
    return _MARKUP.sub(r"\\\1", shortened(text, _MOST_CHARACTERS))
