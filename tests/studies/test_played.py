"""The first prompt before the first trial: how long it is, and whether the model can hold it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from samplers import OpenAIChat
from studies.budget import Budget
from studies.commands.dry_run import dry_run
from studies.comparison import without_model
from studies.errors import Misuse
from studies.methods import Asking
from studies.played import check_first_prompt
from studies.spec import Model
from studies.spec import Spec
from studies.spec import Where
from tests.samplers._llm.conftest import Answer
from tests.samplers._llm.conftest import LoopbackServer


METHODS = ("centaur", "karpathy-hp", "llambo-paper", "llambo-optunahub")


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    server = LoopbackServer()
    yield server
    server.close()


def holding(server: LoopbackServer, n_tokens: int) -> None:
    entry = {"id": "big-400b", "max_model_len": n_tokens}
    server.others["/v1/models"] = Answer({"data": [entry]})


def spec(server: LoopbackServer, testbed: Path, method: str, asking: Asking = Asking()) -> Spec:
    model = Model(server.url, "big-400b", asking=asking)
    return Spec(
        Where("sqlite:///none.db", testbed=testbed), "s", method, 0, Budget(20), model=model
    )


def said(spec: Spec, server: LoopbackServer) -> str:
    return check_first_prompt(spec, OpenAIChat("big-400b", base_url=server.url))


@pytest.mark.parametrize("method", METHODS)
def test_its_length_is_said_and_a_context_that_is_too_small_is_refused(
    method: str, server: LoopbackServer, testbed: Path
) -> None:
    holding(server, 8000)
    tokens = said(spec(server, testbed, method), server)
    assert tokens.startswith("first prompt: ") and tokens.endswith(" of a context of 8,000")
    assert "tokens (estimated" in tokens
    holding(server, 60)
    with pytest.raises(Misuse, match="but it is of 60 tokens, and the prompt takes [0-9]+;"):
        said(spec(server, testbed, method), server)


def test_tokens_that_the_server_counts_are_not_estimated(
    server: LoopbackServer, testbed: Path
) -> None:
    server.others["/tokenize"] = Answer({"tokens": list(range(77))})
    first = said(spec(server, testbed, "karpathy-hp"), server)
    assert first == "first prompt: 77 tokens (counted by the server)"


def test_a_budget_of_tokens_that_is_too_small_is_told(
    server: LoopbackServer, testbed: Path
) -> None:
    asking = Asking(max_prompt_tokens=30)
    first = said(spec(server, testbed, "centaur", asking), server)
    assert first.startswith("the language model can't be asked (--max-prompt-tokens): ")
    assert "must fit into 30 tokens" in first


def test_a_comparison_and_a_dry_run_refuse_it_too(server: LoopbackServer, testbed: Path) -> None:
    holding(server, 60)
    refused = spec(server, testbed, "centaur")
    [reason] = without_model([refused]).values()
    assert "the prompt takes" in reason
    with pytest.raises(Misuse, match="the prompt takes"):
        dry_run(refused)
