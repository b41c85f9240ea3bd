"""The report's first section, on storages whose answers are known."""

from __future__ import annotations

from html import unescape
import re

from optuna.storages import InMemoryStorage
from optuna.trial import create_trial
import pytest

from studies.report.content import Report
from studies.report.page import build_page
from studies.report.runs import load_contents
from tests.studies.report.synthetic import add_repetitions
from tests.studies.report.synthetic import add_study
from tests.studies.report.synthetic import SPACE


def findings(storage: InMemoryStorage, reference: str = "random") -> list[str]:
    """The sentences of the page's first section."""
    (contents,) = load_contents(storage, print).values()
    page = build_page(Report(contents.runs, reference, unstarted=contents.unstarted))
    section = re.search(r'<section id="s-findings".*?</section>', page, re.DOTALL)
    assert section is not None
    return [unescape(item) for item in re.findall(r"<li>(.*?)</li>", section[0])]


def test_a_method_that_is_better_by_a_known_amount_is_found(memory: InMemoryStorage) -> None:
    for seed in range(8):
        add_study(memory, "random", seed)
        add_study(memory, "tpe", seed, gap=-0.03)
    (sentence, *_) = findings(memory)
    assert sentence.startswith(
        "tpe is better than random, on 8 of 8 paired seeds; mean difference"
    )
    found = re.search(r"difference (\S+) \(95 % interval (\S+) to (\S+)\)", sentence)
    assert found is not None
    difference, low, high = map(float, found.groups())
    assert low < -0.03 < high and low < difference < high < 0


def test_a_method_that_is_worse_is_called_worse(memory: InMemoryStorage) -> None:
    for seed in range(8):
        add_study(memory, "random", seed)
        add_study(memory, "tpe", seed, gap=0.03)
    assert "tpe is worse than random, on 8 of 8 paired seeds" in findings(memory)[0]


def test_equal_methods_are_neither_told_apart_nor_called_equal(memory: InMemoryStorage) -> None:
    for seed in range(10):
        add_study(memory, "random", seed)
        add_study(memory, "tpe", seed)
    (sentence, *_) = findings(memory)
    assert sentence.startswith("No difference between tpe and random was shown (10 paired seeds")
    assert "not evidence that they are equal" in sentence


def test_three_seeds_support_no_claim_and_the_report_says_how_many_could(
    memory: InMemoryStorage,
) -> None:
    for seed in range(3):
        add_study(memory, "random", seed)
        add_study(memory, "tpe", seed, gap=-0.03)
    said = findings(memory)
    assert said[0].startswith("3 paired seeds can't support a claim about tpe against random")
    assert any(s.startswith("tpe shares 3 seeds with random: 6 are the fewest") for s in said)


def test_one_seed_of_another_method_takes_no_claim_away_and_is_named(
    memory: InMemoryStorage,
) -> None:
    for seed in range(6):
        add_study(memory, "random", seed)
        add_study(memory, "tpe", seed, gap=-0.03)
    add_study(memory, "smac", 0)
    add_study(memory, "cma-es", 0)
    add_study(memory, "cma-es", 1)
    said = findings(memory)
    assert "tpe is better than random, on 6 of 6 paired seeds" in said[0]
    (power,) = (s for s in said if "are the fewest" in s)
    assert re.match(r"(smac, cma-es|cma-es, smac) share 1 to 2 seeds with random: 7 are", power)
    assert power.endswith("would be significant (p <= 0.05) for 3 compared methods.")


def test_too_few_seeds_for_the_correction_are_said_without_those_that_do_not_count(
    memory: InMemoryStorage,
) -> None:
    for seed in range(6):
        add_study(memory, "random", seed)
        add_study(memory, "tpe", seed, gap=-0.03)
        add_study(memory, "smac", seed, gap=-0.02)
    add_study(memory, "cma-es", 0)
    said = [s for s in findings(memory) if "are the fewest" in s]
    assert len(said) == 2
    assert said[0].startswith("tpe, smac share 6 seeds with random: 7 are the fewest")
    assert said[0].endswith("for 2 compared methods.")
    assert said[1].endswith("for 3 compared methods.")
    assert said[1].startswith("cma-es shares 1 seed with random: 7 are the fewest")


