"""What is written on a trial."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from typing import BinaryIO

import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts import get_all_artifact_meta
import pytest

from samplers._llm.chat import ChatError
from samplers._llm.chat import ChatUnavailable
from samplers._llm.chat import Completion
from samplers._llm.record import Exchange
from samplers._llm.record import LLM
from samplers._llm.record import LLM_ERROR
from samplers._llm.record import record


FIRST = [{"role": "user", "content": "the first question"}]
COMPLETION = Completion(
    "the reply",
    reasoning="the thought",
    model="m",
    prompt_tokens=100,
    cached_tokens=60,
    completion_tokens=10,
    seconds=1.25,
    attempts=2,
)
SECOND = [
    *FIRST,
    {"role": "assistant", "content": "the reply"},
    {"role": "user", "content": "the complaint"},
]
FAILURE = ChatUnavailable("the server died")
FAILURE.seconds, FAILURE.attempts = 4.0, 6
EXCHANGES = [Exchange(FIRST, COMPLETION, problem="no good"), Exchange(SECOND, None, FAILURE)]


class FullDisk:
    def open_reader(self, artifact_id: str) -> BinaryIO:
        raise OSError

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        raise OSError(28, "No space left on device")

    def remove(self, artifact_id: str) -> None:
        raise OSError


def running(study: optuna.Study) -> Any:
    number = study.ask().number
    return study.get_trials()[number]


def test_sums_over_the_requests_are_flat_attributes() -> None:
    study = optuna.create_study()
    trial = running(study)
    record(study, trial, source=LLM, reason="a\n" * 300, exchanges=EXCHANGES)
    attributes = study.get_trials()[0].user_attrs
    assert attributes.pop("llm_reason").startswith("a a a") and len(trial.user_attrs) == 0
    assert attributes == {
        "source": "llm",
        "llm_prompt_tokens": 100,
        "llm_cached_tokens": 60,
        "llm_completion_tokens": 10,
        "llm_seconds": 5.25,
        "llm_attempts": 8,
        "llm_model": "m",
    }


def test_an_answer_that_was_refused_has_its_tokens_in_the_sums() -> None:
    study = optuna.create_study()
    refused = ChatError("The model refuses to answer")
    refused.completion = COMPLETION
    exchanges = [Exchange(FIRST, COMPLETION), Exchange(FIRST, None, refused)]
    record(study, running(study), source=LLM_ERROR, exchanges=exchanges)
    attributes = study.get_trials()[0].user_attrs
    assert attributes["llm_prompt_tokens"] == 200
    assert attributes["llm_cached_tokens"] == 120
    assert attributes["llm_completion_tokens"] == 20


def test_texts_are_at_most_200_characters() -> None:
    study = optuna.create_study()
    record(study, running(study), source=LLM, reason="a " * 300)
    assert len(study.get_trials()[0].user_attrs["llm_reason"]) <= 200


def test_a_trial_without_requests_has_its_source_only() -> None:
    study = optuna.create_study()
    record(study, running(study), source="base")
    assert study.get_trials()[0].user_attrs == {"source": "base"}


def test_prompts_and_replies_are_one_artifact(tmp_path: Path) -> None:
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/study.db")
    store = FileSystemArtifactStore(tmp_path)
    trial = running(study)
    record(study, trial, source=LLM, exchanges=EXCHANGES, artifact_store=store)
    (meta,) = get_all_artifact_meta(study.get_trials()[0], storage=study._storage)
    assert (meta.filename, meta.mimetype) == ("llm-00000.md", "text/markdown")
    with store.open_reader(meta.artifact_id) as file:
        text = file.read().decode()
    for part in ("the thought", "60 of them cached", "the complaint", "the server died"):
        assert part in text
    assert text.count("the first question") == 1, "what a re-ask repeats is not repeated"


def test_a_full_disk_loses_no_trial(caplog: pytest.LogCaptureFixture) -> None:
    study = optuna.create_study()
    logger = logging.getLogger("optuna")
    logger.addHandler(caplog.handler)
    try:
        record(study, running(study), source=LLM, exchanges=EXCHANGES, artifact_store=FullDisk())
    finally:
        logger.removeHandler(caplog.handler)
    assert study.get_trials()[0].user_attrs["source"] == "llm"
    assert "No space left" in caplog.text
