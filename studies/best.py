"""The winner of a study: which trial it is, what it was run with, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from dataclasses import dataclass
from functools import cached_property
import math
import os
from typing import Any
from typing import TYPE_CHECKING

import optuna

from objective import TestbedError
from objective.best import by_value
from objective.best import has_succeeded
from objective.best import values_run
from objective.testbed.by_hand import by_hand
from objective.testbed.metric import Metric
from objective.testbed.space_file import NAME as SPACE_FILE
from studies.code_agent.files import unedited
from studies.code_agent.history import kept_first
from studies.code_agent.sources import Sources
from studies.errors import Misuse
from studies.facts import configuration
from studies.facts import known_baseline
from studies.library import evaluated_trials
from studies.library import is_library_study
from studies.library import metric_of
from studies.printable import decimals
from studies.printable import times
from studies.range_ends import range_ends
from studies.repetitions import pooled_sd
from studies.repetitions import Repeated
from studies.repetitions import repetitions
from studies.repetitions import why_not
from studies.spec import EMBEDDED
from studies.spec import stored_runtime
from studies.spec import stored_testbed
from studies.spec import testbed_hash
from studies.storage.open import reading


if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from studies.spec import Where


_NAMED = 3  # of many that a sentence names before it counts the others


@dataclass(frozen=True)
class Winner:
    """A study's best trial.

    Attributes:
        study: The study.
        metric: What it optimizes.
        trial: The best trial: of those that were trained again, by the share of failures and then
            by the mean of these trainings; the one with the best value, if that one wasn't.
        by_value: The one with the best value; of a code study what the agent kept.
        baseline: The run of the script as it is; ``None`` if the study has none that succeeded.
        repeated: The repetitions of the study's trials by their numbers.
        ends: The ends of ranges at which the best trials lie, by the parameter's name.
    """

    study: optuna.Study
    metric: Metric
    trial: FrozenTrial
    by_value: FrozenTrial
    baseline: FrozenTrial | None
    repeated: dict[int, Repeated]
    ends: dict[str, float]

    @property
    def value(self) -> float:
        """The mean of the best trial's repetitions, or its own value without any."""
        return self._value(self.trial)

    @property
    def baseline_value(self) -> float | None:
        """The same of the baseline; ``None`` without one."""
        return None if self.baseline is None else self._value(self.baseline)

    def _value(self, trial: FrozenTrial) -> float:
        again = self.repeated.get(trial.number)
        return trial.values[0] if again is None or again.mean is None else again.mean

    def is_baseline(self, trial: FrozenTrial) -> bool:
        """Whether a trial ran the baseline's configuration: it, or the same again."""
        was = self.baseline
        return was is not None and configuration(trial) == configuration(was)

    @property
    def gain(self) -> float | None:
        """By how much the winner is better than the baseline; ``None`` without one."""
        was = self.baseline_value
        return None if was is None else self.metric.cost(was) - self.metric.cost(self.value)

    @property
    def gain_error(self) -> float | None:
        """Standard error of the gain by the noise between trainings; ``None`` if that isn't known."""
        return None if self.baseline is None else self._error(self.baseline.number)

    def _error(self, other: int) -> float | None:
        """Standard error of the winner's difference from another trial, as far as it is known."""
        if self.noise is None:
            return None
        again = (self.repeated.get(number, Repeated()) for number in (self.trial.number, other))
        return self.noise * math.sqrt(sum(1 / max(1, len(r.values)) for r in again))

    @property
    def rivals(self) -> list[int]:
        """Numbers of the other finalists that the noise doesn't let be told from the winner.

        Of each configuration it is one: an earlier command may have repeated another trial of it.
        """
        best = self.metric.cost(self.value)
        seen = {configuration(t) for t in (self.trial, self.baseline) if t}
        rivals = []
        for trial in self.study.get_trials(deepcopy=False):
            again = self.repeated.get(trial.number)
            if again is None or again.mean is None or again.failed:
                continue
            is_near = self.metric.cost(again.mean) - best < 2 * (self._error(trial.number) or 0.0)
            if is_near and (what := configuration(trial)) not in seen:
                rivals.append(trial.number)
                seen.add(what)
        return rivals

    @property
    def noise(self) -> float | None:
        """Standard deviation between trainings of one configuration, pooled over the repeated."""
        return pooled_sd(self.repeated.values())

    @property
    def stored(self) -> dict[str, Any]:
        """The parameters that Optuna stores with another value than the one that was run."""
        run = values_run(self.trial)
        return {name: v for name, v in self.trial.params.items() if run[name] != v}

    @cached_property
    def command(self) -> str | None:
        """What runs the script with its values from any folder, as its trial was run.

        Except for the training time, if a trial's was set in a constant. None if the values aren't
        in its command. Where the testbed is gone it is the command alone.
        """
        attrs = self.study.user_attrs
        line: str | None = self.trial.user_attrs.get("command")
        if line is None or "testbed" not in attrs:
            return line
        with suppress(TestbedError):
            return by_hand(stored_testbed(attrs, stored_runtime(attrs)), line)
        return line

    def facts(self) -> dict[str, Any]:
        """Return all this as plain values, for JSON."""
        again = self.repeated.get(self.trial.number)
        baseline = self.baseline
        return {
            "study": self.study.study_name,
            "metric": self.metric.name,
            "direction": self.metric.direction,
            "trial": self.trial.number,
            "value": self.trial.values[0],
            "params": values_run(self.trial),
            "stored": self.stored,
            "range_ends": self.ends,
            "command": self.command,
            "repeated": None if again is None else _facts(again),
            "best_by_value": {"trial": self.by_value.number, "value": self.by_value.values[0]},
            "baseline": baseline
            and {
                "trial": baseline.number,
                "value": baseline.values[0],
                "params": values_run(baseline),
            },
            "gain": self.gain,
            "noise_sd": self.noise,
            "finalists": [
                {"trial": number, **_facts(repeated)}
                for number, repeated in sorted(self.repeated.items())
            ],
        }


