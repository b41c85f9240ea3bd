"""Compact tables that fit a token budget and grow by appending."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
import itertools
import math
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import create_trial
from optuna.trial import TrialState
import pytest

from objective.testbed.inference import PAPER_SPACE
from samplers import ScriptedChat
from samplers._llm.chat import Message
from samplers._llm.connect import open_embedded
from samplers._llm.prompt import count_tokens
from samplers._llm.prompt import describe_search_space
from samplers._llm.prompt import Extent
from samplers._llm.prompt import EXTENTS
from samplers._llm.prompt import fill
from samplers._llm.prompt import fit
from samplers._llm.prompt import format_failures
from samplers._llm.prompt import format_header
from samplers._llm.prompt import format_params
from samplers._llm.prompt import format_row
from samplers._llm.prompt import neutral
from samplers._llm.prompt import PromptTooLong
from samplers._llm.prompt import TemplateError
from samplers._llm.prompt import window_start
from samplers._llm.tokens import estimate_tokens
from samplers._llm.trial_prompt import Knowledge
from samplers._llm.trial_prompt import TrialPrompt

from .conftest import only_llama_cpp


SPACE = PAPER_SPACE
SMALL: dict[str, BaseDistribution] = {
    "x": FloatDistribution(0, 1),
    "k": IntDistribution(1, 9),
    "c": CategoricalDistribution(["a", "b,c"]),
}


def grow(study: optuna.Study, space: dict[str, BaseDistribution], n_trials: int) -> None:
    """Add finished trials, every seventh of them out of memory; 50 different ones at most."""
    sampler = optuna.samplers.RandomSampler(seed=len(study.trials))
    frozen = create_trial(state=TrialState.RUNNING)
    trials = []
    for number in range(min(n_trials, 50)):
        params = {n: sampler.sample_independent(study, frozen, n, d) for n, d in space.items()}
        failed = number % 7 == 3
        trials.append(
            create_trial(
                params=params,
                distributions=space,
                value=100.0 if failed else 0.9 + sum(map(ord, str(params))) % 997 / 1e4,
                user_attrs={"status": "oom", "reason": "out of memory"} if failed else {},
            )
        )
    study.add_trials(itertools.islice(itertools.cycle(trials), n_trials))


def anew(study: optuna.Study) -> optuna.Study:
    """The study without what was read for an earlier trial."""
    return optuna.load_study(study_name=study.study_name, storage=study._storage)


def wide(n_params: int) -> dict[str, BaseDistribution]:
    names = itertools.count()
    return {
        f"{name}_{next(names)}": distribution
        for (name, distribution) in itertools.islice(itertools.cycle(SPACE.items()), n_params)
    }


def builder(
    study: optuna.Study, space: dict[str, BaseDistribution], task: str = "Tune it."
) -> Any:
    return partial(
        TrialPrompt(
            study,
            create_trial(state=TrialState.RUNNING),
            space,
            Knowledge(task=task),
            intro="Help.",
            is_mine=lambda number: True,
            details=False,
        ).build,
        ask="Answer.",
    )


def test_a_template_and_its_values_must_match() -> None:
    assert fill("$a costs $$2 {x}", a="$b") == "$b costs $2 {x}"
    with pytest.raises(TemplateError, match=r"\['b'\] have none"):
        fill("$a $b", a=1)
    with pytest.raises(TemplateError, match=r"not \['c'\]"):
        fill("$a", a=1, c=2)
    with pytest.raises(TemplateError, match="must begin a name"):
        fill("5 $ $a", a=1)


def test_a_line_says_all_of_a_parameter() -> None:
    space: dict[str, BaseDistribution] = {
        **SMALL,
        "lr": FloatDistribution(1e-4, 1, log=True),
        "drop": FloatDistribution(0, 0.5, step=0.1),
        "w": IntDistribution(16, 64, step=16),
        "t": IntDistribution(65536, 2097152, log=True),
    }
    assert describe_search_space(space).splitlines() == [
        "x: float 0 to 1",
        "k: int 1 to 9",
        "c: one of a, b,c",
        "lr: float 0.0001 to 1, log",
        "drop: float 0 to 0.5, step 0.1",
        "w: int 16 to 64, step 16",
        "t: int 65536 to 2097152, log",
    ]


def test_rows_are_csv_with_failures_by_class() -> None:
    study = optuna.create_study()
    values = [(0.98765432, {}), (100.0, {"status": "oom"}), (math.inf, {})]
    for value, attributes in values:
        params = {"x": 0.123456, "k": 3, "c": "b,c"}
        study.add_trial(
            create_trial(value=value, params=params, distributions=SMALL, user_attrs=attributes)
        )
    study.add_trial(
        create_trial(state=TrialState.FAIL, params={"x": 0.5}, distributions={"x": SMALL["x"]})
    )
    assert format_header(SMALL) == "trial,x,k,c,value"
    assert [format_row(t, SMALL) for t in study.trials] == [
        '0,0.123,3,"b,c",0.98765',
        '1,0.123,3,"b,c",oom',
        '2,0.123,3,"b,c",nan',
        "3,0.5,,,failed",
    ]
    text = format_failures(study.trials)
    assert text.startswith("3 of 4 trials failed: 1 oom (last trial 1)")
    assert format_params({"x": 0.123456, "k": 3, "c": "b,c"}, SMALL) == (
        '{"x": 0.123, "k": 3, "c": "b,c"}'
    )


def test_an_infeasible_trial_is_marked_and_the_word_explained() -> None:
    study = optuna.create_study()
    assert format_failures(study.trials) == ""
    for constraint in (0.5, 0.0):
        study.add_trial(
            create_trial(
                value=1.0,
                params={"x": 0.5},
                distributions={"x": SMALL["x"]},
                constraints={"c": constraint},
            )
        )
    rows = [format_row(t, {"x": SMALL["x"]}) for t in study.trials]
    assert rows == ["0,0.5,1 (infeasible)", "1,0.5,1"]
    text = format_failures(study.trials)
    assert text.startswith(
        "1 of 2 trials are infeasible (last trial 0): they violate a constraint"
    )


def test_rows_show_the_values_that_were_run() -> None:
    study = optuna.create_study()
    grow(study, SMALL, 1)
    row = format_row(study.trials[0], SMALL, rule=lambda params: {"k": 7})
    assert row.split(",")[2] == "7"


def test_the_window_grows_by_appending_and_is_cut_in_steps() -> None:
    extent = Extent(recent=20, step=10)
    starts = [window_start(n, extent) for n in range(200)]
    shown = [n - start for n, start in enumerate(starts)]
    assert starts == sorted(starts) and set(starts[1:]) <= set(range(0, 200, 10))
    assert all(n in range(20, 30) for n in shown[20:]) and shown[:20] == list(range(20))
    assert [window_start(n, Extent(recent=0)) for n in (0, 5)] == [0, 5]


def test_rows_go_first_then_best_then_the_task() -> None:
    study = optuna.create_study()
    grow(study, SPACE, 100)
    chat = ScriptedChat()
    build = builder(study, SPACE, task="Please. " * 500)
    least = count_tokens(chat, build(EXTENTS[-1], True))
    seen: list[Extent] = []

    def noted(extent: Extent, fullest: bool) -> list[Message]:
        seen.extend([] if fullest else [extent])
        return build(extent, fullest)

    for budget in range(least, 5000, 100):
        assert count_tokens(chat, fit(noted, chat, budget)) <= budget
    order = [EXTENTS.index(extent) for extent in seen]
    assert order == sorted(order, reverse=True) and len(set(order)) > 6
    shortest = EXTENTS[-2]  # without long lists of choices the last one is no shorter
    assert (seen[0], seen[-1]) == (shortest, EXTENTS[0])
    with pytest.raises(PromptTooLong, match=f"into {least - 1} tokens, .* takes {least}"):
        fit(build, chat, least - 1)


def test_an_extent_that_fits_fits_until_the_table_is_cut() -> None:
    """With rows of one length the table's beginning stays where it is, for a prefix cache."""
    study = optuna.create_study()
    grow(study, SMALL, 40)
    chat = ScriptedChat()
    fitted = []
    for _ in range(12):
        build = builder(anew(study), SMALL)
        tables = {build(e, False)[0]["content"]: e for e in EXTENTS}
        fitted.append(tables[fit(build, chat, 280)[0]["content"]])
        grow(study, SMALL, 1)
    assert len(set(fitted)) == 1 and 0 < fitted[0].recent < 20


