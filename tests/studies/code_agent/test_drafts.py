"""A reply that was paid for is not asked for again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from samplers import Completion
from samplers._llm.chat import ChatUnavailable
from studies.code_agent import drafts as code_drafts
from studies.code_agent.drafts import Drafts
from studies.storage.open import open_artifacts
from tests.studies.code_agent.conftest import Bench
from tests.studies.code_agent.conftest import BETTER_RATE
from tests.studies.code_agent.conftest import outcomes
from tests.studies.scripted import ScriptedChat


REQUEST: list[dict[str, str]] = [{"role": "user", "content": "Improve it."}]


@pytest.fixture
def drafts(tmp_path: Path) -> Drafts:
    return Drafts(open_artifacts(f"sqlite:///{tmp_path}/study.db"), "study")


def test_a_reply_is_found_by_its_request_until_it_is_dropped(
    drafts: Drafts, tmp_path: Path
) -> None:
    reply = Completion("text", prompt_tokens=3), None
    drafts.keep(REQUEST, None, 1, *reply)
    again = Drafts(open_artifacts(f"sqlite:///{tmp_path}/study.db"), "study")
    assert again.load(REQUEST, None, 1) == reply
    assert again.load(REQUEST, None, 2) is None
    assert again.load([*REQUEST, *REQUEST], None, 1) is None
    again.drop()
    assert drafts.load(REQUEST, None, 1) is None


def test_one_studys_reply_is_not_anothers(drafts: Drafts, tmp_path: Path) -> None:
    drafts.keep(REQUEST, None, 1, Completion("text"), None)
    other = Drafts(open_artifacts(f"sqlite:///{tmp_path}/study.db"), "other")
    assert other.load(REQUEST, None, 1) is None


def test_a_living_processs_reply_is_its_own(
    drafts: Drafts, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafts.keep(REQUEST, None, 1, Completion("text"), None)
    monkeypatch.setattr(code_drafts, "worker_mark", lambda number: ["another"])
    assert drafts.load(REQUEST, None, 1) is None
    monkeypatch.setattr(code_drafts, "worker_is_here", lambda mark: False)
    assert drafts.load(REQUEST, None, 1) is not None


def test_half_a_reply_is_none(drafts: Drafts, tmp_path: Path) -> None:
    drafts.keep(REQUEST, None, 1, Completion("text"), None)
    (path,) = (tmp_path / "study-artifacts").glob("draft-*")
    path.write_text(path.read_text()[:20])
    assert drafts.load(REQUEST, None, 1) is None


def test_a_study_that_ends_between_two_requests_goes_on_with_the_first_ones_reply(
    bench: Bench,
) -> None:
    class AwayLater(ScriptedChat):
        def complete(self, *args: Any, **kwargs: Any) -> Completion:
            if self.requests:
                raise ChatUnavailable("no answer")
            return super().complete(*args, **kwargs)

    first = AwayLater(["no block at all"])
    with pytest.raises(ChatUnavailable):
        bench.run(first, trials=2)
    resumed = ScriptedChat([BETTER_RATE])
    history = bench.run(resumed, trials=2)
    assert outcomes(history) == ["baseline", "kept"]
    (request,) = resumed.requests
    assert request.messages[-2]["content"] == "no block at all"
    assert history.proposals[0].trial.user_attrs["llm_attempts"] == 2
    assert not list((bench.folder / "study-artifacts").glob("draft-*"))