def _facts(again: Repeated) -> dict[str, Any]:
    return {**asdict(again), "mean": again.mean, "sd": again.sd}


def find_winner(study: optuna.Study, storage: optuna.storages.BaseStorage) -> Winner | None:
    """Return a study's best trial; ``None`` if none has succeeded.

    Raises:
        Misuse: If the study has several objectives.
        StorageError: If it can't be read.
    """
    if len(study.directions) > 1:
        raise Misuse(
            f"study {study.study_name!r} must have one objective, but has {len(study.directions)}"
        )
    with reading(study.study_name):
        trials = study.get_trials(deepcopy=False)
        metric, repeated = metric_of(study), repetitions(storage, study)
    ranked = kept_first(by_value(trials, study.direction), trials, metric, study.user_attrs)
    if not ranked:
        return None
    best = ranked[0]
    if best.number in repeated:
        again = (t for t in ranked if t.number in repeated)
        best = min(again, key=lambda t: repeated[t.number].rank(metric))
    baseline = known_baseline(evaluated_trials(study), study.user_attrs)
    if baseline is not None and not has_succeeded(baseline):
        baseline = None
    # Nothing is beyond the ranges of a surrogate, and the code agent sets its own.
    has_none = study.user_attrs.get("surrogate") or "source_sha256" in best.user_attrs
    ends = {} if has_none else range_ends(ranked, best)
    return Winner(study, metric, best, ranked[0], baseline, repeated, ends)