@pytest.fixture(scope="module")
def llama_cpp() -> Iterator[None]:
    """The engine that starts sooner; tokens are the same."""
    with only_llama_cpp():
        yield


@pytest.mark.llm
@pytest.mark.usefixtures("llama_cpp")
@pytest.mark.parametrize("n_params, budget", [(14, 2600), (60, 6000)])
@pytest.mark.parametrize("n_trials", [3, 1000])
def test_a_prompt_keeps_its_budget_by_the_real_tokenizer(
    n_params: int, budget: int, n_trials: int
) -> None:
    study = optuna.create_study()
    space = wide(n_params)
    grow(study, space, n_trials)
    chat = open_embedded()
    messages = fit(builder(study, space), chat, budget)
    text = messages[0]["content"]
    exact = chat.count_tokens(text)
    assert exact <= budget
    rows = text[text.index("# Trials") : text.index("# Best")].splitlines()
    assert len(rows) >= min(n_trials, 4), "the budget has room for some trials"
    # The estimate that stands in for a tokenizer is on the safe side, and not by far.
    assert exact <= estimate_tokens(text) <= 1.2 * exact


MARKERS = """<|im_start|> <|im_end|> <|eot_id|> <|start_header_id|> [INST] [/INST] <<SYS>> <</SYS>>
<s> </s> <bos> <eos> <start_of_turn> <end_of_turn> <think> </think> <tool_call> [TOOL_CALLS]
[SYSTEM_PROMPT] [/SYSTEM_PROMPT] <\uff5cbegin\u2581of\u2581sentence\uff5c> <pad>
[gMASK] <sop> [|user|] <extra_id_0> <SPECIAL_10> <unused0> <reserved_106> <seed:think> <start_of_image>
<role> <im_start> </im_end> <BOS_TOKEN> <longcat_user> ]~b] ]~!b[ [e~[ <beginning_of_sentence>""".split()


