"""The methods: name -> how to build its sampler, a row each, which all commands read.

The help of commands names them, so that each imports its sampler when it is built.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from typing import Any
from typing import TYPE_CHECKING
import warnings

from studies.random_steps import reply_format


if TYPE_CHECKING:
    from optuna.artifacts import FileSystemArtifactStore
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

    from samplers import Chat


LLM_RATIO = 0.3  # the paper's
DEFAULT_NAME = "main"  # of a comparison
CODE_AGENT = "karpathy-code"

PUBLISHED = "paper"  # the protocol
# What it leaves as it is here, said where it is asked for.
NOT_AS_PUBLISHED = (
    "--protocol paper does not reproduce: repetitions of configurations that were run already,"
    " which are refused here; the restart of CMA-ES at each resume; SMAC's three runs of each"
    " configuration; Optuna 4's univariate TPE; the wording of the prompts"
)


@dataclass(frozen=True)
class Asking:
    """How a method asks its language model, and what of its answers; ``None`` is its default.

    Attributes:
        warm_start: Configurations that are asked for in one request, as the first trials.
        reply: Format of the reply: ``auto``, ``full``, ``changes`` or ``menu``.
        critic: ``gp``, or ``none`` for no model of the trials.
        learn_from_llm: What CMA-ES learns of the model's trials: ``clipped`` or ``all``.
        max_prompt_tokens: Longest prompt.
        protocol: ``paper`` for the published variant of each method.
    """

    warm_start: int | None = None
    reply: str | None = None
    critic: str | None = None
    learn_from_llm: str | None = None
    max_prompt_tokens: int | None = None
    protocol: str | None = None

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise ValueError(
                    f"{option_of(name)} must be one of {', '.join(choices)}, but got {value!r}."
                )

    def given(self) -> dict[str, Any]:
        """Return what differs from the defaults, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def variant(self) -> str:
        """Name of the variant of a method, for tables and studies' names; ``""`` is the default."""
        return " ".join(f"{option_of(n)[2:]}={value}" for n, value in self.given().items())

    def arguments(self, *names: str) -> dict[str, Any]:
        """Return the sampler's arguments of these names, without those that are its defaults."""
        given = {name: value for name, value in self.given().items() if name in names}
        if given.get("critic") == "none":
            given["critic"] = None
        return given


_CHOICES = {
    "reply": ("auto", "full", "changes", "menu"),
    "critic": ("gp", "none"),
    "learn_from_llm": ("clipped", "all"),
    "protocol": (PUBLISHED,),
}


def option_of(name: str) -> str:
    return "--" + name.replace("_", "-")


@dataclass(frozen=True)
class Setup:
    """The part of a study that its method's sampler is given.

    Attributes:
        seed: The study's seed; 0 is a seed.
        space: The search space.
        n_trials: Trials of the whole study; ``None`` if only a time budget ends it.
        task: What is tuned, in words for a language model.
        rule: The objective's own rule: parameters to the values that are really run.
        derived: Further numbers that the value may depend on, such as a width that is a product:
            parameters, as they are really run, to numbers by name.
        side_data: Names of trials' attributes that tell a language model more than the value does, or
            whether one does.
        noise: Standard deviation between trainings of one configuration, as far as it was measured.
        chat: The language model; ``None`` for methods that ask none.
        llm_ratio: Share of the trials after start-up that the language model decides (Centaur).
        asking: How the language model is asked.
        artifact_store: Where prompts and replies are kept; ``None`` keeps none.
        goes_on: Whether the study goes on without its language model once that fails for good, if the
            method chooses well without. A comparison doesn't: it would measure something else.
    """

    seed: int
    space: Mapping[str, BaseDistribution] = field(default_factory=dict)
    n_trials: int | None = None
    task: str = ""
    rule: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    derived: Callable[[Mapping[str, Any]], Mapping[str, float]] | None = None
    side_data: Sequence[str] | Callable[[str], bool] = ()
    noise: float | None = None
    chat: Chat | None = None
    llm_ratio: float = LLM_RATIO
    asking: Asking = Asking()
    artifact_store: FileSystemArtifactStore | None = None
    goes_on: bool = False


