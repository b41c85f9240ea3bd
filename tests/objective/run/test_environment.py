from __future__ import annotations

import pytest

from objective.run.environment import chosen_variables
from objective.run.environment import may_be_secret
from objective.run.environment import script_environment
from objective.testbed.source import TestbedError


TECHNICAL = {
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    "CUDA_VISIBLE_DEVICES": "1",
    "HF_ENDPOINT": "https://mirror.example",
    "NCCL_P2P_DISABLE": "1",
    "HTTPS_PROXY": "http://proxy:3128",
    "https_proxy": "http://proxy:3128",
    "WANDB_MODE": "offline",
    "PYTHONPATH": "/somewhere",
    "PYTORCH_ALLOC_CONF": "expandable_segments:True",
    "AUTORESEARCH_DEVICE": "cpu",
}
PRIVATE = {
    "OPENAI_API_KEY": "k",
    "WANDB_API_KEY": "k",
    "HF_TOKEN": "k",
    "CUDA_SECRET": "k",
    "NCCL_TOKEN": "k",
    "AUTORESEARCH_PASSWORD": "k",
    "AUTORESEARCH_ANYTHING": "k",
    "ALL_PROXY": "http://user:password@proxy:3128",
    "SSH_AUTH_SOCK": "k",
}


def test_a_script_gets_technical_variables_and_nothing_private(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (TECHNICAL | PRIVATE).items():
        monkeypatch.setenv(name, value)
    found = script_environment({"MINE": "1"})
    assert {name: found[name] for name in TECHNICAL} == TECHNICAL
    assert found.keys().isdisjoint(PRIVATE)
    assert (found["MINE"], found["PYTHONHASHSEED"]) == ("1", "0")


def test_chosen_variables_have_a_value_of_their_own_or_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k")
    words = ["WANDB_API_KEY", "A=b=c", "EMPTY="]
    assert chosen_variables(words) == {"WANDB_API_KEY": "k", "A": "b=c", "EMPTY": ""}


def test_wrong_variables_are_told_of_at_once_and_never_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MISSING", raising=False)
    with pytest.raises(TestbedError) as error:
        chosen_variables(["MISSING", "sk-hunter2", "A=\0"])
    for part in ("--env MISSING must be set here", "must be NAME or NAME=VALUE", "--env A must"):
        assert part in str(error.value)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("DATA", "/data/2026/some-corpus-of-text/v3", False),
        ("PRECISION", "bfloat16", False),
        ("LAUNCH", "--nodes=2 --verbose --log-level=info", False),
        ("WANDB_API_KEY", "k", True),
        ("AUTH", "hf_0aB1cD2eF3gH4iJ5kL6m", True),
        ("HEX", "0123456789abcdef0123456789abcdef", True),
        ("DATABASE", "postgresql://me:word@host/x", True),
    ],
)
def test_what_may_be_a_key_is_told_by_its_name_and_by_its_looks(
    name: str, value: str, expected: bool
) -> None:
    assert may_be_secret(name, value) is expected
