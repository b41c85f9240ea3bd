"""What makes a study: where it is, what it tunes, by which method, within which limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import hashlib
from importlib.metadata import version
import json
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING

from optuna.distributions import distribution_to_json
import psutil

from objective import Testbed
from studies.budget import Budget
from studies.errors import Misuse
from studies.methods import LLM_RATIO
from studies.methods import METHODS


if TYPE_CHECKING:
    from objective.surrogate.surrogate import Surrogate


EMBEDDED = "embedded"


class StudyConflict(Misuse):
    """The storage holds a study of this name whose trials would not compare with new ones."""


@dataclass(frozen=True)
class StudySpec:
    """What makes a study, in plain values that can be sent to another process.

    Attributes:
        storage: URL, see `objective.open_storage`.
        name: Name of the study in the storage.
        method: A key of `METHODS`.
        seed: The study's seed.
        budget: When it is done, and how long one trial trains.
        testbed: Folder of the script; ``None`` is the embedded one.
        wall_seconds: A trial is killed after this time; ``None`` is
            `objective.objective.default_wall_seconds`.
        memory_limit_mb: Of one training; ``None`` is without limit.
        llm: ``local``, a preset's name, an address, a GGUF file or ``random-steps``; ``None`` looks
            for one.
        model: Name of the model; ``None`` is the server's own choice.
        llm_ratio: See `Setup`.
        artifacts: Folder for scripts, logs, prompts and replies; ``None`` is beside the database.
        comparison: Name of the comparison that the study is a run of.
        surrogate: File of a surrogate to ask instead of training, or ``embedded`` for the one of
            the embedded testbed that comes with the project.
    """

    storage: str
    name: str
    method: str
    seed: int
    budget: Budget
    testbed: Path | None = None
    wall_seconds: float | None = None
    memory_limit_mb: int | None = None
    llm: str | None = None
    model: str | None = None
    llm_ratio: float = LLM_RATIO
    artifacts: Path | None = None
    comparison: str | None = None
    surrogate: str | None = None

    def identity(self, testbed: Testbed | Surrogate) -> dict[str, Any]:
        """What two runs must have in common for their trials to compare."""
        facts = {
            "method": self.method,
            "seed": self.seed,
            "testbed_hash": (
                testbed_hash(testbed)
                if isinstance(testbed, Testbed)
                else file_hash(surrogate_file(self.surrogate))
            ),
            "train_seconds": self.budget.train_seconds,
            "memory_limit_mb": self.memory_limit_mb,
            "charge_llm": self.budget.charge_llm,
        }
        if METHODS[self.method].uses_llm:
            facts["llm_ratio"] = self.llm_ratio
        return facts

    def facts(self, testbed: Testbed | Surrogate) -> dict[str, Any]:
        """All that the study's user attributes say of how it was made."""
        where = "embedded" if self.testbed is None else str(self.testbed.resolve())
        others = {
            "space_hash": space_hash(testbed),
            "testbed": where if self.surrogate is None else f"surrogate {self.surrogate}",
            "version": version("optuna-autoresearch"),
            "wall_seconds": self.wall_seconds,
            "comparison": self.comparison,
            "surrogate": self.surrogate,
            "model": self.model if METHODS[self.method].uses_llm else None,
        }
        return {**self.identity(testbed), **drop_none(others)}


def trial_seconds(script: Testbed, asked: float | None, budget: float | None) -> float | None:
    """What a trial trains: the seconds that were asked for, else the script's own, if it has any.

    Raises:
        TestbedError: If nothing would heed those that were asked for.
        Misuse: If a budget holds no trial.
    """
    if asked is not None:
        script.require_time_budget()
    seconds = script.time_budget if asked is None else asked
    if budget is not None and seconds is not None and seconds > budget:
        raise Misuse(
            f"--budget must hold at least one trial of {seconds:g} s, but got {budget:g} s."
        )
    return seconds


