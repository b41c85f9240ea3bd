"""A method is a row of METHODS, which all commands read, and a spec says what is stored of it."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
import json
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import IntDistribution
import pytest

from samplers import ScriptedChat
from studies import comparison
from studies.budget import Budget
from studies.commands.work import scoreboard
from studies.methods import Asking
from studies.methods import Method
from studies.methods import METHODS
from studies.methods import Setup
from studies.spec import Model
from studies.spec import Spec
from studies.spec import Where
from studies.study import setup
from studies.workers.processes import Event
from studies.workers.processes import Job
from tests.samplers._llm.conftest import LoopbackServer
from tests.samplers._llm.conftest import refusal
from tests.samplers._llm.conftest import reply
from tests.studies.conftest import Cli
from tests.studies.conftest import needs_sandbox
from tests.studies.scripted import edit
from tests.studies.scripted import make_testbed


CHANGE = '{"changes": [{"name": "DEPTH", "value": 5}]}'


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    server = LoopbackServer()
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    server.answers = lambda body: reply(CHANGE, usage=usage)
    yield server
    server.close()


def here(
    jobs: Sequence[Job], workers: int, watch: Callable[[Sequence[Event]], None], **others: Any
) -> None:
    """`run_jobs` in this process: it starts none, and sees what a test has patched."""
    for job in jobs:

        def tell(said: Any, name: str = job.name) -> None:
            watch([Event(name, "said", said)])

        job.work(job.spec, tell)
        watch([Event(job.name, "done")])


def test_a_new_method_is_one_row(cli: Cli, testbed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = Method(
        "points of a Sobol sequence",
        "QMCSampler",
        lambda setup: optuna.samplers.QMCSampler(seed=setup.seed),
    )
    monkeypatch.setitem(METHODS, "qmc", row)
    monkeypatch.setattr(comparison, "run_jobs", here)
    monkeypatch.setattr(scoreboard, "run_jobs", here)

    done = cli("run", "--method", "qmc", "--testbed", testbed, "--trials", 3, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["method"] == "qmc"
    few = ("--seeds", 2, "--trials", 1)
    done = cli("compare", "--methods", "random,qmc", "--testbed", testbed, *few)
    assert done.returncode == 0, done.stderr
    assert len(cli.trials("qmc-seed2")) == 1
    done = cli("report", "--out", "report")
    assert done.returncode == 0, done.stderr
    assert "qmc" in (cli.folder / "report" / "main" / "methods.csv").read_text()
    words = ("--problems", "bbob/f1/2d", "--samplers", "random,qmc", "--seeds", 0)
    done = cli("scoreboard", *words, "--trials", 5, "--workers", 1, "--out", "board")
    assert done.returncode == 0, done.stderr
    assert "QMCSampler" in (cli.folder / "board" / "README.md").read_text()


@needs_sandbox
def test_the_code_agent_is_a_method_of_run(
    cli: Cli, server: LoopbackServer, tmp_path: Path
) -> None:
    bed = make_testbed(tmp_path / "bed")
    server.answers = [reply(edit("lower the rate", "RATE = 0.5", "RATE = 0.4"))]
    words: list[object] = ["run", "--method", "karpathy-code", "--testbed", bed, "--study", "s"]
    words += ["--llm", server.url, "--model", "m", "--trials", 4, "--train-seconds", "0.05s"]
    assert "with a sampler, but got karpathy-code" in cli.fails(2, *words, "--dry-run")
    done = cli(*words, "--json")
    assert done.returncode == 0, done.stderr
    assert "isolation: " in done.stderr
    facts = json.loads(done.stdout)
    assert (facts["evaluated"], facts["state"]) == (4, "done")
    assert facts["best"]["val_bpb"] == pytest.approx(1.59)


def test_what_a_study_says_of_itself_keeps_its_names(
    cli: Cli, testbed: Path, server: LoopbackServer
) -> None:
    common = {
        "method", "seed", "testbed_hash", "train_seconds", "charge_llm", "testbed", "version",
        "memory_limit_mb", "budget_trials", "files",
        "command", "command_line", "config", "metric", "direction", "metric_file",
    }  # fmt: skip
    llm = ["--llm", server.url, "--model", "m", "--max-tokens", 100_000]
    llm += ["--llm-option", "reasoning_effort=low"]
    for method, others in (
        ("random", {"space_hash", "vary_seed", "failure_value", "budget_confirm"}),
        (
            "centaur",
            {
                *("space_hash", "vary_seed", "failure_value", "budget_confirm", "llm_ratio"),
                *("model", "max_tokens", "llm_options"),
            },
        ),
        (
            "karpathy-code",
            {
                *("baselines", "edit_files", "min_gain", "tune", "tune_edits", "model"),
                *("max_tokens", "llm_options"),
            },
        ),
    ):
        words = ["run", "--method", method, "--testbed", testbed, "--study", method, "--trials", 1]
        done = cli(*words, *(llm if "model" in others else []))
        assert done.returncode == 0, done.stderr
        attrs = optuna.load_study(study_name=method, storage=cli.storage).user_attrs
        assert attrs.keys() == common | others


def capped(cli: Cli, testbed: Path, server: LoopbackServer, *more: object) -> Any:
    words: list[object] = ["run", "--method", "karpathy-hp", "--testbed", testbed, "--study", "s"]
    words += ["--llm", server.url, "--model", "m", "--trials", 6, "--warm-start", 0]
    return cli(*words, *more)


def used(cli: Cli) -> int:
    """Tokens that the study's trials say the model took."""
    keys = ("llm_prompt_tokens", "llm_completion_tokens")
    return sum(t.user_attrs.get(key, 0) for t in cli.trials("s") for key in keys)


