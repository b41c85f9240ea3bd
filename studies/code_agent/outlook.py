"""The part of a prompt that changes from turn to turn: what the tuner found, what is left, a run's costs."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
import re
from typing import Any
from typing import TYPE_CHECKING

from samplers._llm.prompt import neutral
from studies.code_agent.history import CodeHistory
from studies.code_agent.history import is_baseline
from studies.code_agent.history import KEPT
from studies.code_agent.history import Step
from studies.printable import decimals


if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


# Constants whose sensitivities are told.
_N_CONSTANTS = 6
# Trials in a row without a gain that are called a standstill.
_STANDSTILL = 4
_REASON_CHARS = 600  # of why an idea can't be used, with the nearest lines
_FACTS = {
    "steps": "{:.0f} steps",
    "tokens_m": "{:.2f} M tokens",
    "tokens_per_second": "{:,.0f} tokens a second",
    "params_m": "{:.2f} M parameters",
    "peak_memory_mb": "{:.0f} MB of memory at most",
}
# Those that are not a script's own.
_KNOWN_SECONDS = ("training_seconds", "total_seconds", "measured_seconds", "llm_seconds")
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True)
class Outlook:
    """What is still to come, and what the tuner does.

    Attributes:
        left: Trials that are left; None if nobody can tell.
        tuning: The tuner's share of them.
        found: Constants that the tuner changed since the last kept edit: old value and new.
        untuned: Constants of the best script that the tuner leaves to the model.
        sensitivities: How much each constant of the best script matters, as a share, the one that
            matters most first.
        dropped: Ideas of the model's that waited and can't be used any more, and why.
        crashed: Its latest change, if that ended with an error before it trained.
    """

    left: int | None = None
    tuning: float = 0.0
    found: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    untuned: Sequence[str] = ()
    sensitivities: Mapping[str, float] = field(default_factory=dict)
    dropped: Sequence[tuple[str, str]] = ()
    crashed: FrozenTrial | None = None


def format_outlook(history: CodeHistory, outlook: Outlook) -> str:
    """Write what a run costs, how many trials are left, whose they are, and what the tuner found."""
    return " ".join(
        [
            *_profiles(history),
            *_left(outlook),
            *_tuning(history, outlook),
            *_standstill(history, outlook),
            *(
                f"Your idea {clean(description)!r} fits no more: {clean(why)[:_REASON_CHARS]}"
                for description, why in outlook.dropped
            ),
        ]
    )


def _profiles(history: CodeHistory) -> Iterator[str]:
    """Yield the costs of a run of the best script and, if it is another, of the unedited one."""
    assert history.best is not None
    if said := profile(history.best):
        yield f"A run of it: {said}."
    first = next((s.trial for s in history.steps if is_baseline(s.trial) and s.value), None)
    if first is not None and not is_baseline(history.best) and (said := profile(first)):
        yield f"A run of the unedited script: {said}."


def profile(trial: FrozenTrial) -> str:
    """Write where a run's time and memory went, as far as it told: ``""`` if it told nothing.

    Seconds that a script prints itself, such as ``optimizer_seconds: 1.2``, are phases of its
    training.
    """
    attrs = {
        name: value
        for name, value in trial.user_attrs.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    parts = []
    if "total_seconds" in attrs and "training_seconds" in attrs:
        rest = attrs["total_seconds"] - attrs["training_seconds"]
        # A script that doesn't say how long it trained is charged for all its time.
        parts.append(
            f"{attrs['training_seconds']:.1f} s of training and {rest:.1f} s for start and evaluation"
            if rest > 0
            else f"{attrs['total_seconds']:.1f} s from start to end"
        )
    parts += [
        f"{name.removesuffix('_seconds')} {value:.1f} s"
        for name, value in attrs.items()
        if name.endswith("_seconds") and name not in _KNOWN_SECONDS
    ]
    for name, form in _FACTS.items():
        if name in attrs:
            parts.append(form.format(attrs[name]))
    return ", ".join(clean(part) for part in parts)


def _left(outlook: Outlook) -> Iterator[str]:
    if outlook.left is not None:
        mine = max(1, round(outlook.left * (1 - outlook.tuning)))
        yours = f", some {mine} of them yours" if outlook.tuning else ""
        last = "This is the last trial."
        yield (
            last
            if outlook.left == 1
            else f"{outlook.left} trials are left, this one included{yours}."
        )


def _tuning(history: CodeHistory, outlook: Outlook) -> Iterator[str]:
    if outlook.tuning:
        gained = sum(step.gain for step in history.tuned if step.outcome == KEPT)
        but = f", but not {', '.join(outlook.untuned)}" if outlook.untuned else ""
        yield (
            "An optimizer tunes the upper-case constants of the best script between your changes"
            f"{clean(but)}"
            f" ({len(history.tuned)} trials so far, which gained {decimals(gained)}): change what"
            " the script does and leave its numbers to it. Make each new number that is worth tuning a"
            " constant of its own at the top of the script."
        )
    if outlook.found:
        found = ", ".join(f"{n} {was} -> {now}" for n, (was, now) in outlook.found.items())
        yield f"It changed {clean(found)} since your last change was kept."
    if outlook.sensitivities:
        most = list(outlook.sensitivities.items())[:_N_CONSTANTS]
        told = ", ".join(f"{name} {share:.0%}" for name, share in most)
        yield f"By its model of the trials these constants matter most: {clean(told)}."


def _standstill(history: CodeHistory, outlook: Outlook) -> Iterator[str]:
    """Yield what has stopped gaining."""
    changes = _since_a_gain(history.proposals)
    if changes >= _STANDSTILL:
        yield f"None of your last {changes} changes was kept: try one of another kind."
    tuned = _since_a_gain(history.tuned)
    if outlook.tuning and tuned >= _STANDSTILL:
        yield f"The last {tuned} trials of tuning gained nothing."


def _since_a_gain(steps: Sequence[Step]) -> int:
    """Return how many steps there were since one was kept."""
    kept = [i for i, step in enumerate(steps) if step.outcome == KEPT]
    return len(steps) - (kept[-1] + 1 if kept else 0)


def clean(text: str) -> str:
    """Remove control characters (but newline and tab) and break up template markers."""
    return _CONTROL.sub("", neutral(text.replace("\r", "\n")))
