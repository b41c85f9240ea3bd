"""The objective function of a training script."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
import copy
from dataclasses import replace
import math
import os
from pathlib import Path
from typing import Any
from typing import Protocol
from typing import TYPE_CHECKING

import optuna
from optuna.artifacts import upload_artifact
from optuna.logging import get_logger

from objective.failure import FailureValue
from objective.failure import INTERRUPTED
from objective.failure import score
from objective.failure import store_constraint
from objective.failure import TrialFailed
from objective.failure import violation
from objective.failure import WORST
from objective.reporter import Reporter
from objective.run.environment import chosen_variables
from objective.run.environment import script_environment
from objective.run.folder import sweep
from objective.run.folder import trial_folder
from objective.run.folder import unwritable
from objective.run.interpreter import find_interpreter
from objective.run.interpreter import Interpreter
from objective.run.outcome import Limits
from objective.run.outcome import one_line
from objective.run.outcome import RunResult
from objective.run.script import Isolation
from objective.run.script import run_script
from objective.run.script import RunError
from objective.suggesting import suggest_effective
from objective.testbed.command import SEED_VARIABLE
from objective.testbed.data import Data
from objective.testbed.data import is_evaluated_apart
from objective.testbed.data import prepare_data
from objective.testbed.data import PrepareFailed
from objective.testbed.delivery import Inputs
from objective.testbed.metric import is_reserved
from objective.testbed.testbed import Testbed
from objective.worker import claim


if TYPE_CHECKING:
    from optuna.artifacts._protocol import ArtifactStore


_logger = get_logger(f"optuna.{__name__}")

_TRAIN_SECONDS = 300.0  # of a script that doesn't say how long it trains, to limit its real time
# Seeds of trials that have their own are from here on: `studies.revalidation` has smaller ones.
OWN_SEEDS = 100_000

# Key of the script's summary -> trial attribute.
_SUMMARY_ATTRIBUTES = {
    "peak_vram_mb": "peak_memory_mb",
    "total_tokens_M": "tokens_m",
    "num_steps": "steps",
    "num_params_M": "params_m",
}

# Attributes of a trial that tell more of it than its value; numbers, each where there is one.
SIDE_DATA = (
    "steps",
    "tokens_m",
    "tokens_per_second",
    "params_m",
    "peak_memory_mb",
    "total_seconds",
)


def is_side_data(metric: str, name: str) -> bool:
    """Return whether an attribute tells more of a trial than the metric, as a train_loss does."""
    return name in SIDE_DATA or not (name in (metric, "measured_seconds") or is_reserved(name))


# A browser shows plain text where it would download text/x-python.
_TEXT = "text/plain; charset=utf-8"


class ArtifactError(RunError):
    """The training was measured, but its files can't be kept.

    Attributes:
        value: The trial's value; ``None`` is a failure without one.
    """

    def __init__(self, message: str, value: float | None) -> None:
        super().__init__(message)
        self.value = value


class Keeper(Protocol):
    """Keeps a result at once, before the storage is told of it."""

    def keep(
        self,
        trial: optuna.Trial,
        attributes: Mapping[str, Any],
        value: float | None,
        constraint: float | None,
    ) -> None: ...


class TrainScriptObjective:
    """Trains with the suggested constants and returns the value of the testbed's metric.

    ::

        study = optuna.create_study()
        study.optimize(TrainScriptObjective(train_seconds=10), n_trials=20)

    Every trial gets the user attributes ``status``, ``reason``, the metric by its name (such as
    ``val_bpb``), ``training_seconds``, ``total_seconds``, ``peak_memory_mb``, ``tokens_m``,
    ``steps``, ``params_m`` and ``effective``, each where there is something to say; the metric
    only if it was measured. Other numbers that the script printed have the script's names. A trial
    that Ctrl-C ended has the status ``interrupted``, which samplers take for no failure.

    A script can tell its trials apart by the variables AUTORESEARCH_TRIAL, the trial's number, and
    AUTORESEARCH_STUDY, the study's name (empty outside any study).

    Args:
        testbed: What to tune: a :class:`Testbed`, its folder, or None for the embedded one.
        train_seconds: Training time of a trial, which becomes TIME_BUDGET of ``train.py`` or
            ``prepare.py``; by default what is there.
        wall_seconds: A trial is killed after this many seconds of real time; by default
            :func:`default_wall_seconds`, with a warning where nothing says how long it trains.
        memory_limit_mb: Limit of a trial's memory (the GPU's if it trains there); None is none.
        failure_value: Value of a failed trial. ``"worst"`` is worse than every success of the
            study so far, by as much as these differ, and marks the trial as infeasible; as long as
            none has succeeded it is NaN, which Optuna marks FAIL. A number, such as the paper's
            100.0, is just that, without a mark. None raises :class:`TrialFailed`, so that Optuna
            marks the trial FAIL (pass ``catch=(TrialFailed,)`` to ``optimize`` to go on then).
        artifact_store: Gets ``train.py`` and ``train.log`` of each trial; None keeps neither.
        work_dir: Where trials get their folders, removed when they end; by default the system's
            folder for temporary files.
        train_seed: AUTORESEARCH_SEED of every training, and the value of the script's constant,
            option or configuration that is called seed; by default the script's own.
        vary_seed: Whether each trial gets a seed of its own instead, its number more than
            ``train_seed`` (100,000 by default), which becomes its user attribute ``train_seed``. A
            trial that is tried again after it was killed gets the same.
        sandbox: Isolates every training; its name becomes the user attribute ``isolation``. None
            is for scripts that are trusted.
        results: Keeps the result of a training until the storage has it; whoever tells the storage
            removes it there. Such as `objective.results.Results`.

    Raises:
        TestbedError: If the testbed can't be used, or has no training time or seed that could be set.
        ValueError: If a number isn't positive.
    """

    def __init__(
        self,
        testbed: Testbed | str | Path | None = None,
        *,
        train_seconds: float | None = None,
        wall_seconds: float | None = None,
        memory_limit_mb: int | None = None,
        failure_value: FailureValue = WORST,
        artifact_store: ArtifactStore | None = None,
        work_dir: str | Path | None = None,
        train_seed: int | None = None,
        vary_seed: bool = False,
        sandbox: Isolation | None = None,
        results: Keeper | None = None,
    ) -> None:
        for name, value in (
            ("train_seconds", train_seconds),
            ("wall_seconds", wall_seconds),
            ("memory_limit_mb", memory_limit_mb),
        ):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"`{name}` must be positive, but got {value}.")
        self.testbed = testbed if isinstance(testbed, Testbed) else Testbed.load(testbed)
        if train_seconds is not None:
            self.testbed.require_time_budget()
        if vary_seed:
            self.testbed.require_seed()
        if wall_seconds is None:
            wall_seconds = default_wall_seconds(self.testbed, train_seconds)
            if train_seconds is None and self.testbed.time_budget is None:
                _logger.warning(
                    "No TIME_BUDGET says how long a trial trains: it is killed after"
                    f" {wall_seconds:g} s; `wall_seconds` sets another limit."
                )
        self.limits = Limits(
            wall_seconds=wall_seconds, train_seconds=train_seconds, memory_mb=memory_limit_mb
        )
        self.failure_value = failure_value
        self._sandbox = sandbox
        self._artifact_store = artifact_store
        self._results = results
        self._work_dir = None if work_dir is None else Path(work_dir)
        self._has_swept = False
        self._data: Data | None = None
        runtime = self.testbed.runtime
        self._python = Interpreter()
        if not self.testbed.is_embedded:
            self._python = find_interpreter(self.testbed.path, runtime.python)
        self._environment = {**self._python.variables(), **chosen_variables(runtime.env)}
        self._train_seed, self._vary_seed = train_seed, vary_seed

    def with_seed(self, train_seed: int) -> TrainScriptObjective:
        """Return an objective that differs from this one in its ``train_seed`` alone."""
        other = copy.copy(self)
        other._train_seed, other._vary_seed = train_seed, False
        return other

    def prepare(self) -> Data:
        """Let the testbed make its caches, once; in a sandbox they can't be written.

        Raises:
            RunError: Its ``prepare.py`` failed.
        """
        if self._data is None:
            try:
                self._data = prepare_data(
                    self.testbed.path, self._python.argv, script_environment(self._environment)
                )
            except PrepareFailed as error:
                message = f"prepare.py of the testbed failed: {one_line(str(error))}"
                raise RunError(message) from None
        return self._data

    def __call__(self, trial: optuna.Trial) -> float:
        """Suggest the search space in its order, train, and return the metric's value.

        Raises:
            TrialPruned: If the study's pruner ended the training.
            TrialFailed: If it failed and there is no failure value.
            ArtifactError: If it was measured and its files can't be kept.
            RunError: If nothing could be measured because of this machine (a full disk).
            TestbedError: If the study's direction isn't the metric's.
        """
        try:
            values = suggest_effective(trial, self.testbed)
            seed = self._train_seed
            if self._vary_seed:
                # A killed trial is tried again as a copy, which has the attribute already.
                first = OWN_SEEDS if seed is None else seed
                seed = trial.user_attrs.get("train_seed", first + trial.number)
                trial.set_user_attr("train_seed", seed)
            return self._train(trial, self._inputs(values, seed))
        except KeyboardInterrupt:
            if self._results is None:  # else whoever keeps them repeats the trial
                with suppress(Exception):  # of a storage that is away
                    trial.set_user_attr("status", INTERRUPTED)
            raise

    def run(
        self, trial: optuna.Trial, source: str, others: Mapping[str, str] | None = None
    ) -> float:
        """Train with a script of this text, record and score it; suggests nothing.

        Args:
            trial: The trial.
            source: Text of the script.
            others: Texts of other files of the testbed, by their names as seen from its folder.
        """
        if isinstance(trial, optuna.Trial):
            claim(trial)
        inputs = self._inputs({}, self._train_seed, source)
        return self._train(trial, replace(inputs, files={**inputs.files, **(others or {})}))

    def _inputs(
        self, values: Mapping[str, Any], seed: int | None, source: str | None = None
    ) -> Inputs:
        """Return what a training is started with: these values, and a script of this text."""
        return self.testbed.delivery.inputs(
            self.testbed.source if source is None else source,
            values,
            seconds=self.limits.train_seconds,
            seed=seed,
        )

    def _train(self, trial: optuna.Trial, inputs: Inputs) -> float:
        data = Data()
        if self._sandbox is not None and is_evaluated_apart(self.testbed.path):
            data = self.prepare()
        reporter = Reporter(trial)
        if not self._has_swept:
            sweep(self._work_dir)
            self._has_swept = True
        with trial_folder(
            self._work_dir,
            trial.number,
            self.testbed.files,
            inputs.files,
            sandboxed=self._sandbox is not None,
        ) as (home, folder):
            result = run_script(
                folder,
                command=inputs.command,
                limits=self.limits,
                metric=self.testbed.metric,
                on_progress=reporter,
                environment={
                    **self._variables(home / "run"),
                    **_names(trial),
                    **({} if inputs.seed is None else {SEED_VARIABLE: str(inputs.seed)}),
                    **inputs.environment,
                },
                log=home / "train.log",
                sandbox=self._sandbox,
                data=data,
                python=self._python.argv,
                cwd=home / "run" / self.testbed.files.cwd,
                shown=self._shown(home / "run"),
            )
            attributes = _attributes(result, self.testbed.metric.name)
            if self.testbed.delivery.is_by_command:
                attributes["command"] = inputs.line
            if self._sandbox is not None:
                attributes["isolation"] = self._sandbox.name
            pruned = result.status == "pruned"
            constraint = None if pruned else violation(result.status, self.failure_value)
            if self._results is not None and not pruned and result.status != "ok":
                # What a failure is worth is asked of the storage, which may be away.
                self._results.keep(trial, attributes, None, constraint)
            value: float | None = None
            if not pruned:
                with suppress(TrialFailed):
                    value = score(
                        trial, result.status, result.reason, result.value, self.failure_value
                    )
            kept = None if value is None or math.isnan(value) else value
            if self._results is not None and not pruned:
                self._results.keep(trial, attributes, kept, constraint)
            reporter.finish()  # nothing may be reported of a trial that has ended
            for name, attribute in attributes.items():
                trial.set_user_attr(name, attribute)
            if isinstance(trial, optuna.Trial):
                store_constraint(trial.storage, trial._trial_id, constraint)
            try:
                for name, text in inputs.files.items():
                    self._upload(trial, folder / name, text)
                self._upload(trial, result.log)
            except OSError as error:
                message = unwritable("the artifact store", error)
                raise ArtifactError(message, kept) from None
        if pruned:
            raise optuna.TrialPruned("The pruner ended the training.")
        if value is None:
            raise TrialFailed(result.status, result.reason)
        if result.status != "ok":  # of which Optuna says no more than the value
            _logger.warning(f"Trial {trial.number} ended as {result.status}: {result.reason}")
        return value

    def _variables(self, target: Path) -> dict[str, str]:
        """Return the variables of a script whose files were laid out there."""
        paths = self.testbed.files.python_path(target)
        if not paths:
            return self._environment
        given = self._environment.get("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
        return {
            **self._environment,
            "PYTHONPATH": os.pathsep.join([*paths, *filter(None, [given])]),
        }

    def _shown(self, target: Path) -> list[Path]:
        """Return what a sandbox has to show of a training, beside the testbed's own folder.

        Links above that folder, which no import needs, are not there.
        """
        if self._sandbox is None:
            return []
        files = self.testbed.files
        above = [target / p for p in files.copies if not p.is_relative_to(files.folder)]
        return [*above, *(files.root / link for link in files.links), *self._python.folders()]

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


def default_wall_seconds(testbed: Testbed, train_seconds: float | None) -> float:
    """Return a trial's default time limit: twice its training and a minute for all else.

    Without ``train_seconds`` it is what the testbed says, and 300 s if that says nothing.
    """
    return 2 * (train_seconds or testbed.time_budget or _TRAIN_SECONDS) + 60


def _names(trial: optuna.Trial) -> dict[str, str]:
    """Return the variables that tell a script which trial it is."""
    study = trial.study.study_name if isinstance(trial, optuna.Trial) else ""
    return {"AUTORESEARCH_TRIAL": str(trial.number), "AUTORESEARCH_STUDY": study}


def _attributes(result: RunResult, metric: str) -> dict[str, Any]:
    """Return the user attributes of a run; a pruned one has no status, since it didn't fail."""
    reason = result.reason
    if result.mismatch:
        reason = reason or f"printed {metric} {result.printed}, measured {result.value}"
    attributes: dict[str, Any] = {
        "training_seconds": round(result.charged_seconds, 3),
        "total_seconds": round(result.seconds, 3),
    }
    if result.trained_seconds is not None:
        attributes["measured_seconds"] = round(result.trained_seconds, 3)
    if result.status != "pruned":
        attributes["status"] = result.status
    if reason:
        attributes["reason"] = reason
    if result.status == "ok":
        attributes[metric] = result.value
    for key, value in result.summary.items():
        name = _SUMMARY_ATTRIBUTES.get(key, key)
        if math.isfinite(value) and name != metric and not is_reserved(name):
            attributes.setdefault(name, int(value) if value.is_integer() else value)
    if result.status == "ok" and "tokens_m" in attributes and result.charged_seconds > 0:
        speed = 1e6 * attributes["tokens_m"] / result.charged_seconds
        if math.isfinite(speed):
            attributes.setdefault("tokens_per_second", round(speed))
    return attributes