def test_missing_runs_are_named_and_left_out_of_the_pairs(memory: InMemoryStorage) -> None:
    for seed in range(8):
        add_study(memory, "random", seed)
        if seed not in (2, 5):
            add_study(memory, "tpe", seed, gap=-0.03)
    add_study(memory, "smac", 0, trials=0)
    said = findings(memory)
    assert "on 6 of 6 paired seeds" in said[0]
    assert "No trial has ended in smac-seed0." in said
    assert "tpe has no run with seed 2, 5." in said


def test_a_run_that_stopped_early_is_named(memory: InMemoryStorage) -> None:
    add_study(memory, "random", 0, trials=5, budget_trials=30)
    add_study(memory, "random", 1, trials=5, budget_trials=30, run_error="the disk is full")
    said = findings(memory)
    assert "random with seed 0 is not done (stopped) and counts with what it has." in said
    assert any("random with seed 1 is not done (failed: the disk is full)" in s for s in said)


def test_a_method_whose_trials_all_failed_has_no_value_and_no_claim(
    memory: InMemoryStorage,
) -> None:
    for seed in range(8):
        add_study(memory, "random", seed)
        add_study(memory, "a", seed, failed_share=1.0)
    said = findings(memory)
    assert said[0] == "a and random share no seed with a value."
    assert "Nothing succeeded in any run of a." in said


def test_a_storage_in_which_everything_failed_still_has_a_page(memory: InMemoryStorage) -> None:
    add_study(memory, "random", 0, failed_share=1.0)
    add_study(memory, "centaur", 0, failed_share=1.0)
    said = findings(memory)
    assert said[0] == "centaur and random share no seed with a value."
    assert {
        "Nothing succeeded in any run of centaur.",
        "Nothing succeeded in any run of random.",
    } <= set(said)


def test_a_code_agents_runs_have_a_page_without_parameters(memory: InMemoryStorage) -> None:
    study = add_study(memory, "karpathy-code", 0, trials=0)
    for number in range(3):
        attrs = {"status": "ok", "val_bpb": 1.0 - number / 100, "source_sha256": str(number)}
        study.add_trial(create_trial(value=1.0, user_attrs=attrs))
    (contents,) = load_contents(memory, print).values()
    page = build_page(Report(contents.runs, "karpathy-code"))
    links = re.findall(r'<a href="#s-[\w-]+">(.*?)</a>', page)
    assert "Traces" in links
    assert not {"Parameters", "Pairs", "Parallel", "Failure map"} & set(links)


def test_a_mean_over_the_runs_that_succeeded_is_said_to_flatter(memory: InMemoryStorage) -> None:
    add_study(memory, "random", 0)
    add_study(memory, "random", 1, failed_share=1.0)
    assert any("succeeded in 1 of 2 runs of random" in s for s in findings(memory))


def test_unequal_budgets_conditions_and_repeated_seeds_are_said(memory: InMemoryStorage) -> None:
    add_study(memory, "random", 0, train_seconds=10.0)
    add_study(memory, "random", 0, train_seconds=20.0, trials=60, name="again")
    said = findings(memory)
    assert any(
        "training seconds a trial: 10.0, 20.0. Their values don't compare." in s for s in said
    )
    assert any(s.startswith("Runs had 30 to 60 trials and") for s in said)
    assert any(s.startswith("2 runs of random have seed 0") for s in said)


def test_runs_that_found_nothing_better_than_the_baseline_are_counted(
    memory: InMemoryStorage,
) -> None:
    for method, values in {"random": (1.0, 1.1), "tpe": (1.05, 1.0)}.items():
        for seed in range(2):
            study = add_study(memory, method, seed, trials=0)
            for value in values[: 2 - seed]:
                attrs = {"status": "ok", "val_bpb": value}
                study.add_trial(create_trial(value=value, user_attrs=attrs))
    assert (
        "3 of 4 runs found nothing better than the baseline (random 2 of 2, tpe 1 of 2): the "
        "baseline's values differ by luck alone."
    ) in findings(memory)


