from __future__ import annotations

from dataclasses import replace
import math

import pytest

from studies.errors import Misuse
from studies.scoreboard.problems import draw
from studies.scoreboard.problems import normalize
from studies.scoreboard.problems import Outcome
from studies.scoreboard.problems import with_failures
from tests.studies.scoreboard.made import bowl


def test_the_scale_is_what_half_of_random_points_exceed() -> None:
    problem = bowl()
    regrets = [problem.evaluate(p).value for p in draw(problem.space, 4000)[1000:]]
    above = sum(r is not None and r > problem.scale for r in regrets) / len(regrets)
    assert above == pytest.approx(0.5, abs=0.05)


def test_random_points_are_the_same_whoever_asks() -> None:
    space = bowl().space
    assert draw(space, 5) == draw(space, 9)[:5]
    assert all(d._contains(d.to_internal_repr(draw(space, 1)[0][n])) for n, d in space.items())


@pytest.mark.parametrize("seed", range(5))
def test_three_tenths_of_the_space_fail_and_the_optimum_does_not(seed: int) -> None:
    problem = bowl()
    failing = with_failures(problem, "oom", seed)
    failed = [failing.evaluate(p).status == "oom" for p in draw(problem.space, 3000)]
    assert sum(failed) / len(failed) == pytest.approx(0.3, abs=0.04)
    assert problem.best is not None
    assert failing.evaluate(problem.best) == Outcome(0.0)


def test_failures_are_near_the_optimum() -> None:
    """Check that some points fail that are better than nine tenths of all."""
    problem = bowl()
    failing = with_failures(problem, "fail", 0)
    best = sorted(draw(problem.space, 3000), key=lambda p: problem.evaluate(p).value or 0.0)[:300]
    assert any(failing.evaluate(p).status == "fail" for p in best)


def test_an_oom_has_a_value_above_all_random_points_and_a_fail_has_none() -> None:
    problem = bowl()
    highest = max(problem.evaluate(p).value or 0.0 for p in draw(problem.space, 1000))
    oom, fail = (with_failures(problem, kind, 0) for kind in ("oom", "fail"))  # type: ignore[arg-type]
    for failing, expected in ((oom, 2 * highest), (fail, None)):
        found = [failing.evaluate(p) for p in draw(problem.space, 200)]
        assert {o.value for o in found if o.status != "ok"} == {expected}


def test_failures_need_a_known_optimum() -> None:
    with pytest.raises(ValueError, match="known optimum"):
        with_failures(replace(bowl(), best=None), "fail", 0)


def test_a_problem_that_no_random_point_satisfies_is_refused() -> None:
    hopeless = replace(bowl(), evaluate=lambda params: Outcome(1.0, constraints={"g": 1.0}))
    with pytest.raises(Misuse, match="choose another problem"):
        assert hopeless.scale


@pytest.mark.parametrize(
    ("regret", "least", "expected"),
    [
        (0.0, 0.0, 0.0),
        (4.0, 1.0, 0.5),  # the optimum is known: the least regret of the runs changes nothing
        (9.0, 0.0, 1.0),
        (math.inf, 0.0, 1.0),
        (-2.0, -2.0, 0.0),  # below what was the least value known
        (0.0, -2.0, 0.2),
    ],
)
def test_a_normalized_regret_is_a_share_of_a_random_trials(
    regret: float, least: float, expected: float
) -> None:
    assert normalize(regret, least, 8.0) == pytest.approx(expected)