@dataclass(frozen=True)
class Method:
    """A row of `METHODS`.

    Attributes:
        summary: One line for ``--help``.
        label: Its name in the scoreboard's tables and plots.
        build: A fresh sampler, since Optuna refuses to share one among studies; ``None`` for the
            code agent, which has no parameters to sample but edits the script.
        milliseconds: Of a trial, measured over 50 trials of 10 parameters on one busy core; only
            for the scoreboard's estimates of its time.
        uses_llm: Whether it needs ``Setup.chat``.
        has_ratio: Whether it heeds ``Setup.llm_ratio``.
        heeds: Names of `Asking` that it heeds, beside ``protocol``.
        seeded_by_trial: Whether a sampler is built for each trial, with a seed made of the study's
            and the trial's number. Optuna's own samplers draw one sequence per object, which a
            resumed run would replay and two processes would share.
    """

    summary: str
    label: str
    build: Callable[[Setup], BaseSampler] | None
    milliseconds: float = 100.0
    uses_llm: bool = False
    has_ratio: bool = False
    heeds: tuple[str, ...] = ()
    seeded_by_trial: bool = False

    def asking(self, asking: Asking) -> Asking:
        """Return the part of ``asking`` that this method heeds."""
        unheeded = asking.given().keys() - {*self.heeds, "protocol"}
        return replace(asking, **dict.fromkeys(unheeded))

    @property
    def edits_code(self) -> bool:
        """True for the code agent alone, which has no sampler."""
        return self.build is None

    def sampler(self, setup: Setup, number: int) -> BaseSampler:
        """Return the sampler for the trial with this number, as a pure function of both.

        The number must be that without repeats of killed trials, or a resumed study would go on as
        another one.
        """
        if self.seeded_by_trial:
            from samplers._trials.seeds import derive_seed

            setup = replace(setup, seed=derive_seed(setup.seed, number))
        assert self.build is not None, "the code agent has no sampler"
        return self.build(setup)


def _cma_es(setup: Setup) -> BaseSampler:
    from samplers._trials.stored_cma import CheckedCmaEsSampler

    # That a failed trial is infeasible is for `best_trial`; CMA-ES learns from its value.
    warnings.filterwarnings("ignore", "Constraints have been set, but CmaEsSampler", UserWarning)
    # Categorical parameters are sampled at random, which Optuna would mention in every trial.
    return CheckedCmaEsSampler(seed=setup.seed, warn_independent_sampling=False)


def _of_optuna(name: str, summary: str, milliseconds: float = 100.0) -> Method:
    """Make the row of Optuna's sampler of this name, with its defaults."""

    def build(setup: Setup) -> BaseSampler:
        from optuna import samplers

        sampler: BaseSampler = getattr(samplers, name)(seed=setup.seed)
        return sampler

    return Method(summary, name, build, milliseconds, seeded_by_trial=True)


def _smac(setup: Setup) -> BaseSampler:
    from samplers import SMACSampler

    return SMACSampler(seed=setup.seed)


_KARPATHY = ("warm_start", "reply", "max_prompt_tokens")
_CENTAUR = (*_KARPATHY, "critic", "learn_from_llm")


def _centaur(setup: Setup) -> BaseSampler:
    from samplers import CentaurSampler

    asked: dict[str, Any] = {"llm_ratio": setup.llm_ratio, "reply": reply_format(setup.chat)}
    if setup.asking.protocol == PUBLISHED:
        # Every round(1 / ratio)-th trial, all of which CMA-ES learns as they are.
        every = max(1, round(1 / setup.llm_ratio)) if setup.llm_ratio else 0
        asked |= {"llm_ratio": 1 / every if every else 0.0, "critic": None, "warm_start": 0}
        asked |= {"learn_from_llm": "all", **_in_full(setup)}
    asked |= setup.asking.arguments(*_CENTAUR)
    if setup.goes_on and asked.get("critic", "gp") is not None:
        asked["on_error"] = "continue"
    return CentaurSampler(
        **asked,
        **_experiment(setup, *_OF_TRIALS),
        warn_independent_sampling=False,
    )


_OF_TRIALS = ("derived", "side_data", "n_trials", "noise")


