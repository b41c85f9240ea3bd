"""LLAMBO: a language model proposes candidates, predicts their scores, and EI chooses one.

The method is that of "Large Language Models to Enhance Bayesian Optimization" by T. Liu,
N. Astorga, N. Seedat and M. van der Schaar (ICLR 2024), https://arxiv.org/abs/2402.03921. A trial
costs a fixed number of bounded requests here: candidates come several to a reply, and a reply
predicts all of them.

One trial, with the default arguments::

    template 0:  history in one order + "propose 5"  ->  ... + "predict 10"  ->  ... + "predict 10"
    template 1:  history in another   + "propose 5"  ->  ... + "predict 10"  ->  ... + "predict 10"
                                                     |
                                       screen, merge, number the candidates

The templates run side by side and the requests of one in turn, so that all but the first find the
history in the server's prefix cache.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
import math
import queue
import threading
from typing import Any
from typing import Literal
from typing import TYPE_CHECKING
from typing import TypeVar

import numpy as np
from optuna.distributions import CategoricalDistribution

from .._llm.chat import BudgetExhausted
from .._llm.chat import ChatError
from .._llm.chat import ContextTooLong
from .._llm.prompt import PromptTooLong
from .._llm.propose import failed_turn
from .._llm.propose import MAX_SHRINKS
from .._llm.propose import Proposal
from .._llm.propose import starved
from .._llm.propose import without_room
from .._llm.random_base import RandomBaseSampler
from .._llm.record import BASE
from .._llm.record import Exchange
from .._llm.record import LLM
from .._llm.record import LLM_DUPLICATE
from .._llm.record import LLM_ERROR
from .._llm.record import record
from .._llm.record import STARTUP
from .._llm.reply import known_configurations
from .._llm.warm_start import store
from .._llm.warm_start import stored
from .._trials.announced import announce
from .._trials.arguments import check_choices
from .._trials.arguments import check_least
from .._trials.history import finished_trials
from .._trials.history import limited
from .._trials.history import ranked
from .._trials.history import sign_of
from .._trials.history import tolerant
from .._trials.internals import cached_trials
from .._trials.internals import fixed_params
from .._trials.internals import number_without_repeats
from .candidates import parse_candidates
from .candidates import screen
from .candidates import Screened
from .prompts import Facts
from .prompts import Prompts
from .prompts import Request
from .prompts import Settings
from .surrogate import rank_by_improvement
from .surrogate import rank_by_probability


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from .._llm.chat import Chat
    from .._trials.history import Rule
    from .._trials.internals import ArtifactStore

_T = TypeVar("_T")


class LLAMBOSampler(RandomBaseSampler):
    """Bayesian optimization whose candidates and surrogate come from a language model.

    The first trial is random, or what was enqueued. The rest of the first ``n_startup_trials`` are
    configurations that the model recommends without seeing a result; one request serves them all.
    From then on the model is shown the study's trials and proposes ``n_candidates`` configurations
    that would reach a target slightly better than the best score, predicts the score of each
    ``n_predictions`` times, and the candidate with the largest expected improvement is run.

    What the model can't decide is drawn at random from the search space, by the seed and the
    trial's number, and the trial says so: its user attribute ``source`` is ``"llm-error"`` or
    ``"llm-duplicate"`` with the reason in ``llm_reason``. Nothing is kept in the sampler: a
    resumed study, threads and other processes go by the stored trials.

    Args:
        chat:
            The language model. By default the one that the environment variables ``OPENAI_*``
            name, else the embedded one.
        task:
            What is tuned, in words for the model.
        labels:
            Labels of the trials that the surrogate is shown: ``"continuous"`` for their scores,
            ``"binary"`` for whether they are among the best ``good_fraction``.
        surrogate:
            ``"discriminative"``: the model predicts scores, and the expected improvement chooses.
            ``"generative"``: it predicts the probability of being among the best
            ``good_fraction``, and the highest mean chooses. ``None``: whichever suits ``labels``.
        warm_start:
            Who proposes the start-up trials: ``"llm"`` or ``"random"``.
        categoricals:
            ``"random"`` hides categorical parameters from the model and draws them at random, as
            the LLAMBO package on OptunaHub does.
        failures:
            ``"hidden"`` does not show the model failed and pruned trials.
        n_startup_trials:
            Finished trials, of whatever outcome, before the surrogate is used. It is not used
            before one trial succeeded either.
        n_candidates:
            Configurations to choose from.
        n_templates:
            Orders in which the trials are shown. Candidates and predictions are shared out evenly.
        n_predictions:
            Predictions of each candidate; a multiple of ``n_templates``.
        alpha:
            How far beyond the best score the target lies, as a share of the distance between the
            best score and the worst quarter. Below 0 the target is worse than the best score.
        good_fraction:
            Share of the scores that is good, for ``labels="binary"`` and the generative surrogate.
        max_prompt_tokens:
            Longest prompt of one request, in the model's tokens, which shows as many trials as
            fit; never more than its context holds. By default 3,000 if the model's name tells of
            less than three billion parameters, else 12,000. A server that refuses them as too long
            is sent shorter ones, beyond the fixed number of requests.
        rule:
            The objective's own rule: a function from parameters to the values that are really run.
            Configurations equal under it are duplicates, and the model sees what it returns.
            A ``KeyError`` for a parameter that a configuration lacks, such as one of a trial that
            failed before it was suggested, is no error: that one counts as it is.
        artifact_store:
            An Optuna artifact store that prompts and replies are written to.
        on_error:
            When the model gives nothing usable, ``"base"`` runs a random configuration and raises
            only after five such turns in a row; ``"raise"`` raises at once.
        seed:
            Of all randomness, the seeds sent to the model included; ``None`` draws one.
    """

    def __init__(
        self,
        *,
        chat: Chat | None = None,
        task: str = "",
        labels: Literal["continuous", "binary"] = "continuous",
        surrogate: Literal["discriminative", "generative"] | None = None,
        warm_start: Literal["llm", "random"] = "llm",
        categoricals: Literal["llm", "random"] = "llm",
        failures: Literal["shown", "hidden"] = "shown",
        n_startup_trials: int = 5,
        n_candidates: int = 10,
        n_templates: int = 2,
        n_predictions: int = 4,
        alpha: float = 0.1,
        good_fraction: float = 0.25,
        max_prompt_tokens: int | None = None,
        rule: Rule | None = None,
        artifact_store: ArtifactStore | None = None,
        on_error: Literal["base", "raise"] = "base",
        seed: int | None = None,
    ) -> None:
        check_choices(
            labels=(labels, ("continuous", "binary")),
            surrogate=(surrogate, ("discriminative", "generative", None)),
            warm_start=(warm_start, ("llm", "random")),
            categoricals=(categoricals, ("llm", "random")),
            failures=(failures, ("shown", "hidden")),
        )
        check_least(0, n_startup_trials=n_startup_trials)
        check_least(1, max_prompt_tokens=max_prompt_tokens)
        if labels == "binary" and surrogate == "discriminative":
            raise ValueError(
                'An expected improvement needs scores: `labels="binary"` goes with '
                '`surrogate="generative"`, but got "discriminative".'
            )
        if n_templates < 1 or n_candidates < n_templates:
            raise ValueError(
                "1 <= n_templates <= n_candidates must hold, but got "
                f"({n_templates=}, {n_candidates=})."
            )
        if n_predictions < n_templates or n_predictions % n_templates:
            raise ValueError(
                "`n_predictions` must be a multiple of `n_templates`, but got "
                f"({n_predictions=}, {n_templates=})."
            )
        if not 0 < good_fraction < 1:
            raise ValueError(f"`good_fraction` must be between 0 and 1, but got {good_fraction}.")
        if not math.isfinite(alpha):
            raise ValueError(f"`alpha` must be a finite number, but got {alpha}.")
        super().__init__(
            chat=chat,
            rule=rule,
            artifact_store=artifact_store,
            on_error=on_error,
            seed=seed,
        )
        self._warm_start = warm_start
        self._categoricals = categoricals
        self._failures = failures
        self._n_startup_trials = n_startup_trials
        self._n_candidates = n_candidates
        self._n_predictions = n_predictions
        # Candidates may be asked for twice. The second time is taken from the predictions'
        # requests, of which one per template is left.
        self._max_requests = n_templates + max(n_predictions, 2 * n_templates)
        self._settings = Settings(
            task=task,
            rule=rule,
            seed=self._seed,
            n_candidates=n_candidates,
            n_templates=n_templates,
            alpha=alpha,
            good_fraction=good_fraction,
            binary=labels == "binary",
            generative=labels == "binary" or surrogate == "generative",
            max_tokens=max_prompt_tokens,
        )

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._raise_error_if_multi_objective(study)
        if fixed_params(trial).keys() >= search_space.keys():
            return {}  # also for an empty search space: there is nothing to decide
        turn = _Turn(self, study, trial, search_space)
        if not turn.facts.space:
            record(study, trial, source=BASE, reason="the model sees none of the parameters")
            return self._base_proposal(study, trial, search_space)
        if turn.is_startup and self._warm_start == "random":
            record(study, trial, source=STARTUP)
            return self._base_proposal(study, trial, search_space)
        return self._settle(study, trial, search_space, turn.decide())


class _Undecided(Exception):
    """The model answered, but gave nothing that can be run."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(reason)
        self.source = source


