"""Description of a study: where it is, what it tunes, by which method, within which limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import replace
import hashlib
from importlib.metadata import version
import json
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING

from optuna.distributions import distribution_to_json
import psutil

from objective import Testbed
from objective.failure import FailureValue
from objective.failure import PAPER
from objective.failure import WORST
from objective.results import Results
from objective.run.environment import may_be_secret
from objective.run.launch import has_gpu
from objective.testbed.interface import Interface
from objective.testbed.metric import Metric
from objective.testbed.runtime import Runtime
from studies.changes import FILES
from studies.changes import fingerprints
from studies.errors import Misuse
from studies.methods import Asking
from studies.methods import LLM_RATIO
from studies.methods import Method
from studies.methods import METHODS
from studies.methods import PUBLISHED
from studies.storage.open import artifact_folder
from studies.storage.open import claim_lock
from studies.storage.open import open_artifacts


if TYPE_CHECKING:
    from optuna.artifacts import FileSystemArtifactStore

    from objective.surrogate.surrogate import Surrogate
    from studies.budget import Budget


EMBEDDED = "embedded"
RUNTIME = "runtime"  # user attribute of a study
# Code that a model wrote never gets all memory: by default, this share of it for all workers.
MEMORY_SHARE = 0.5
# Fields of a request that are decided elsewhere, or without which its reply can't be read.
_OWN_FIELDS = (
    *("model", "messages", "response_format", "max_tokens", "max_completion_tokens", "stream"),
)
# Proposals that are refused cost the code agent no training. For a model whose replies are all
# refused, a budget of training time is limited to this many times the trials that fit into it.
AGENT_TRIALS = 3


class StudyConflict(Misuse):
    """The storage holds a study of this name whose trials would not compare with new ones."""


@dataclass(frozen=True)
class Where:
    """The storage of a study, and the testbed that it tunes.

    Attributes:
        storage: URL, see `studies.storage.open.open_storage`.
        artifacts: Folder for scripts, logs, prompts and replies; ``None`` is beside the database.
        testbed: Folder of the script; ``None`` is the embedded one.
        surrogate: File of a surrogate to ask instead of training, or ``embedded`` for the one of
            the embedded testbed that comes with the project.
        runtime: Where and with what the script runs.
        interface: How the script is started, gets its values and is read.
        wait: Seconds that the storage's server may be away when it is opened. A worker waits: it
            was there when the command began.
    """

    storage: str
    artifacts: Path | None = None
    testbed: Path | None = None
    surrogate: str | None = None
    runtime: Runtime = Runtime()
    interface: Interface = Interface()
    wait: float = 0.0

    def load_script(self) -> Testbed:
        """Load the testbed.

        Raises:
            TestbedError: If it can't be used.
        """
        return Testbed.load(self.testbed, self.runtime, self.interface)

    @property
    def metric(self) -> Metric:
        """The metric of the testbed or surrogate.

        Raises:
            TestbedError: If the testbed can't be used.
            Misuse: If the surrogate can't.
        """
        if self.surrogate is None:
            return self.load_script().metric
        return _load_surrogate(self.surrogate).metric

    @property
    def folder(self) -> Path:
        """The folder of the artifacts."""
        return self.artifacts or artifact_folder(self.storage)

    @property
    def lock_file(self) -> str:
        """The file that processes lock while they claim a trial."""
        return str(claim_lock(self.storage, self.artifacts))

    @property
    def results(self) -> Results:
        """The folder in which the objective keeps results until the storage has them."""
        return Results(self.folder / "results")

    def open_artifacts(self) -> FileSystemArtifactStore:
        """Return the store of the artifacts, whose folder is made if it isn't there."""
        return open_artifacts(self.storage, self.artifacts)


@dataclass(frozen=True)
class Limits:
    """The limits of one training; ``None`` is without limit.

    Attributes:
        memory_mb: Memory in megabytes.
        wall_seconds: It is killed after this time; ``None`` is
            `objective.objective.default_wall_seconds`.
    """

    memory_mb: int | None = None
    wall_seconds: float | None = None


