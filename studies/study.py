"""From a description of a study to its trials, in this process or in several."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
import hashlib
from importlib.metadata import version
import multiprocessing
import multiprocessing.queues
import os
from pathlib import Path
import signal
import time
from types import FrameType
from typing import Any
from typing import TYPE_CHECKING
import warnings

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from objective import Testbed
from objective import TrainScriptObjective
from objective.storage import artifact_folder
from objective.storage import open_artifacts
from objective.storage import open_storage
from studies.budget import Budget
from studies.errors import explain
from studies.errors import Failed
from studies.errors import Misuse
from studies.loop import StudyLoop
from studies.loop import Watch
from studies.methods import METHODS
from studies.methods import Setup


if TYPE_CHECKING:
    from samplers._llm.chat import Chat


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
        memory_limit_mb: Of one training; ``None`` is without limit.
        llm: ``local``, a preset's name, an address or a GGUF file; ``None`` looks for one.
        model: Name of the model; ``None`` is the server's own choice.
        llm_ratio: See `Setup`.
        artifacts: Folder for scripts, logs, prompts and replies; ``None`` is beside the database.
    """

    storage: str
    name: str
    method: str
    seed: int
    budget: Budget
    testbed: Path | None = None
    memory_limit_mb: int | None = None
    llm: str | None = None
    model: str | None = None
    llm_ratio: float = 0.3
    artifacts: Path | None = None

    def identity(self, testbed: Testbed) -> dict[str, Any]:
        """What two runs must have in common for their trials to compare."""
        facts = {
            "method": self.method,
            "seed": self.seed,
            "testbed_hash": testbed_hash(testbed),
            "train_seconds": self.budget.train_seconds,
            "memory_limit_mb": self.memory_limit_mb,
        }
        if METHODS[self.method].uses_llm:
            facts["llm_ratio"] = self.llm_ratio
        return facts


def testbed_hash(testbed: Testbed) -> str:
    """Fingerprint of what decides a trial's value: ``train.py`` and ``prepare.py``."""
    digest = hashlib.sha256(testbed.source.encode())
    prepare = testbed.path / "prepare.py"
    if prepare.is_file():
        digest.update(prepare.read_bytes())
    return digest.hexdigest()[:16]


def open_study(
    spec: StudySpec, testbed: Testbed, storage: optuna.storages.BaseStorage
) -> optuna.Study:
    """The study of this name, new or as an equal command left it.

    Raises:
        StudyConflict: If it was made with other parameters or another search space.
    """
    study = optuna.create_study(
        storage=storage,
        study_name=spec.name,
        direction="minimize",
        pruner=optuna.pruners.NopPruner(),
        load_if_exists=True,
    )
    if study.metric_names is None:
        study.set_metric_names(["val_bpb"])
    _check_comparable(study, spec, testbed)
    facts = {
        **spec.identity(testbed),
        "testbed": "embedded" if spec.testbed is None else str(spec.testbed.resolve()),
        "version": version("optuna-autoresearch"),
    }
    for key, value in facts.items():
        if key not in study.user_attrs:
            study.set_user_attr(key, value)
    return study


def _check_comparable(study: optuna.Study, spec: StudySpec, testbed: Testbed) -> None:
    advice = "choose another --study or --storage, or repeat the command that made it"
    stored = study.user_attrs
    trials = study.get_trials(deepcopy=False)
    if trials and "method" not in stored:
        raise StudyConflict(f"study {spec.name!r} was made by another program; {advice}")
    for key, value in spec.identity(testbed).items():
        if key in stored and stored[key] != value:
            if key == "testbed_hash":
                what = "another train.py or prepare.py (or they were edited since)"
            else:
                what = f"{key} {stored[key]}, not {value}"
            raise StudyConflict(f"study {spec.name!r} was made with {what}; {advice}")
    for trial in trials:
        odd = {n for n, d in trial.distributions.items() if testbed.space.get(n) != d}
        if trial.state == TrialState.COMPLETE:
            odd |= testbed.space.keys() - trial.distributions.keys()
        if odd:
            raise StudyConflict(
                f"study {spec.name!r} has another search space than the testbed"
                f" ({', '.join(sorted(odd))}); {advice}"
            )


def open_llm(llm: str | None, model: str | None) -> Chat:
    """The language model that ``--llm`` and ``--model`` name, else the one that can be found.

    Raises:
        NoChatFound: If there is none.
        Misuse: If the two don't go together.
    """
    from samplers._llm.chat import default_chat
    from samplers._llm.chat import open_chat

    if llm is None and model is None:
        return default_chat()
    if llm is None:
        llm = os.environ.get("OPENAI_BASE_URL")
        if llm is None and "OPENAI_API_KEY" in os.environ:
            llm = "openai"
    if llm in (None, "local") and model is not None:
        raise Misuse(
            f"--model {model} must be a model of a server that --llm or OPENAI_BASE_URL names;"
            " the embedded one has none to choose from, but --llm takes the path of a .gguf file"
        )
    return open_chat(llm or "local", model=model)