def sentences(winner: Winner, revalidate: str) -> Iterator[str]:
    """Say how sure the winner is and what it gained, without capitals and full stops.

    ``revalidate`` is the command that trains it again.
    """
    name, number, attrs = winner.metric.name, winner.trial.number, winner.study.user_attrs
    can_repeat = not why_not(attrs)
    if (again := winner.repeated.get(number)) is None:
        advice = f"; to train it again: {revalidate}" if can_repeat else ""
        if is_library_study(attrs):  # of which nothing says whether it is noisy
            yield f"trial {number} was evaluated once: where {name} is noisy, it is in part luck"
        else:
            yield f"trial {number} was trained once, so that its {name} is in part luck{advice}"
    else:
        n = again.trainings
        more = f"trial {number} was trained {times(n)} more"
        seeds = f"with {'another seed' if n == 1 else 'other seeds'}"
        seeds += f", and failed in {again.failed} of them" if again.failed else ""
        if again.mean is None:
            yield f"{more}, and failed each time: don't rely on its {name}"
        elif again.fixed:
            yield (
                f"{more}, {seeds}, and came to exactly the same {name}: its script takes no seed"
                " (AUTORESEARCH_SEED, {SEED} in --command, or an option, constant or value of its"
                " configuration that is called seed), or heeds it without effect, so that this says"
                " nothing about luck"
            )
        else:
            mean = " on average" if len(again.values) > 1 else ""
            sd = "" if again.sd is None else f" (sd {decimals(again.sd)})"
            advice = "" if again.failed else "; believe that"
            if n == 1:
                advice = "; that may be luck, too"
                advice += f"; to train it more often: {revalidate}" if can_repeat else ""
            yield f"{more}, {seeds}: {name} {decimals(again.mean)}{mean}{sd}{advice}"
    was, gain, error = winner.baseline_value, winner.gain, winner.gain_error
    if winner.is_baseline(winner.trial):
        on_repetition = "" if winner.is_baseline(winner.by_value) else " on repetition"
        yield f"no trial was better than the baseline{on_repetition}"
    elif was is not None and gain is not None:
        word = "better" if gain > 0 else "on repetition worse" if winner.repeated else "worse"
        by, baseline = f"by {decimals(abs(gain))}", f"the baseline ({decimals(was)})"
        if gain == 0:
            yield f"as good as {baseline}"
        elif winner.noise is None or error is None:
            yield f"{word} than {baseline} {by}"
        else:
            noise = f"noise between trainings: sd {decimals(winner.noise)}"
            yield (
                f"not to be told from {baseline}: {word} {by}, within the {noise}"
                if abs(gain) < 2 * error
                else f"{word} than {baseline} {by}; {noise}"
            )
    if rivals := winner.rivals:
        yield (
            f"within the noise between trainings trial {number} is not to be told from"
            f" trial{'s' * (len(rivals) > 1)} {listed(rivals)}"
        )
    if winner.ends:
        at = ", ".join(f"{name} at {end:.6g}" for name, end in winner.ends.items())
        # Elsewhere there is no file to write a range into.
        is_script = attrs.get("testbed", EMBEDDED) != EMBEDDED
        advice = (
            f"; for that, widen it in {SPACE_FILE} and begin another study" if is_script else ""
        )
        yield (
            f"the best trials lie at an end of a range ({at}), beyond which nothing was tried{advice}"
        )


def listed(names: Sequence[object]) -> str:
    """Write ``a``, ``a and b``, or of many ``a, b, c and 2 others``."""
    named = [str(name) for name in names[:_NAMED]]
    if unnamed := len(names) - len(named):
        named.append(f"{unnamed} other{'s' * (unnamed > 1)}")
    return " and ".join(filter(None, [", ".join(named[:-1]), named[-1]]))


def scripts(winner: Winner, where: Where) -> tuple[str, str, str]:
    """Return the script's name (the configuration file's, if that takes the values), the text of it,
    and the text as the winner ran it.

    Raises:
        Misuse: If the study has no script, or another one by now.
    """
    study, attrs = winner.study, winner.study.user_attrs
    if "testbed_hash" not in attrs or "testbed" not in attrs or attrs.get("surrogate"):
        raise Misuse(
            f"study {study.study_name!r} trained no script of a testbed: there are only its values"
        )
    testbed = stored_testbed(attrs)
    if attrs["testbed_hash"] != testbed_hash(testbed):
        raise Misuse(
            f"{attrs['testbed']} was edited since study {study.study_name!r} trained it; its script"
            f" as it was run is `train.py` among the artifacts of trial {winner.trial.number}"
            " (see `dashboard`)"
        )
    if sha := winner.trial.user_attrs.get("source_sha256"):
        baseline = unedited(testbed, attrs.get("edit_files", ()))
        best = Sources(where.open_artifacts(), baseline).load(sha)
        return testbed.delivery.script, baseline, best
    if testbed.delivery.is_by_command:
        raise Misuse(
            "--write and --diff must have a script that takes its values from a file, but that of"
            f" study {study.study_name!r} takes them from its command line; to run it:"
            f" {winner.command}"
        )
    config = testbed.delivery.config
    name = testbed.delivery.script if config is None else config.name
    if ".." in name:  # with which no patch is applied
        name = os.path.relpath(testbed.path / name, testbed.files.root)
    return name, *testbed.delivery.written(testbed.source, values_run(winner.trial))