@dataclass(frozen=True)
class Model:
    """The language model that a study asks, if its method asks one, and how much of it.

    Attributes:
        llm: ``local``, a preset's name, an address, a GGUF file or ``random-steps``; ``None`` looks
            for one.
        name: Name of the model; ``None`` is the server's own choice.
        max_tokens: Tokens of prompts and replies that the whole study may take.
        max_cost: What they may cost, by the prices; needs one of these.
        price_in, price_out: Of a million tokens of prompts and of replies.
        options: Further fields of each request, as NAME=VALUE, see `extra`.
        llm_ratio: Share of the trials after start-up that it decides (Centaur).
        asking: How it is asked.
    """

    llm: str | None = None
    name: str | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    price_in: float | None = None
    price_out: float | None = None
    options: tuple[str, ...] = ()
    llm_ratio: float = LLM_RATIO
    asking: Asking = Asking()

    def __post_init__(self) -> None:
        if self.max_cost is not None and self.price_in is None and self.price_out is None:
            raise Misuse("--max-cost must be with --price-in and --price-out, the model's prices")
        self.extra()

    def extra(self) -> dict[str, Any]:
        """Return the options' values by name; what is no JSON is a text.

        Raises:
            Misuse: If one is none, or a field that each request has of its own.
        """
        values: dict[str, Any] = {}
        for word in self.options:
            name, equals, value = word.partition("=")
            if not (name and equals) or name in _OWN_FIELDS:
                raise Misuse(
                    f"--llm-option must be NAME=VALUE with none of {', '.join(_OWN_FIELDS)}, but got"
                    f" {word!r}"
                )
            try:
                values[name] = json.loads(value)
            except ValueError:
                values[name] = value
        return values

    def metadata(self) -> dict[str, Any]:
        """Return user attributes of the study that a later command may change: caps and options."""
        options = list(self.options) or None
        return {"max_tokens": self.max_tokens, "max_cost": self.max_cost, "llm_options": options}


@dataclass(frozen=True)
class Editing:
    """Options of the code agent, which other methods ignore.

    Attributes:
        baselines: Runs of the unedited script at the beginning, at least 1.
        min_gain: See `studies.code_agent.history.read_history`.
        unsafe: Run without a sandbox.
        tune: The tuner's share of the trials after the baselines, see
            `studies.code_agent.tuning.Tuner`. The paper's code agent has no tuner.
        tune_edits: Trials of the tuner for an edit that came close to the best.
        proposals: Different changes that are asked for in one request, in search / replace blocks;
            those that are not run at once wait.
        files: Python files of the testbed that may be edited beside its script, see
            `studies.code_agent.files`.
        command: A coding agent that edits the script instead of one request to the model, see
            `studies.code_agent.edit_command.EditCommand`.
        command_seconds: It is stopped after this time.
    """

    baselines: int = 3
    min_gain: float | None = None
    unsafe: bool = False
    tune: float = 0.0
    tune_edits: int = 0
    proposals: int = 1
    files: tuple[str, ...] = ()
    command: str | None = None
    command_seconds: float = 600.0

    def __post_init__(self) -> None:
        if self.proposals > 1 and self.command is not None:
            raise Misuse(
                "--proposals must be 1 with --agent-command, which gives one change a request"
            )