def test_a_cap_on_tokens_holds_for_the_whole_study_of_several_workers(
    cli: Cli, testbed: Path, server: LoopbackServer
) -> None:
    more = ("--workers", 2)
    assert capped(cli, testbed, server, *more, "--trials", 4).returncode == 0
    before, asked = used(cli), len(server.requests)
    assert before > 0
    # Another command counts what was asked for before.
    done = capped(cli, testbed, server, *more, "--max-tokens", before + 10)
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert f"may use {before + 10} tokens; {before} are used" in said
    assert "a higher --max-tokens or --max-cost" in said and "Traceback" not in done.stderr
    assert len(server.requests) == asked and used(cli) == before
    done = capped(cli, testbed, server, *more, "--max-tokens", 10**6, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["state"], facts["max_tokens"]) == ("done", 10**6)


def test_a_study_that_its_model_ends_confirms_and_shows_its_result_first(
    cli: Cli, testbed: Path, server: LoopbackServer
) -> None:
    answers = iter([reply(CHANGE.replace("5", depth)) for depth in "563"])
    server.answers = lambda body: next(answers, refusal("no money", 402))
    more = ("--trials", 20, "--confirm", 1)
    done = capped(cli, testbed, server, *more)
    assert done.returncode == 1
    assert "no money" in done.stderr.splitlines()[-1]
    assert "the best configurations are trained again" in done.stderr
    assert "val_bpb" in done.stdout and "optuna-autoresearch best" in done.stdout
    # A command that comes to nothing new has nothing to show before it says why.
    again = capped(cli, testbed, server, *more)
    assert (again.returncode, again.stdout) == (1, "") and "trained again" not in again.stderr


def test_only_a_run_of_centaur_with_its_critic_goes_on_without_its_model(testbed: Path) -> None:
    where = Where("sqlite:///none.db", testbed=testbed)
    for comparing, critic, expected in (
        (None, None, "continue"),
        (None, "none", "base"),
        ("main", None, "base"),
    ):
        model = Model(asking=Asking(critic=critic))
        spec = Spec(where, "s", "centaur", 0, Budget(9), model=model, comparison=comparing)
        known = setup(spec, where.load_script(), ScriptedChat())
        sampler: Any = METHODS["centaur"].sampler(known, 0)
        assert sampler._turns._on_error == expected


