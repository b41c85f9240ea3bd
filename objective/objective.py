"""The objective function of a training script: the one place that scores a failure."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
import errno
import json
import math
from pathlib import Path
import shutil
import tempfile
from typing import Any
from typing import Iterator
from typing import Protocol
from typing import TYPE_CHECKING

import optuna
from optuna.artifacts import upload_artifact
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from objective.run import Limits
from objective.run import run_script
from objective.run import RunError
from objective.run import RunResult
from objective.source import set_constants
from objective.storage import claim
from objective.testbed import Testbed


if TYPE_CHECKING:
    from optuna.artifacts._protocol import ArtifactStore

    from objective.results import Results
    from objective.sandbox import Sandbox


_REPORT_EVERY = 5  # percent of the time budget between two intermediate values of a trial

# Trial attribute -> key of the script's summary.
_SUMMARY_ATTRIBUTES = {
    "peak_memory_mb": "peak_vram_mb",
    "tokens_m": "total_tokens_M",
    "steps": "num_steps",
    "params_m": "num_params_M",
}

# A browser shows plain text where it would download text/x-python.
_TEXT = "text/plain; charset=utf-8"


class TrialFailed(RuntimeError):
    """A failed evaluation, raised instead of the failure value if there is none.

    Attributes:
        status: The class of the failure, as in the trial's attribute.
        reason: One line.
    """

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason


class ArtifactError(RunError):
    """The training was measured, but its files can't be kept.

    Attributes:
        value: What the trial is worth; ``None`` is a failure without a value.
    """

    def __init__(self, message: str, value: float | None) -> None:
        super().__init__(message)
        self.value = value


class TrainScriptObjective:
    """Trains with the suggested constants and returns the validation loss in bits per byte.

    ::

        study = optuna.create_study()
        study.optimize(TrainScriptObjective(train_seconds=10), n_trials=20)

    Every trial gets the user attributes ``status``, ``reason``, ``val_bpb``, ``training_seconds``,
    ``total_seconds``, ``peak_memory_mb``, ``tokens_m``, ``steps``, ``params_m`` and ``effective``,
    each where there is something to say; ``val_bpb`` only if it was measured.

    Args:
        testbed: What to tune: a :class:`Testbed`, its folder, or None for the embedded one.
        train_seconds: Training time of a trial; by default the testbed's own TIME_BUDGET.
        wall_seconds: A trial is killed after this many seconds of real time; by default twice the
            training time and a minute for start-up and evaluation.
        memory_limit_mb: Limit of a trial's memory (the GPU's if it trains there); None is none.
        failure_value: Value of a failed trial. 100.0 as in the paper, so that every method sees
            the same number; None raises :class:`TrialFailed`, so that Optuna marks it FAIL (pass
            ``catch=(TrialFailed,)`` to ``optimize`` to go on then).
        artifact_store: Gets ``train.py`` and ``train.log`` of each trial; None keeps neither.
        work_dir: Where trials get their folders, removed when they end; by default the system's
            folder for temporary files.
        train_seed: AUTORESEARCH_SEED of every training; by default the script's own.
        sandbox: Isolates every training; its name becomes the user attribute ``isolation``. None
            is for scripts that are trusted.
        results: Keeps what a training came to until the storage has it; who tells the storage
            drops it there.

    Raises:
        TestbedError: If the testbed can't be used.
    """

    def __init__(
        self,
        testbed: Testbed | str | Path | None = None,
        *,
        train_seconds: float | None = None,
        wall_seconds: float | None = None,
        memory_limit_mb: int | None = None,
        failure_value: float | None = 100.0,
        artifact_store: ArtifactStore | None = None,
        work_dir: str | Path | None = None,
        train_seed: int | None = None,
        sandbox: Sandbox | None = None,
        results: Results | None = None,
    ) -> None:
        for name, value in (
            ("train_seconds", train_seconds),
            ("wall_seconds", wall_seconds),
            ("memory_limit_mb", memory_limit_mb),
        ):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"`{name}` must be positive, but got {value}.")
        self.testbed = testbed if isinstance(testbed, Testbed) else Testbed.load(testbed)
        if wall_seconds is None:
            budget = train_seconds or self.testbed.constants.get("TIME_BUDGET") or 300.0
            wall_seconds = 2 * float(budget) + 60
        self.limits = Limits(
            wall_seconds=wall_seconds, train_seconds=train_seconds, memory_mb=memory_limit_mb
        )
        self.failure_value = failure_value
        self._sandbox = sandbox
        self._artifact_store = artifact_store
        self.results = results
        self._work_dir = None if work_dir is None else Path(work_dir)
        self._environment = {} if train_seed is None else {"AUTORESEARCH_SEED": str(train_seed)}

    def __call__(self, trial: optuna.Trial) -> float:
        """Suggest the search space in its order, train, and return the loss.

        Raises:
            TrialPruned: If the study's pruner ended the training.
            TrialFailed: If it failed and there is no failure value.
            ArtifactError: If it was measured and its files can't be kept.
            RunError: If nothing could be measured because of this machine (a full disk).
        """
        effective = suggest_effective(trial, self.testbed)
        return self._train(trial, set_constants(self.testbed.source, effective))

    def run(self, trial: optuna.Trial, source: str) -> float:
        """Train with a ``train.py`` of this text, record and score it; suggests nothing."""
        if isinstance(trial, optuna.Trial):
            claim(trial)
        return self._train(trial, source)

    def _train(self, trial: optuna.Trial, source: str) -> float:
        with self._folder(source) as folder:
            result = run_script(
                folder,
                limits=self.limits,
                on_progress=_Reporter(trial),
                environment=self._environment,
                log=folder.with_name("train.log"),
                sandbox=self._sandbox,
            )
            attributes = _attributes(result)
            if self._sandbox is not None:
                attributes["isolation"] = self._sandbox.name
            pruned = result.status == "pruned"
            value = None if pruned else self._score(result)
            if self.results is not None and not pruned:
                self.results.keep(trial, attributes, value)
            for name, attribute in attributes.items():
                trial.set_user_attr(name, attribute)
            try:
                self._upload(trial, folder / "train.py", source)
                self._upload(trial, result.log)
            except OSError as error:
                message = _unwritable("The artifact store", error)
                raise ArtifactError(message, value) from None
        if pruned:
            raise optuna.TrialPruned("The pruner ended the training.")
        if value is None:
            raise TrialFailed(result.status, result.reason)
        return value

    def _score(self, result: RunResult) -> float | None:
        try:
            return score(result.status, result.reason, result.val_bpb, self.failure_value)
        except TrialFailed:
            return None

    @contextmanager
    def _folder(self, source: str) -> Iterator[Path]:
        """A folder with a ``train.py`` of this text and the testbed's other Python files."""
        try:
            if self._work_dir is not None:
                self._work_dir.mkdir(parents=True, exist_ok=True)
            home = Path(tempfile.mkdtemp(prefix="autoresearch-", dir=self._work_dir))
        except OSError as error:
            raise RunError(_unwritable(self._work_dir or tempfile.gettempdir(), error)) from None
        try:
            folder = home / "run"
            try:
                folder.mkdir()
                _copy_modules(self.testbed.path, folder)
                (folder / "train.py").write_bytes(source.encode())
            except OSError as error:
                raise RunError(_unwritable(folder, error)) from None
            yield folder
        finally:
            shutil.rmtree(home, ignore_errors=True)

    def _upload(self, trial: optuna.Trial, path: Path, text: str | None = None) -> None:
        if self._artifact_store is None or not isinstance(trial, optuna.Trial):
            return
        if text is not None:  # what was to be run, should the script have rewritten itself
            path.write_bytes(text.encode())
        upload_artifact(
            artifact_store=self._artifact_store,
            file_path=str(path),
            study_or_trial=trial,
            mimetype=_TEXT,
        )