def drop_none(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Without what there is nothing to say of."""
    return {key: value for key, value in facts.items() if value is not None}


def testbed_hash(testbed: Testbed) -> str:
    """Fingerprint of what decides a trial's value: ``train.py`` and ``prepare.py``."""
    digest = hashlib.sha256(testbed.source.encode())
    prepare = testbed.path / "prepare.py"
    if prepare.is_file():
        digest.update(prepare.read_bytes())
    return digest.hexdigest()[:16]


def space_hash(testbed: Testbed | Surrogate) -> str:
    """Fingerprint of the search space."""
    space = {name: distribution_to_json(d) for name, d in sorted(testbed.space.items())}
    return hashlib.sha256(json.dumps(space).encode()).hexdigest()[:16]


def surrogate_file(surrogate: str | None) -> Path:
    """The file that ``--surrogate-file`` or ``StudySpec.surrogate`` names."""
    from objective.surrogate.surrogate import SHIPPED

    return SHIPPED if surrogate in (None, EMBEDDED) else Path(str(surrogate))


def file_hash(path: Path) -> str:
    """Fingerprint of a surrogate's file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def load_testbed(spec: StudySpec) -> Testbed | Surrogate:
    """What the study tunes: a testbed, or a surrogate of one.

    Raises:
        TestbedError: If the testbed can't be used.
        Misuse: If the surrogate can't.
    """
    if spec.surrogate is None:
        testbed = Testbed.load(spec.testbed)
        if spec.budget.train_seconds is not None:
            testbed.require_time_budget()
        return testbed
    from objective.surrogate.surrogate import Surrogate

    return Surrogate.load(None if spec.surrogate == EMBEDDED else Path(spec.surrogate))


METHOD = "karpathy-code"
# Code that a model wrote never gets all memory: by default, this share of it for all workers.
MEMORY_SHARE = 0.5


@dataclass(frozen=True)
class AgentSpec:
    """What makes a code study, in plain values that can be sent to another process.

    Attributes:
        storage: URL, see `objective.open_storage`.
        name: Name of the study in the storage.
        seed: Of the model's replies.
        trials: Trials in total: baselines, proposals that ran and those that were rejected.
        training_seconds: Training time of all trials together; ``None`` is without limit.
        charge_llm: Whether the language model's time is charged to it as well.
        train_seconds: Training time of one trial; ``None`` is the testbed's own.
        wall_seconds: A trial is killed after this time; ``None`` is twice the training time and a
            minute.
        testbed: Folder of the script; ``None`` is the embedded one.
        memory_limit_mb: Of one training; ``None`` is without limit.
        baselines: Runs of the unedited script at the beginning, at least 1.
        min_gain: See `studies.code_agent.history.read_history`.
        whole_files: Ask for whole files instead of search / replace blocks.
        unsafe: Run without a sandbox.
        llm: ``local``, a preset's name, an address or a GGUF file; ``None`` looks for one.
        model: Name of the model; ``None`` is the server's own choice.
        artifacts: Folder for scripts, logs, prompts and replies; ``None`` is beside the database.
        comparison: Name of the comparison that the study is a run of.
    """

    storage: str
    name: str
    seed: int = 0
    trials: int = 20
    training_seconds: float | None = None
    charge_llm: bool = False
    train_seconds: float | None = None
    wall_seconds: float | None = None
    testbed: Path | None = None
    memory_limit_mb: int | None = None
    baselines: int = 3
    min_gain: float | None = None
    whole_files: bool = False
    unsafe: bool = False
    llm: str | None = None
    model: str | None = None
    artifacts: Path | None = None
    comparison: str | None = None

    @property
    def budget(self) -> Budget:
        """When the study is done."""
        return Budget(self.trials, self.training_seconds, self.train_seconds, self.charge_llm)

    def identity(self, testbed: Testbed) -> dict[str, Any]:
        """What two runs must have in common for their trials to compare."""
        return {
            "method": METHOD,
            "seed": self.seed,
            "testbed_hash": testbed_hash(testbed),
            "train_seconds": self.train_seconds,
            "baselines": self.baselines,
            "min_gain": self.min_gain,
            "charge_llm": self.charge_llm,
        }

    def facts(self, testbed: Testbed) -> dict[str, Any]:
        """All that the study's user attributes say of how it was made."""
        others = {
            "testbed": "embedded" if self.testbed is None else str(self.testbed.resolve()),
            "version": version("optuna-autoresearch"),
            "memory_limit_mb": self.memory_limit_mb,
            "wall_seconds": self.wall_seconds,
            "comparison": self.comparison,
            "model": self.model,
        }
        return {**self.identity(testbed), **drop_none(others)}


def memory_share(workers: int) -> int | None:
    """Default limit in megabytes of one training; None with a GPU, whose memory it would be."""
    if Path("/dev/nvidiactl").exists():
        return None
    return int(psutil.virtual_memory().total * MEMORY_SHARE / workers / 2**20)
