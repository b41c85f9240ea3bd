"""The samplers of the scoreboard: name -> how to build one, a row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
import inspect
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING

from studies.errors import Misuse
from studies.random_steps import reply_form


if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from samplers import Chat
    from studies.scoreboard.problems import Problem

REGISTRY = "registry:"


@dataclass(frozen=True)
class Entry:
    """A row.

    Attributes:
        label: In tables and plots.
        build: Problem, seed and language model (None for ``uses_llm=False``) -> a sampler, as a
            user would make it who knows nothing of the problem.
        milliseconds: Of a trial, measured over 50 trials of 10 parameters on one busy core; only
            for estimates of the time.
        uses_llm: Whether it asks a language model.
    """

    label: str
    build: Callable[[Problem, int, Chat | None], BaseSampler]
    milliseconds: float
    uses_llm: bool = False


def _random(problem: Problem, seed: int, chat: Chat | None) -> BaseSampler:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


def _tpe(problem: Problem, seed: int, chat: Chat | None) -> BaseSampler:
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed)


def _gp(problem: Problem, seed: int, chat: Chat | None) -> BaseSampler:
    from optuna.samplers import GPSampler

    return GPSampler(seed=seed)


def _cma_es(problem: Problem, seed: int, chat: Chat | None) -> BaseSampler:
    from optuna.samplers import CmaEsSampler

    # Categorical parameters are sampled at random, which Optuna would mention in every trial.
    return CmaEsSampler(seed=seed, warn_independent_sampling=False)


def _smac(problem: Problem, seed: int, chat: Chat | None) -> BaseSampler:
    from samplers import SMACSampler

    return SMACSampler(seed=seed)


def _centaur(problem: Problem, seed: int, chat: Chat | None) -> BaseSampler:
    from samplers import CentaurSampler

    return CentaurSampler(
        chat=chat,
        task=problem.task,
        reply=reply_form(chat),
        seed=seed,
        warn_independent_sampling=False,
    )


def _llambo(problem: Problem, seed: int, chat: Chat | None) -> BaseSampler:
    from samplers import LLAMBOSampler

    return LLAMBOSampler(chat=chat, task=problem.task, seed=seed)


def _karpathy(problem: Problem, seed: int, chat: Chat | None) -> BaseSampler:
    from samplers import KarpathyAgentSampler

    return KarpathyAgentSampler(chat=chat, task=problem.task, reply=reply_form(chat), seed=seed)


ENTRIES = {
    "random": Entry("RandomSampler", _random, 1),
    "tpe": Entry("TPESampler", _tpe, 5),
    "cma-es": Entry("CmaEsSampler", _cma_es, 2),
    "gp": Entry("GPSampler", _gp, 100),
    "smac": Entry("SMACSampler", _smac, 40),
    "centaur": Entry("CentaurSampler", _centaur, 3, uses_llm=True),
    "karpathy": Entry("KarpathyAgentSampler", _karpathy, 5, uses_llm=True),
    "llambo": Entry("LLAMBOSampler", _llambo, 10, uses_llm=True),
}


def label_of(name: str) -> str:
    """What a sampler is called in tables and plots."""
    if name in ENTRIES:
        return ENTRIES[name].label
    return f"{name.removeprefix(REGISTRY)} (registry)"


def entry(name: str, registry: Path | None = None) -> Entry:
    """The row of a name; ``registry:NAME`` is the package ``samplers/NAME`` of a registry.

    Args:
        name: What a user gives.
        registry: A checkout of OptunaHub's registry, or a folder with a ``package`` like its own.

    Raises:
        Misuse: If there is no such sampler.
    """
    if name in ENTRIES:
        return ENTRIES[name]
    if not name.startswith(REGISTRY):
        names = ", ".join([*ENTRIES, f"{REGISTRY}NAME"])
        raise Misuse(f"A sampler must be one of {names}, but got {name!r}.")
    if registry is None:
        raise Misuse(f"{name} needs --registry, the folder of a checkout of the registry.")
    package = name.removeprefix(REGISTRY)
    if not (registry / "package" / "samplers" / package / "__init__.py").is_file():
        raise Misuse(f"{registry} must have a package/samplers/{package}, but has none.")
    return Entry(
        label_of(name),
        lambda problem, seed, chat: _of_registry(registry, package, problem, seed),
        100,
    )


def _of_registry(registry: Path, package: str, problem: Problem, seed: int) -> BaseSampler:
    """The package's sampler with its defaults; search space and seed where it takes them."""
    kind = _load(registry, package)
    accepted = inspect.signature(kind).parameters
    given: dict[str, Any] = {"search_space": dict(problem.space), "seed": seed}
    sampler: BaseSampler = kind(**{name: v for name, v in given.items() if name in accepted})
    return sampler


@lru_cache
def _load(registry: Path, package: str) -> type[BaseSampler]:
    from optuna.samplers import BaseSampler
    import optunahub

    module = optunahub.load_local_module(
        f"samplers/{package}", registry_root=str(registry / "package")
    )
    public = [getattr(module, name, None) for name in getattr(module, "__all__", vars(module))]
    found = [
        value
        for value in public
        if isinstance(value, type)
        and issubclass(value, BaseSampler)
        and value.__module__.startswith("optunahub_registry")
    ]
    if len(found) != 1:
        names = ", ".join(kind.__name__ for kind in found) or "none"
        raise Misuse(f"samplers/{package} must export one sampler, but exports {names}.")
    return found[0]