class _Turn:
    """One trial: what is known, what the model answered, and what came of it."""

    def __init__(
        self,
        sampler: LLAMBOSampler,
        study: Study,
        trial: FrozenTrial,
        space: dict[str, BaseDistribution],
    ) -> None:
        self._sampler = sampler
        self._study = study
        self._trial = trial
        self._space = space
        self._rule = tolerant(sampler._rule, study, "rule")
        self.exchanges: list[Exchange] = []
        self._n_too_long = 0  # of these
        self._notes: list[str] = []
        numeric_only = sampler._categoricals == "random"
        shown = {
            name: distribution
            for name, distribution in space.items()
            if not (numeric_only and isinstance(distribution, CategoricalDistribution))
        }
        fixed = fixed_params(trial)
        finished = finished_trials(study)
        best = ranked(study)
        complete = [t for t in best if t.params.keys() >= shown.keys()]
        sign = sign_of(study.direction)
        scored = {t.number for t in best}
        failures = [
            t for t in finished if t.number not in scored and t.params.keys() >= shown.keys()
        ]
        self.facts = Facts(
            number=number_without_repeats(trial, cached_trials(study)),
            space=shown,
            fixed={name: fixed[name] for name in shown if name in fixed},
            sign=sign,
            successes=complete,
            losses=[sign * limited(t.values[0]) for t in complete],
            failures=failures if sampler._failures == "shown" else [],
        )
        self.is_startup = not complete or len(finished) < sampler._n_startup_trials

    def decide(self) -> Proposal:
        """Ask the model; ``params`` is ``None`` if the base proposal has to do."""
        chat = self._sampler._chat
        self._prompts = Prompts(
            replace(self._sampler._settings, rule=self._rule), self.facts, chat
        )
        try:
            params = self._warm_start() if self.is_startup else self._bayesian_step()
        except _Undecided as undecided:
            if undecided.source == LLM_DUPLICATE:
                return Proposal(None, LLM_DUPLICATE, str(undecided), tuple(self.exchanges))
            error: ChatError = ChatError(str(undecided))
        except PromptTooLong as too_long:
            return without_room(self._trial, too_long, self._sampler._on_error)
        except ChatError as raised:
            error = raised
        else:
            return Proposal(params, LLM, "; ".join(self._notes), tuple(self.exchanges))
        return failed_turn(
            self._study, self._trial, error, self.exchanges, self._sampler._on_error
        )

    def _warm_start(self) -> dict[str, Any]:
        """Return a configuration recommended without results, from a stored list or a new one."""
        for params, _ in stored(self._study, self._trial, self.facts.space):
            claimed = self._claim([self._whole({**params, **self.facts.fixed})])
            if claimed is not None:
                self._notes.append("recommended when an earlier trial asked")
                return claimed
        n = max(self._sampler._n_startup_trials, 1)
        new = self._propose(lambda clashes: self._prompts.warm_start(n, clashes))
        recommended = [({name: params[name] for name in self.facts.space}, "") for params in new]
        store(self._study, self._trial, recommended)
        return self._claim_one_of(new)

    def _bayesian_step(self) -> dict[str, Any]:
        """Return the candidate with the best acquisition value that nobody else runs."""
        sampler = self._sampler
        candidates = self._propose(self._prompts.candidates)[: sampler._n_candidates]
        if len(candidates) > 1:
            left = sampler._max_requests - len(self.exchanges) + self._n_too_long
            candidates = self._rank(candidates, min(sampler._n_predictions, left))
        return self._claim_one_of(candidates)

    def _propose(self, requests: Callable[[str], list[Request]]) -> list[dict[str, Any]]:
        """Ask for new configurations; if there are none, tell the model why and ask once more.

        Raises:
            _Undecided: If there are none the second time either.
            ChatError: If no request was answered.
        """
        clashes = ""
        for _ in range(2):
            usable, problems = [], []
            for text in self._ask(partial(requests, clashes)):
                parsed, wrong = parse_candidates(text, self.facts.space, self.facts.fixed)
                usable += [self._whole(params) for params in parsed]
                problems += wrong
            screened = self._screen(usable)
            problems += screened.repeats
            if problems:
                self._notes.append(f"{len(problems)} candidates refused: {problems[0]}")
            if screened.new:
                return screened.new
            distinct = "; ".join(dict.fromkeys(problems))
            clashes = f"The last answer was of no use, a configuration in it {distinct}."
        raise _Undecided(
            LLM_DUPLICATE if screened.repeats else LLM_ERROR,
            f"no candidate can be run ({'; '.join(self._notes)})",
        )

    def _rank(self, candidates: list[dict[str, Any]], n: int) -> list[dict[str, Any]]:
        """Return the candidates that have a prediction, the most promising first.

        Raises:
            _Undecided: If none has.
            ChatError: If no request was answered.
        """
        replies = self._ask(partial(self._prompts.predictions, candidates, n))
        rows = [self._prompts.read_predictions(text, len(candidates)) for text in replies]
        predictions = np.array(rows).T  # (n_candidates, n_samples)
        wanted = n * len(candidates)
        missing = wanted - int(np.isfinite(predictions).sum())
        if missing:
            self._notes.append(f"{missing} of {wanted} predictions missing")
        if self._sampler._settings.generative:
            order = rank_by_probability(predictions)
        else:
            losses = np.array(self.facts.losses)
            order = rank_by_improvement(self.facts.sign * predictions, losses)
        if not order:
            raise _Undecided(LLM_ERROR, f"no usable prediction in {len(replies)} replies")
        return [candidates[i] for i in order]

    def _claim_one_of(self, params: Sequence[dict[str, Any]]) -> dict[str, Any]:
        claimed = self._claim(params)
        if claimed is None:
            raise _Undecided(LLM_DUPLICATE, "other workers run all of the candidates")
        return claimed

    def _claim(self, params: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        """Return the first configuration that nobody else runs; ``None`` if there is none.

        It is announced before the others' are read: of two workers that choose the same at the
        same time, at least one then sees the other.
        """
        for candidate in params:
            announce(self._study, self._trial, candidate)
            if self._screen([candidate]).new:
                return candidate
        return None

    def _screen(self, params: Sequence[dict[str, Any]]) -> Screened:
        return screen(params, self._known(), self._space, self._rule)

    def _known(self) -> dict[tuple[str, ...], int]:
        return known_configurations(self._study, self._space, self._rule, besides=self._trial)

    def _whole(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Add values for the parameters that the model does not see, the same for all."""
        hidden = {name: d for name, d in self._space.items() if name not in self.facts.space}
        drawn = self._sampler._draw(self._study, self._trial, hidden, 0)
        both = {**drawn, **fixed_params(self._trial), **params}
        return {name: both[name] for name in self._space}

    def _ask(self, build: Callable[[], list[Request]]) -> list[str]:
        """Return the replies to requests, which are built shorter if the server can't hold them.

        Raises:
            ChatError: If no request was answered, or one was not and that can't be made do with:
                the budget is reached, or ``on_error="raise"``.
        """
        requests = build()
        for _ in range(MAX_SHRINKS):
            try:
                return self._replies(requests)
            except ContextTooLong as error:
                self._n_too_long += len(requests)
                self._prompts.shrink(requests, error)
                try:
                    requests = build()
                except PromptTooLong:
                    raise error from None
        return self._replies(requests)

    def _replies(self, requests: Sequence[Request]) -> list[str]:
        """Send requests of one template in turn, the templates side by side; see ``_ask``."""
        chat = self._sampler._chat
        templates = sorted({request.template for request in requests})

        def ask_in_turn(template: int) -> list[tuple[Exchange, ChatError | None]]:
            return [_send(chat, r) for r in requests if r.template == template]

        sent = [pair for pairs in _side_by_side(ask_in_turn, templates) for pair in pairs]
        self.exchanges += [exchange for exchange, _ in sent]
        errors = [error for _, error in sent if error is not None]
        grave = [e for e in errors if isinstance(e, BudgetExhausted)]
        if errors and (grave or self._sampler._on_error == "raise" or len(errors) == len(sent)):
            raise (grave or errors)[0]
        if errors:
            self._notes.append(f"{len(errors)} of {len(sent)} requests failed: {errors[0]}")
        completions = [e.completion for e, _ in sent if e.completion is not None]
        if completions and all(completion.is_starved for completion in completions):
            raise _Undecided(LLM_ERROR, starved(completions[0]))
        return [completion.text for completion in completions]


def _side_by_side(work: Callable[[int], _T], items: Sequence[int]) -> list[_T]:
    """``work`` of every item, each in a thread of its own.

    A pool of ``concurrent.futures`` waits for its threads when it is left and when Python ends, so
    that Ctrl-C would take as long as the slowest reply. These are left behind.
    """
    done: queue.SimpleQueue[tuple[int, _T | None, BaseException | None]] = queue.SimpleQueue()

    def run(position: int) -> None:
        try:
            done.put((position, work(items[position]), None))
        except BaseException as error:  # raised again where the results are collected
            done.put((position, None, error))

    for position in range(len(items)):
        threading.Thread(target=run, args=(position,), daemon=True).start()
    results: dict[int, Any] = {}
    for _ in items:
        position, result, error = done.get()
        if error is not None:
            raise error
        results[position] = result
    return [results[position] for position in range(len(items))]


def _send(chat: Chat, request: Request) -> tuple[Exchange, ChatError | None]:
    try:
        completion = chat.complete(
            request.messages,
            schema=request.schema,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            seed=request.seed,
        )
    except ChatError as error:
        return Exchange(request.messages, None, error), error
    return Exchange(request.messages, completion), None