def _experiment(setup: Setup, *further: str) -> dict[str, Any]:
    """Arguments that every method with a model takes from its setup, and ``further`` ones."""
    names = ("chat", "task", "rule", "artifact_store", "seed", *further)
    return {name: getattr(setup, name) for name in names}


def _in_full(setup: Setup) -> dict[str, Any]:
    """The published reply format; random steps only choose from a menu."""
    return {"reply": "full"} if reply_format(setup.chat) == "auto" else {}


# The study's own numbers: of its port of LLAMBO's code, and of OptunaHub's package.
_LLAMBO_PUBLISHED = {"n_templates": 1, "n_predictions": 10, "alpha": -0.2}
_LLAMBO_HUB_PUBLISHED = {"n_predictions": 10}


def _llambo(setup: Setup, published: Mapping[str, Any], **flags: Any) -> BaseSampler:
    from samplers import LLAMBOSampler

    if setup.asking.protocol == PUBLISHED:
        flags |= published
    flags |= setup.asking.arguments("max_prompt_tokens")
    return LLAMBOSampler(**_experiment(setup), **flags)


def _karpathy_agent(setup: Setup) -> BaseSampler:
    from samplers import KarpathyAgentSampler

    asked: dict[str, Any] = {"reply": reply_format(setup.chat)}
    if setup.asking.protocol == PUBLISHED:
        asked |= {"warm_start": 0, **_in_full(setup)}
    asked |= setup.asking.arguments(*_KARPATHY)
    return KarpathyAgentSampler(**asked, **_experiment(setup, *_OF_TRIALS))


METHODS: dict[str, Method] = {
    "random": _of_optuna("RandomSampler", "uniform random search", milliseconds=1),
    "tpe": _of_optuna(
        "TPESampler",
        "Optuna 5's default TPESampler (multivariate; the paper ran Optuna 4.8's univariate one)",
        milliseconds=5,
    ),
    "cma-es": Method(
        "Optuna's CmaEsSampler with its defaults; categories at random",
        "CmaEsSampler",
        _cma_es,
        milliseconds=2,
        seeded_by_trial=True,
    ),
    "gp": _of_optuna(
        "GPSampler",
        "Optuna's GPSampler with its defaults: a Gaussian process and expected improvement",
    ),
    "smac": Method(
        "SMAC3's random forest and expected improvement", "SMACSampler", _smac, milliseconds=40
    ),
    "llambo-paper": Method(
        "LLAMBO: a language model proposes candidates and predicts their scores",
        "LLAMBOSampler",
        lambda setup: _llambo(setup, _LLAMBO_PUBLISHED),
        milliseconds=10,
        uses_llm=True,
        heeds=("max_prompt_tokens",),
    ),
    "llambo-optunahub": Method(
        "LLAMBO in its form on OptunaHub: binary labels, random categories, failures hidden",
        "LLAMBOSampler as on OptunaHub",
        lambda setup: _llambo(
            setup,
            _LLAMBO_HUB_PUBLISHED,
            labels="binary",
            warm_start="random",
            categoricals="random",
            failures="hidden",
        ),
        milliseconds=10,
        uses_llm=True,
        heeds=("max_prompt_tokens",),
    ),
    "karpathy-hp": Method(
        "a language model reads the trials and proposes the next one, from the best",
        "KarpathyAgentSampler",
        _karpathy_agent,
        milliseconds=5,
        uses_llm=True,
        heeds=_KARPATHY,
    ),
    "centaur-no-llm": Method(
        "centaur without a language model: CMA-ES and steps, chosen by a model of the trials",
        "CentaurSampler, no language model",
        lambda setup: _centaur(replace(setup, chat=None, llm_ratio=0.0)),
        milliseconds=40,
        heeds=("critic",),
        seeded_by_trial=True,
    ),
    "centaur": Method(
        "CMA-ES and steps, chosen by a model of the trials; a language model decides a share",
        "CentaurSampler",
        _centaur,
        milliseconds=40,
        uses_llm=True,
        has_ratio=True,
        heeds=_CENTAUR,
        seeded_by_trial=True,
    ),
    CODE_AGENT: Method(
        "a language model edits the script, which runs in a sandbox and is kept or reverted",
        "code agent",
        None,
        uses_llm=True,
    ),
}
