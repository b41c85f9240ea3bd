"""Writing the trials of a code study: proposals that wait, refused ones, their scripts and requests."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
import tempfile
from typing import Any
from typing import TYPE_CHECKING

import optuna
from optuna.artifacts import upload_artifact
from optuna.trial import create_trial
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from objective import TestbedError
from objective.run.outcome import one_line
from samplers._llm.record import Exchange
from samplers._llm.record import request_attributes
from samplers._llm.record import upload_transcript
from samplers._trials.internals import first_number
from samplers._trials.internals import repeating
from studies.code_agent.files import constants_of
from studies.code_agent.sources import changed_lines
from studies.code_agent.sources import diff
from studies.code_agent.sources import SourceLost
from studies.storage.recovery import take


if TYPE_CHECKING:
    from optuna.artifacts import FileSystemArtifactStore

    from studies.code_agent.drafts import Drafts
    from studies.code_agent.sources import Sources


# Of a trial that repeats another one with the change mended: what they cost together.
_SUMS = ("prompt_tokens", "cached_tokens", "completion_tokens", "seconds", "attempts")
_TEXT = "text/plain; charset=utf-8"


class CodeTrials:
    """Adds trials to a code study.

    Args:
        study: The study.
        sources: Where the scripts are.
        artifacts: Where prompts, replies and differences are kept.
        drafts: Where replies are kept until they are on a trial.
    """

    def __init__(
        self,
        study: optuna.Study,
        sources: Sources,
        artifacts: FileSystemArtifactStore,
        drafts: Drafts,
    ) -> None:
        self._study = study
        self._sources = sources
        self._artifacts = artifacts
        self._drafts = drafts

    def enqueue(
        self,
        attributes: Mapping[str, Any],
        exchanges: Sequence[Exchange] = (),
        instead_of: FrozenTrial | None = None,
    ) -> FrozenTrial:
        """Add a trial that waits, and return it.

        What its requests cost is on it from the start: whoever takes it may be done with it at once.
        The drafts of their replies are forgotten then.

        Args:
            attributes: Its user attributes.
            exchanges: The requests that led to it.
            instead_of: The trial that it repeats, which counts no more.
        """
        storage = self._study._storage
        reason = next((e.error for e in exchanges if e.error), "")
        attributes = {**attributes, **request_attributes(exchanges, reason)}
        again: dict[str, Any] = {}
        if instead_of is not None:  # whose requests count once, with those of what repeats it
            again = repeating(instead_of.number)
            for key in (f"llm_{name}" for name in _SUMS):
                attributes[key] = attributes.get(key, 0) + instead_of.user_attrs.get(key, 0)
        trial_id = storage.create_new_trial(
            self._study._study_id,
            create_trial(
                state=TrialState.WAITING,
                user_attrs=attributes,
                system_attrs={"fixed_params": {}, **again},
            ),
        )
        trial = storage.get_trial(trial_id)
        if exchanges:
            upload_transcript(self._study, trial, exchanges, self._artifacts)
            self._drafts.drop()
        return trial

    def reject(
        self,
        attributes: dict[str, Any],
        reason: str,
        exchanges: Sequence[Exchange],
        instead_of: FrozenTrial | None = None,
    ) -> None:
        """Store a trial that says why a proposal was not run."""
        # The fingerprint of a rejected source must not make the same source a duplicate later.
        attributes = {k: v for k, v in attributes.items() if k != "fingerprint"}
        attributes |= {"status": "rejected", "reason": one_line(reason)}
        # Whoever finds it waiting, if this process is stopped here, fails it.
        trial = self.enqueue(attributes, exchanges, instead_of)
        if take(self._study, trial):
            self._study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def of_source(self, source: str, parent_sha: str) -> dict[str, Any]:
        """Keep a script, and return what its trial says of it."""
        sha = self._sources.save(source)
        _, added, removed = changed_lines(self._sources.load(parent_sha), source)
        baseline = constants_of(self._sources.load(self._sources.baseline))
        changed: dict[str, Any] = {}
        with suppress(TestbedError):
            for name, constant in constants_of(source).items():
                if name not in baseline or baseline[name].value != constant.value:
                    changed[name] = constant.value
        return {
            "source_sha256": sha,
            "lines_added": added,
            "lines_removed": removed,
            **changed,
        }

    def upload_diff(self, trial: optuna.Trial, source: str) -> None:
        """Keep the difference from the script that a trial's was made from, if that is there."""
        try:
            parent = self._sources.load(trial.user_attrs["parent_sha256"])
        except SourceLost:
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "change.diff"
            path.write_bytes(("\n".join(diff(parent, source)) + "\n").encode())
            upload_artifact(
                artifact_store=self._artifacts,
                file_path=str(path),
                study_or_trial=trial,
                mimetype=_TEXT,
            )


def child_of(parent: FrozenTrial, source: str) -> dict[str, Any]:
    """Return the user attributes that say what a trial was made from, and by whom."""
    return {
        "source": source,
        "parent": first_number(parent),
        "parent_sha256": parent.user_attrs["source_sha256"],
    }
