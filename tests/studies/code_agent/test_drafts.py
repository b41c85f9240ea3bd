"""A reply that was paid for is not asked for again."""

from __future__ import annotations

import os
from pathlib import Path
import time
from typing import Any

import pytest

from objective import worker
from samplers import Completion
from samplers._llm.chat import ChatUnavailable
from studies.code_agent import drafts as code_drafts
from studies.code_agent.drafts import Drafts
from studies.code_agent.trials import CodeTrials
from tests.studies.code_agent.conftest import Bench
from tests.studies.code_agent.conftest import BETTER_RATE
from tests.studies.code_agent.conftest import outcomes
from tests.studies.scripted import ScriptedChat


REQUEST: list[dict[str, str]] = [{"role": "user", "content": "Improve it."}]


@pytest.fixture
def drafts(tmp_path: Path) -> Drafts:
    return Drafts(tmp_path, "study")


def test_a_reply_is_found_by_its_request_until_it_is_dropped(
    drafts: Drafts, tmp_path: Path
) -> None:
    reply = Completion("text", prompt_tokens=3), None
    drafts.keep((REQUEST, None, 1), *reply)
    again = Drafts(tmp_path, "study")
    assert again.load((REQUEST, None, 1)) == reply
    assert again.load((REQUEST, None, 2)) is None
    assert again.load(([*REQUEST, *REQUEST], None, 1)) is None
    again.drop()
    assert drafts.load((REQUEST, None, 1)) is None


def test_one_studys_reply_is_not_anothers(drafts: Drafts, tmp_path: Path) -> None:
    drafts.keep((REQUEST, None, 1), Completion("text"), None)
    other = Drafts(tmp_path, "other")
    assert other.load((REQUEST, None, 1)) is None


def test_a_living_processs_reply_is_its_own(
    drafts: Drafts, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafts.keep((REQUEST, None, 1), Completion("text"), None)
    monkeypatch.setattr(code_drafts, "worker_mark", lambda number: ["another"])
    assert drafts.load((REQUEST, None, 1)) is None
    monkeypatch.setattr(code_drafts, "worker_is_here", lambda mark: False)
    assert drafts.load((REQUEST, None, 1)) is not None


def test_a_reply_of_a_process_that_is_not_seen_from_here_is_used_if_no_trial_runs(
    drafts: Drafts, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafts.keep((REQUEST, None, 1), Completion("text"), None)
    monkeypatch.setattr(worker, "_machine", lambda: "the same one after a reboot")
    assert drafts.load((REQUEST, None, 1)) is None
    assert drafts.load((REQUEST, None, 1), is_idle=True) == (Completion("text"), None)


def test_a_reply_that_nobody_came_back_for_is_removed_after_a_day(
    drafts: Drafts, tmp_path: Path
) -> None:
    other = Drafts(tmp_path, "other")
    for number, hours in enumerate((1, 25)):
        other.keep((REQUEST, None, number), Completion("text"), None)
        newest = max(tmp_path.glob("draft-*"), key=lambda path: path.stat().st_mtime)
        os.utime(newest, times=(time.time() - hours * 3600,) * 2)
    drafts.drop()
    assert [other.load((REQUEST, None, n)) is None for n in (0, 1)] == [False, True]


def test_a_study_goes_on_after_a_reboot_with_the_reply_that_was_paid_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(CodeTrials, "of_source", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            bench.run(ScriptedChat([BETTER_RATE]), trials=2)
    monkeypatch.setattr(worker, "_machine", lambda: "the same one after a reboot")
    assert outcomes(bench.run(ScriptedChat([]), trials=2)) == ["baseline", "kept"]


def test_half_a_reply_is_none(drafts: Drafts, tmp_path: Path) -> None:
    drafts.keep((REQUEST, None, 1), Completion("text"), None)
    (path,) = tmp_path.glob("draft-*")
    path.write_text(path.read_text()[:20])
    assert drafts.load((REQUEST, None, 1)) is None


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