@dataclass(frozen=True)
class Spec:
    """The description of a study, in plain values that can be sent to another process.

    Attributes:
        where: Where it is kept, and what it tunes.
        name: Name of the study in the storage.
        method: A key of `METHODS`.
        seed: The study's seed.
        budget: When it is done, and how long one trial trains.
        limits: Of one training.
        model: The language model.
        editing: How the code agent works.
        comparison: Name of the comparison that the study is a run of.
        prune: One of `studies.pruning.RULES`; ``None`` lets every training end.
        failure_value: See `objective.failure`; ``None`` is the study's own, and ``"worst"`` for a
            new one. The code agent has none.
        vary_seed: Whether each training gets a seed of its own. The code agent's have the script's.
        accept_changes: Go on though the script or files beside it were edited.
        command: The command line that makes it, for people; None if no command does.
    """

    where: Where
    name: str
    method: str
    seed: int
    budget: Budget
    limits: Limits = Limits()
    model: Model = Model()
    editing: Editing = Editing()
    comparison: str | None = None
    prune: str | None = None
    failure_value: FailureValue = None
    vary_seed: bool = False
    accept_changes: bool = False
    command: str | None = None

    def __post_init__(self) -> None:
        try:
            self.name.encode()
        except UnicodeEncodeError:
            raise Misuse(
                f"the name of a study must be text in UTF-8, but got {self.name!r}: choose another"
            ) from None

    @property
    def row(self) -> Method:
        """The method's row."""
        return METHODS[self.method]

    def identity(self, testbed: Testbed | Surrogate) -> dict[str, Any]:
        """Return the user attributes that two runs must share for their trials to compare."""
        shared = {
            "method": self.method,
            "seed": self.seed,
            "testbed_hash": (
                testbed_hash(testbed)
                if isinstance(testbed, Testbed)
                else file_hash(surrogate_file(self.where.surrogate))
            ),
            **(testbed.interface.facts() if isinstance(testbed, Testbed) else {}),
            "train_seconds": self.budget.train_seconds,
            "charge_llm": self.budget.charge_llm,
        }
        if self.row.edits_code:
            return shared | {
                "baselines": self.editing.baselines,
                "min_gain": self.editing.min_gain,
                "tune": self.editing.tune,
                "tune_edits": self.editing.tune_edits,
                "edit_files": list(self.editing.files),
            }
        shared["memory_limit_mb"] = self.limits.memory_mb
        shared["vary_seed"] = self.vary_seed
        if self.failure_value is not None:
            shared["failure_value"] = self.failure_value
        if self.row.has_ratio:
            shared["llm_ratio"] = self.model.llm_ratio
        if variant := self.row.asking(self.model.asking).variant:
            shared["variant"] = variant
        return shared

    @property
    def judged_by(self) -> dict[str, Any]:
        """The study's attributes by which `studies.code_agent.history.best_of` finds its best."""
        return {"method": self.method, "min_gain": self.editing.min_gain}

    def metadata(
        self, testbed: Testbed | Surrogate, files: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Return the study's metadata, as its user attributes hold them; ``files`` it has now."""
        where = self.where
        folder = "embedded" if where.testbed is None else str(where.testbed.resolve())
        others: dict[str, Any] = {
            "space_hash": None if self.row.edits_code else space_hash(testbed),
            "testbed": folder if where.surrogate is None else f"surrogate {where.surrogate}",
            "version": version("optuna-autoresearch"),
            "memory_limit_mb": self.limits.memory_mb,
            "wall_seconds": self.limits.wall_seconds,
            "comparison": self.comparison,
            "prune": self.prune,
            "surrogate": where.surrogate,
            "model": self.model.name if self.row.uses_llm else None,
        }
        if isinstance(testbed, Testbed) and not testbed.is_embedded:
            others[FILES] = fingerprints(testbed, files)
            others[RUNTIME] = _recorded_runtime(where.runtime)
        known = {key: value for key, value in others.items() if value is not None}
        return {**self.identity(testbed), **known}

    def completed(self, workers: int) -> Spec:
        """Add what the code agent needs and wasn't given: a memory limit and a number of trials.

        Args:
            workers: Processes that share the machine's memory.

        Raises:
            Misuse: If it can't be told how many trials fit into a budget of training time.
        """
        if self.model.asking.protocol == PUBLISHED:
            own = PAPER if self.failure_value is None else self.failure_value
            editing = replace(self.editing, baselines=1, min_gain=0.0)
            self = replace(self, failure_value=own, editing=editing)
        if not self.row.edits_code:
            return self
        limits = replace(self.limits, memory_mb=self.limits.memory_mb or memory_share(workers))
        spec, budget = replace(self, limits=limits), self.budget
        if budget.seconds is None:
            return spec
        if budget.train_seconds is None:
            raise Misuse(
                f"--budget for {self.method} needs --train-seconds (or TIME_BUDGET in the testbed),"
                " which tell how many trials fit into it"
            )
        fit = int(budget.seconds / budget.train_seconds)
        baselines = min(self.editing.baselines, fit)
        return replace(
            spec,
            budget=replace(budget, trials=budget.trials or AGENT_TRIALS * fit),
            editing=replace(self.editing, baselines=baselines),
        )


def _recorded_runtime(runtime: Runtime) -> dict[str, Any] | None:
    """Return what a study keeps of a runtime: of what may be a key only the variable's name."""
    if runtime == Runtime():
        return None
    words = [word.partition("=") for word in runtime.env]
    env = [name if may_be_secret(name, value) else name + eq + value for name, eq, value in words]
    return {**asdict(runtime), "env": env, "copy": list(runtime.copy)}


def stored_runtime(attrs: Mapping[str, Any], given: Runtime = Runtime()) -> Runtime:
    """Read a runtime from a study's user attributes.

    Variables that are stored without a value have the one that ``given`` has for them, or else the
    one that they have here.
    """
    stored = attrs.get(RUNTIME) or {}
    values = {word.partition("=")[0]: word for word in given.env}
    return Runtime(
        stored.get("python"),
        tuple(word if "=" in word else values.get(word, word) for word in stored.get("env", ())),
        tuple(stored.get("copy", ())),
        stored.get("cwd"),
    )


def stored_testbed(attrs: Mapping[str, Any], runtime: Runtime = Runtime()) -> Testbed:
    """Load the testbed that a study's user attributes name.

    Raises:
        TestbedError: If it can't be used.
    """
    folder = None if attrs["testbed"] == EMBEDDED else attrs["testbed"]
    return Testbed.load(folder, runtime, Interface.of(attrs))


def failure_value_of(attrs: Mapping[str, Any]) -> FailureValue:
    """Read what stands for failures from a study's user attributes, ``{}`` of a new one.

    Studies from before there was a choice have the paper's value.
    """
    stored: FailureValue = attrs.get("failure_value", PAPER if "method" in attrs else WORST)
    return stored


def trial_seconds(script: Testbed, asked: float | None, budget: float | None) -> float | None:
    """Return the seconds that a trial trains: those asked for, else the script's own, if any.

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


def testbed_hash(testbed: Testbed) -> str:
    """Return the fingerprint of what decides a trial's value: the script, its configuration file
    and ``prepare.py``."""
    digest = hashlib.sha256(testbed.source.encode())
    if testbed.delivery.config is not None:
        digest.update(testbed.delivery.config.text.encode())
    prepare = testbed.path / "prepare.py"
    if prepare.is_file():
        digest.update(prepare.read_bytes())
    return digest.hexdigest()[:16]


def space_hash(testbed: Testbed | Surrogate) -> str:
    """Return the fingerprint of the search space."""
    space = {name: distribution_to_json(d) for name, d in sorted(testbed.space.items())}
    return hashlib.sha256(json.dumps(space).encode()).hexdigest()[:16]


def surrogate_file(surrogate: str | None) -> Path:
    """Return the file that ``--surrogate-file`` or ``Where.surrogate`` names."""
    from objective.surrogate.surrogate import SHIPPED

    return SHIPPED if surrogate in (None, EMBEDDED) else Path(str(surrogate))


def file_hash(path: Path) -> str:
    """Return the fingerprint of a surrogate's file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def load_testbed(spec: Spec) -> Testbed | Surrogate:
    """Load what the study tunes: a testbed, or a surrogate of one.

    Raises:
        TestbedError: If the testbed can't be used.
        Misuse: If the surrogate can't.
    """
    surrogate = spec.where.surrogate
    if surrogate is None:
        testbed = spec.where.load_script()
        if spec.budget.train_seconds is not None:
            testbed.require_time_budget()
        return testbed
    return _load_surrogate(surrogate)


def _load_surrogate(surrogate: str) -> Surrogate:
    from objective.surrogate.surrogate import Surrogate

    return Surrogate.load(surrogate_file(surrogate))


def memory_share(workers: int) -> int | None:
    """Default limit in megabytes of one training; None with a GPU, whose memory it would be."""
    if has_gpu():
        return None
    return int(psutil.virtual_memory().total * MEMORY_SHARE / workers / 2**20)
