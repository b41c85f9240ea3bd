"""The samplers of the scoreboard: the rows of METHODS, and packages of a registry."""

from __future__ import annotations

from functools import lru_cache
import inspect
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING

from studies.errors import Misuse
from studies.methods import Method
from studies.methods import METHODS
from studies.methods import Setup


if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

REGISTRY = "registry:"


def sampler_names() -> list[str]:
    """Return the methods that have a sampler."""
    return [name for name, row in METHODS.items() if not row.edits_code]


def label_of(name: str) -> str:
    """Return a sampler's name in tables and plots."""
    if name in METHODS:
        return METHODS[name].label
    return f"{name.removeprefix(REGISTRY)} (registry)"


def entry(name: str, registry: Path | None = None) -> Method:
    """Return the row of a name; ``registry:NAME`` is the package ``samplers/NAME`` of a registry.

    Args:
        name: One of METHODS, or ``registry:NAME``.
        registry: A checkout of OptunaHub's registry, or a folder with a ``package`` like its own.

    Raises:
        Misuse: If there is no such sampler.
    """
    if name in sampler_names():
        return METHODS[name]
    if not name.startswith(REGISTRY):
        names = ", ".join([*sampler_names(), f"{REGISTRY}NAME"])
        raise Misuse(f"A sampler must be one of {names}, but got {name!r}.")
    if registry is None:
        raise Misuse(f"{name} needs --registry, the folder of a checkout of the registry.")
    package = name.removeprefix(REGISTRY)
    if not (registry / "package" / "samplers" / package / "__init__.py").is_file():
        raise Misuse(f"{registry} must have a package/samplers/{package}, but has none.")
    return Method(name, label_of(name), lambda setup: _of_registry(registry, package, setup))


def _of_registry(registry: Path, package: str, setup: Setup) -> BaseSampler:
    """Build the package's sampler with space and seed, if it takes them, and its defaults."""
    kind = _load(registry, package)
    accepted = inspect.signature(kind).parameters
    given: dict[str, Any] = {"search_space": dict(setup.space), "seed": setup.seed}
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