def setup(spec: StudySpec, testbed: Testbed, chat: Chat | None) -> Setup:
    """What the method of a spec may know."""
    limits = []
    if spec.budget.train_seconds is not None:
        limits.append(f"Every trial trains for {spec.budget.train_seconds:g} seconds.")
    if spec.memory_limit_mb is not None:
        limits.append(f"A trial that needs more than {spec.memory_limit_mb} MB of memory fails.")
    return Setup(
        seed=spec.seed,
        n_trials=spec.budget.trials,
        task="\n".join([testbed.task.rstrip(), *limits]),
        rule=testbed.effective,
        chat=chat,
        llm_ratio=spec.llm_ratio,
    )


def run_study(spec: StudySpec, watch: Watch = lambda trials: None) -> optuna.Study:
    """Do a study's trials in this process until its budget is used up.

    Args:
        spec: The study.
        watch: Is given the study's trials whenever that may be news.
    """
    testbed = Testbed.load(spec.testbed)
    method = METHODS[spec.method]
    chat = open_llm(spec.llm, spec.model) if method.uses_llm else None
    storage = open_storage(spec.storage)
    study = open_study(spec, testbed, storage)
    artifacts = open_artifacts(spec.storage, spec.artifacts)
    objective = TrainScriptObjective(
        testbed,
        train_seconds=spec.budget.train_seconds,
        memory_limit_mb=spec.memory_limit_mb,
        artifact_store=artifacts,
    )
    StudyLoop(
        study,
        objective,
        testbed.baseline,
        method,
        replace(setup(spec, testbed, chat), artifact_store=artifacts),
        spec.budget,
        lock_file=str((spec.artifacts or artifact_folder(spec.storage)) / "claim.lock"),
    ).run(watch)
    return study


def run_workers(spec: StudySpec, workers: int, watch: Watch = lambda trials: None) -> optuna.Study:
    """Do a study's trials in several processes, each of them running `run_study`.

    Raises:
        Misuse, Failed: What the first worker that failed said.
    """
    testbed = Testbed.load(spec.testbed)
    study = open_study(spec, testbed, open_storage(spec.storage))
    if METHODS[spec.method].uses_llm:
        spec = replace(spec, llm=share_embedded_model(spec.llm, spec.model))
    share_work(study, run_study, spec, workers, watch)
    return study


def share_work(
    study: optuna.Study,
    work: Callable[[Any, Watch], object],
    spec: object,
    workers: int,
    watch: Watch,
) -> None:
    """Call `work(spec, watch)` in several processes and wait for them, watching the study.

    Raises:
        Misuse, Failed: What the first worker that failed said.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    context = multiprocessing.get_context("spawn")
    errors = context.SimpleQueue()
    processes = [
        context.Process(target=_work, args=(work, spec, errors), daemon=True)
        for _ in range(workers)
    ]
    try:
        for process in processes:
            process.start()
        while any(process.is_alive() for process in processes):
            watch(study.get_trials(deepcopy=False))
            time.sleep(0.5)
        watch(study.get_trials(deepcopy=False))
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
        for process in processes:
            if process.pid is not None:
                process.join()
    if not errors.empty():
        message, status = errors.get()
        raise (Misuse if status == 2 else Failed)(message)
    if any(process.exitcode for process in processes):
        raise Failed("a worker died; run the same command again to go on")


def share_embedded_model(llm: str | None, model: str | None) -> str | None:
    """Let one process serve the model to all, instead of each loading its own: `llm` to use."""
    from samplers._llm.local import embedded_server

    elsewhere = os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_KEY")
    if llm == "local" or (llm is None and model is None and not elsewhere):
        return embedded_server()
    if llm is not None and llm.endswith(".gguf"):
        return embedded_server(llm)
    return llm


def _work(
    work: Callable[[Any, Watch], object],
    spec: object,
    errors: multiprocessing.queues.SimpleQueue[tuple[str, int]],
) -> None:
    quiet_optuna()
    stop_by_signal()
    parent = multiprocessing.parent_process()

    def stop_if_orphaned(trials: Sequence[FrozenTrial]) -> None:
        if parent is not None and not parent.is_alive():
            raise KeyboardInterrupt

    try:
        work(spec, stop_if_orphaned)
    except KeyboardInterrupt:
        raise SystemExit(1) from None
    except Exception as error:
        errors.put(explain(error))
        raise SystemExit(1) from None


def quiet_optuna() -> None:
    """Leave the terminal to our own progress.

    Optuna would tell of every trial, and that heartbeats and metric names are experimental.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)


def stop_by_signal() -> None:
    """Make SIGTERM the same as Ctrl-C, and either of them count only once.

    The first ends the study with all its cleaning up; an impatient second one would leave a
    training running and a trial unfinished.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