@pytest.mark.parametrize(
    ("values", "seconds", "is_luck"),
    [
        ((1.0, 1.1), (9.0, 9.0), True),
        ((1.0, 1.0), (9.0, 9.0), False),
        ((1.0, 1.1), (9.0, 5.0), False),
    ],
)
def test_baselines_differ_by_luck_only_if_they_differ_under_the_same_conditions(
    memory: InMemoryStorage,
    values: tuple[float, float],
    seconds: tuple[float, float],
    is_luck: bool,
) -> None:
    for seed in range(2):
        study = add_study(memory, "random", seed, trials=0, train_seconds=seconds[seed])
        study.add_trial(create_trial(value=values[seed], user_attrs={"status": "ok"}))
    luck = ": the baseline's values differ by luck alone" if is_luck else ""
    assert (
        f"2 of 2 runs found nothing better than the baseline (random 2 of 2){luck}."
    ) in findings(memory)


def test_a_lucky_method_is_told_from_a_better_one_by_its_repetitions(
    memory: InMemoryStorage,
) -> None:
    for seed in range(8):
        honest = add_study(memory, "random", seed)
        lucky = add_study(memory, "tpe", seed, gap=-0.03)
        add_repetitions(memory, honest, [1.01, 1.03])
        add_repetitions(memory, lucky, [1.04 + seed / 1000, 1.05])
    said = findings(memory)
    assert said[0].startswith("tpe is worse than random, on 8 of 8")  # by the repetitions
    assert said[1].startswith("tpe is better than random, on 8 of 8")  # by the best values
    assert not any("revalidated" in sentence for sentence in said)


def test_a_winner_whose_repetitions_fail_is_not_called_better_without_saying_so(
    memory: InMemoryStorage,
) -> None:
    for seed in range(8):
        add_repetitions(memory, add_study(memory, "random", seed), [1.02, 1.03, 1.04])
        risky = add_study(memory, "risky", seed, gap=-0.03)
        add_repetitions(memory, risky, [None, None, 0.9 + seed / 1000 if seed < 6 else None])
    said = findings(memory)
    assert said[0].startswith("risky is better than random, on 6 of 6 paired seeds")
    failed = "18 of 24 repetitions of risky's best configurations failed"
    assert said[0].endswith(f"p = 0.031; this leaves out that {failed}.")
    assert f"{failed}; its revalidated mean is that of the others, and flatters it." in said
    assert any(s.startswith("In 2 of 8 runs of risky all repetitions failed") for s in said)
    assert not any("not revalidated" in sentence for sentence in said)


def test_a_method_none_of_whose_repetitions_succeeded_has_no_verdict(
    memory: InMemoryStorage,
) -> None:
    for seed in range(8):
        add_repetitions(memory, add_study(memory, "random", seed), [1.02])
        add_repetitions(memory, add_study(memory, "risky", seed, gap=-0.03), [None])
    said = findings(memory)
    assert said[0] == "risky and random share no seed with a value."
    assert (
        "8 of 8 repetitions of risky's best configurations failed, so it has no revalidated mean."
    ) in said


def test_runs_without_repetitions_are_said(memory: InMemoryStorage) -> None:
    add_study(memory, "random", 0)
    add_study(memory, "tpe", 0)
    assert any("No run is revalidated" in sentence for sentence in findings(memory))
    add_repetitions(memory, add_study(memory, "random", 1), [1.0])
    assert "1 of 2 runs of random are not revalidated." in findings(memory)


def test_one_best_of_several_methods_is_no_finding_of_each(memory: InMemoryStorage) -> None:
    def add(method: str, seed: int, width: float, number: int) -> None:
        study = add_study(memory, method, seed, trials=0)
        for i in range(3):
            attrs = {"status": "ok", "source": "startup" if i else "enqueued"}
            params = {"WIDTH": width if i == number else 0.01 * i}
            value = 1.0 if i == number else 2.0
            trial = create_trial(
                value=value,
                params=params,
                distributions={"WIDTH": SPACE["WIDTH"]},
                user_attrs=attrs,
            )
            study.add_trial(trial)

    for seed in range(3):
        add("random", seed, 0.5, 0 if seed == 2 else 1)
        add("tpe", seed, 0.5, (1, 2, 0)[seed])
    same = [said for said in findings(memory) if "have the same best" in said]
    assert len(same) == 1 and same[0].startswith(
        "On 1 of 3 seeds random, tpe have the same best, found in the same trial:"
    ), "not where another trial found it, nor the baseline"