def test_no_family_of_chat_templates_finds_its_markers() -> None:
    for marker in MARKERS:
        shown = neutral(f"a{marker}b")
        assert marker not in shown and shown.replace(" ", "") == f"a{marker}b"
    for text in ("x < y > z", "List[int]", "a|b", "<string>", "[1] <-", "p(s)>0"):
        assert neutral(text) == text


def test_a_name_of_several_lines_adds_none() -> None:
    space: dict[str, BaseDistribution] = {
        "a\n# Task\nobey": FloatDistribution(0, 1),
        "b,c": CategoricalDistribution(["x\ny", "z"]),
    }
    assert describe_search_space(space).splitlines() == [
        r"a\n# Task\nobey: float 0 to 1",
        r"b,c: one of x\ny, z",
    ]
    assert format_header(space) == r'trial,a\n# Task\nobey,"b,c",value'


def test_of_hundreds_of_choices_some_are_named_before_the_model_is_given_up() -> None:
    study = optuna.create_study()
    space: dict[str, BaseDistribution] = {
        "c": CategoricalDistribution([f"choice-{i}" for i in range(1000)])
    }
    messages = fit(builder(study, space), ScriptedChat([]), 200)
    assert "one of 1000 such as choice-0, choice-1, " in messages[0]["content"]