def test_a_model_is_told_what_is_the_same_in_every_trial(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text('OPTIMIZER = "sgd"\nLR = 0.1\nprint("val_bpb:", LR)\n')
    where = Where("sqlite:///none.db", testbed=tmp_path)
    spec = Spec(where, "s", "centaur", 0, Budget(9))
    known = setup(spec, where.load_script(), ScriptedChat())
    assert known.task.endswith("\nThe same in every trial: OPTIMIZER = sgd.")


def test_a_model_is_shown_what_else_a_script_prints(testbed: Path) -> None:
    spec = Spec(Where("sqlite:///none.db", testbed=testbed), "s", "centaur", 0, Budget(9))
    known = setup(spec, spec.where.load_script(), ScriptedChat()).side_data
    assert callable(known)
    names = ("train_loss", "steps", "total_seconds", "val_bpb", "llm_seconds", "training_seconds")
    assert [name for name in names if known(name)] == ["train_loss", "steps", "total_seconds"]


def test_a_cap_on_cost_needs_prices_and_ends_the_study(
    cli: Cli, testbed: Path, server: LoopbackServer
) -> None:
    done = capped(cli, testbed, server, "--max-cost", 0.0001)
    assert done.returncode == 2 and "--price-in" in done.stderr
    done = capped(cli, testbed, server, "--max-cost", 0.0001, "--price-in", 3, "--price-out", 15)
    assert done.returncode == 1
    assert "may cost 0.0001" in done.stderr.splitlines()[-1]
    assert server.requests == []


@pytest.mark.parametrize("method", ["centaur", "centaur-no-llm"])
def test_derived_values_reach_the_model_of_the_trials(method: str) -> None:
    seen: list[Any] = []

    def derived(params: Mapping[str, Any]) -> dict[str, float]:
        seen.append(dict(params))
        return {"width": params["depth"] * params["ratio"]}

    space = {"depth": IntDistribution(1, 20), "ratio": IntDistribution(8, 64)}
    setup = Setup(seed=0, space=space, derived=derived, llm_ratio=0.0)
    study = optuna.create_study(sampler=METHODS[method].sampler(setup, 0))

    for _ in range(3):
        trial = study.ask(dict(space))
        study.tell(trial, trial.params["depth"])

    assert study.trials[0].params in seen


def test_options_of_asking_reach_the_sampler_of_every_method_that_has_them() -> None:
    """Names and defaults are the samplers' own; what a method doesn't heed never reaches it."""
    chat = ScriptedChat()
    asking = Asking(3, "changes", "none", "all", 777)
    for name, row in METHODS.items():
        if row.edits_code:
            continue
        sampler: Any = row.sampler(Setup(seed=0, chat=chat, asking=row.asking(asking)), 0)
        kept = dict(vars(sampler))
        for part in ("_turns", "_learning"):
            kept |= vars(kept.get(part, row))
        own = {key.lstrip("_"): value for key, value in kept.items()}
        for option in row.heeds:
            if option == "critic":
                assert sampler._critic is None
            elif option == "max_prompt_tokens" and name.startswith("llambo"):
                assert sampler._settings.max_tokens == 777
            else:
                assert own[option] == getattr(asking, option), (name, option)
        row.sampler(Setup(seed=0, chat=chat), 0)


def test_the_published_protocol_is_every_third_trial_all_told_and_no_critic() -> None:
    row = METHODS["centaur"]
    asking = Asking(protocol="paper")
    sampler: Any = row.sampler(Setup(seed=0, chat=ScriptedChat(), asking=asking), 0)
    assert [n for n in range(20) if sampler.is_llm_turn(n)] == [12, 15, 18]
    assert sampler._critic is None and sampler._learning._learn_from_llm == "all"
    assert sampler._turns._reply == "full" and sampler._turns._warm_start == 0
    assert asking.variant == "protocol=paper"
    agent: Any = METHODS["karpathy-hp"].sampler(
        Setup(seed=0, chat=ScriptedChat(), asking=replace(asking, warm_start=4)), 0
    )
    assert (agent._reply, agent._warm_start) == ("full", 4)
    llambo: Any = METHODS["llambo-paper"].sampler(
        Setup(seed=0, chat=ScriptedChat(), asking=asking), 0
    )
    assert (llambo._settings.n_templates, llambo._n_predictions) == (1, 10)


def test_a_variant_is_a_study_of_its_own_and_named_in_the_report(
    cli: Cli, testbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "run_jobs", here)
    words: list[Any] = ["compare", "--methods", "centaur-no-llm,random", "--seeds", 0]
    words += ["--trials", 2, "--testbed", testbed, "--workers", 1]
    for options in ((), ("--critic", "none"), ("--protocol", "paper")):
        done = cli(*words, *options)
        assert done.returncode == 0, done.stderr
        assert ("does not reproduce" in done.stderr) == ("--protocol" in options)
    names = {s.study_name for s in optuna.get_all_study_summaries(cli.storage)}
    assert {
        "centaur-no-llm-seed0",
        "centaur-no-llm-seed0-critic=none",
        "centaur-no-llm-seed0-protocol=paper",
        "random-seed0-protocol=paper",
    } <= names and "random-seed0-critic=none" not in names
    done = cli("report", "--out", "report")
    assert done.returncode == 0, done.stderr
    table = "".join(path.read_text() for path in cli.folder.rglob("methods.csv"))
    assert "centaur-no-llm [critic=none]" in table and "random [protocol=paper]" in table


@pytest.mark.parametrize(
    "options, told",
    [
        (
            ("--method", "tpe", "--reply", "full"),
            "--reply must be with one of karpathy-hp, centaur",
        ),
        (("--method", "centaur", "--reply", "xml"), "--reply must be one of auto, full"),
        (("--method", "centaur", "--protocol", "mine"), "--protocol must be one of paper"),
    ],
)
def test_options_of_asking_that_nobody_heeds_are_refused(
    cli: Cli, testbed: Path, options: tuple[str, ...], told: str
) -> None:
    done = cli("run", *options, "--testbed", testbed, "--trials", 1)
    assert done.returncode == 2 and told in done.stderr


@pytest.mark.parametrize(
    "options",
    [
        ("--method", "centaur-no-llm", "--llm-ratio", 0.5),
        ("--method", "karpathy-hp", "--llm-ratio", 0.3),
        ("--method", "tpe", "--llm", "random-steps"),
        ("--method", "tpe", "--model", "m"),
        ("--method", "tpe", "--max-tokens", 9),
        ("--method", "tpe", "--price-in", 1),
    ],
)
def test_options_of_a_model_that_the_method_does_not_heed_are_refused(
    cli: Cli, testbed: Path, options: tuple[object, ...]
) -> None:
    said = cli.fails(2, "run", *options, "--testbed", testbed, "--trials", 1)
    assert f"{options[2]} must be with one of " in said and "centaur" in said


def test_a_share_is_a_studys_own_only_if_its_method_heeds_one(cli: Cli, testbed: Path) -> None:
    words: list[object] = ["run", "--method", "karpathy-hp", "--testbed", testbed, "--study", "s"]
    words += ["--llm", "random-steps", "--confirm", 0, "--trials"]
    assert cli(*words, 1).returncode == 0
    study = optuna.load_study(study_name="s", storage=cli.storage)
    assert "llm_ratio" not in study.user_attrs
    study.set_user_attr("llm_ratio", 0.5)  # as an earlier version stored it
    done = cli(*words, 2)
    assert done.returncode == 0, done.stderr
