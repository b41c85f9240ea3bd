"""What was changed beside a study's ``train.py`` since it began."""

from __future__ import annotations

from collections.abc import Mapping
import hashlib
import json
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from objective import Testbed


FILES = "files"  # user attribute of a study: `recorded` fingerprints of its testbed's files

_MAX_FILES = 200  # that are recorded one by one; databases hold some 64 KB
_SHOWN = 5


def fingerprints(testbed: Testbed, before: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the fingerprints of a testbed's files as a study keeps them.

    Without the new ones among them that change no value, so that whatever becomes of these, too,
    the study goes on. ``before`` are those that it has; None if it has none yet.
    """
    found = testbed.files.fingerprints()
    if before is not None:
        new = {n for n in found if n not in before and _folder(n) not in before}
        if new:
            known = testbed.references(without=new)
            found = {n: f for n, f in found.items() if n not in new or known.lead_to(n)}
    return recorded(found)


def recorded(fingerprints: Mapping[str, str]) -> dict[str, str]:
    """Return the fingerprints as a study keeps them: of many files, one of each top-level folder."""
    if len(fingerprints) <= _MAX_FILES:
        return dict(fingerprints)
    groups: dict[str, dict[str, str]] = {}
    for name, fingerprint in fingerprints.items():
        groups.setdefault(_folder(name), {})[name] = fingerprint
    return {
        folder: hashlib.sha256(json.dumps(group, sort_keys=True).encode()).hexdigest()[:12]
        for folder, group in groups.items()
    }


def _folder(name: str) -> str:
    """Return the top-level folder of a file, or its name if it is in none."""
    return name[: name.index("/", name.rfind("../") + 3) + 1] if "/" in name else name


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Say which files are others than before; an empty text if none is."""
    names = sorted(before.keys() | now.keys())
    said = [
        f"{name} {'is new' if name not in before else 'is gone' if name not in now else 'was edited'}"
        for name in names
        if before.get(name) != now.get(name)
    ]
    more = [f"{len(said) - _SHOWN} more"] if len(said) > _SHOWN else []
    return ", ".join([*said[:_SHOWN], *more])