class Configurable(Protocol):
    """What a configuration is suggested for: a :class:`Testbed`, or a surrogate of one."""

    @property
    def space(self) -> Mapping[str, BaseDistribution]: ...

    def effective(self, params: Mapping[str, Any]) -> dict[str, Any]: ...


def suggest_effective(trial: optuna.Trial, testbed: Configurable) -> dict[str, Any]:
    """Suggest the search space in its order: the values to run, what the rule changed recorded."""
    if isinstance(trial, optuna.Trial):
        claim(trial)  # before suggestions, which may take a language model a while
    params = {name: suggest(trial, name, d) for name, d in testbed.space.items()}
    if isinstance(trial, optuna.Trial):
        _tag_enqueued(trial, params)
    effective = testbed.effective(params)
    changed = {name: value for name, value in effective.items() if value != params[name]}
    if changed:
        trial.set_user_attr("effective", json.dumps(changed))
    return effective


def score(status: str, reason: str, val_bpb: float | None, failure_value: float | None) -> float:
    """What a trial is worth: its value if it is ok, else the failure value.

    Raises:
        TrialFailed: If it failed and there is no failure value.
    """
    if status == "ok":
        assert val_bpb is not None
        return val_bpb
    if failure_value is None:
        raise TrialFailed(status, reason)
    return failure_value


def suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
    """Suggest a parameter from its distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(
        name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
    )


class _Reporter:
    """Progress of a training -> intermediate values of its trial, at most about 20."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial
        self._next = 0.0

    def __call__(self, share: float, loss: float) -> bool:
        if not (self._next <= share <= 100 and math.isfinite(loss)):
            return False
        self._next = (share // _REPORT_EVERY + 1) * _REPORT_EVERY
        self._trial.report(loss, step=int(share))
        return self._trial.should_prune()


def _attributes(result: RunResult) -> dict[str, Any]:
    """The attributes of DESIGN.md's table. A pruned trial has no status: it isn't a failure."""
    reason = result.reason
    if result.mismatch:
        reason = reason or f"printed val_bpb {result.printed_bpb}, measured {result.val_bpb}"
    attributes: dict[str, Any] = {
        "training_seconds": round(result.charged_seconds, 3),
        "total_seconds": round(result.seconds, 3),
    }
    if result.status != "pruned":
        attributes["status"] = result.status
    if reason:
        attributes["reason"] = reason
    if result.status == "ok":
        attributes["val_bpb"] = result.val_bpb
    for name, key in _SUMMARY_ATTRIBUTES.items():
        if math.isfinite(value := result.summary.get(key, math.nan)):
            attributes[name] = int(value) if value.is_integer() else value
    return attributes


def _tag_enqueued(trial: optuna.Trial, params: Mapping[str, Any]) -> None:
    """Say so if all parameters were fixed by ``enqueue_trial``, unless somebody said more."""
    frozen = trial.storage.get_trial(trial._trial_id)
    fixed = frozen.system_attrs.get("fixed_params", {})
    if params.keys() <= fixed.keys() and "source" not in frozen.user_attrs:
        trial.set_user_attr("source", "enqueued")


def _copy_modules(testbed: Path, folder: Path) -> None:
    """What ``train.py`` may import: Python files and packages. Data stays where it is."""
    for entry in testbed.iterdir():
        if entry.suffix == ".py" and entry.name not in ("train.py", "__init__.py"):
            shutil.copyfile(entry, folder / entry.name)
        elif (entry / "__init__.py").is_file():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(entry, folder / entry.name, ignore=ignored)


def _unwritable(where: object, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk of {where} is full."
    return f"{where} must be writable, but: {error.strerror}."
