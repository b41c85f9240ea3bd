"""The work of ``dashboard``: what optuna-dashboard would say of failures as of measured values."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
import json
import re
from typing import TYPE_CHECKING

import optuna
from optuna.importance import get_param_importances
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import TrialState

from objective.best import has_succeeded


if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse
    from _typeshed.wsgi import WSGIApplication
    from _typeshed.wsgi import WSGIEnvironment

_IMPORTANCES = re.compile(r"/api/studies/(\d+)/param_importances")


def without_failures(
    dashboard: WSGIApplication, storage: optuna.storages.BaseStorage
) -> WSGIApplication:
    """Let optuna-dashboard show the importances of parameters for the values that were measured.

    It takes the value that stands for a failure for one, so that what makes trials fail looks
    like what makes them good. Studies without failures, or with several objectives, are its own.
    """

    @lru_cache(maxsize=64)
    def importances(study_id: int, finished: int) -> bytes | None:
        return _importances(storage, study_id)

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        asked = _IMPORTANCES.fullmatch(environ.get("PATH_INFO", ""))
        found = None
        if asked is not None:
            study_id = int(asked[1])
            try:
                finished = storage.get_n_trials(study_id, (TrialState.COMPLETE,))
                found = importances(study_id, finished)
            except (KeyError, ValueError):  # no such study, or nothing to be computed
                found = None
        if found is None:
            return dashboard(environ, start_response)
        start_response("200 OK", [("Content-Type", "application/json")])
        return [found]

    return answer


def _importances(storage: optuna.storages.BaseStorage, study_id: int) -> bytes | None:
    """Return what optuna-dashboard would answer if a study had no failures; None if it has none."""
    directions = storage.get_study_directions(study_id)
    done = storage.get_all_trials(study_id, deepcopy=False, states=(TrialState.COMPLETE,))
    good = [trial for trial in done if has_succeeded(trial)]
    if len(directions) > 1 or len(good) in (0, 1, len(done)):
        return None
    study = optuna.create_study(direction=directions[0])
    study.add_trials(good)
    found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    kinds = {name: d for trial in good for name, d in trial.distributions.items()}
    rows = [
        {"name": name, "importance": value, "distribution": type(kinds[name]).__name__}
        for name, value in found.items()
    ]
    return json.dumps({"param_importances": [rows]}).encode() if rows else None
