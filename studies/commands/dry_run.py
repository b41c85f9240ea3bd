"""``--dry-run``: what a study would tune, and what it would ask of a language model."""

from __future__ import annotations

from typing import Any

from samplers._llm.chat import ChatUnavailable
from studies.commands.tables import space_rows
from studies.errors import Misuse
from studies.llm import checked_llm
from studies.llm import open_llm
from studies.played import check_first_prompt
from studies.played import counts_tokens
from studies.played import play
from studies.played import PlayedChat
from studies.spec import Spec


def dry_run(spec: Spec) -> dict[str, Any]:
    """Say what a study would tune and ask, without running it.

    Raises:
        Misuse: If its method is the code agent, whose prompts show what was measured; or if the
            model's context is too small for the first prompt.
        NoChatFound, ChatError: If there is no language model, or it refuses.
    """
    if spec.row.edits_code:
        raise Misuse(f"--dry-run must be of a method with a sampler, but got {spec.method}")
    testbed = spec.where.load_script()
    facts: dict[str, Any] = {"method": spec.method, "space": space_rows(testbed), "llm": None}
    if not spec.row.uses_llm:
        return facts
    real, problem = open_llm(spec.model), ""
    try:
        real = checked_llm(spec.model, patient=False)
    except ChatUnavailable as error:  # it may be there when the study begins
        problem = str(error)
    check_first_prompt(spec, real)
    chat = PlayedChat(real)
    played = play(spec, testbed, chat)
    per_trial = played.per_trial
    n_trials = played.planned or len(per_trial)
    prompts, completions = (sum(column) for column in zip(*chat.tokens, (0, 0)))
    # Turns may come at intervals, so the later half of what was played tells the rate.
    later = per_trial[len(per_trial) // 2 :]
    rate = sum(later) / len(later)
    calls = len(chat.requests) + round(rate * (n_trials - len(per_trial)))
    scale = calls / len(chat.requests) if chat.requests else 0.0
    llm = {
        "model": chat.model,
        "problem": problem or played.no_room or None,
        "tokens_counted": counts_tokens(real),
        "context_tokens": chat.context_tokens,
        "trials": n_trials,
        "trials_known": played.planned is not None,
        "first_prompt": chat.requests[0].messages if chat.requests else [],
        "first_prompt_tokens": chat.tokens[0][0] if chat.requests else 0,
        "calls": calls,
        "prompt_tokens": round(prompts * scale),
        "completion_tokens": round(completions * scale),
        "cost": None,
    }
    price_in, price_out = spec.model.price_in, spec.model.price_out
    if price_in is not None or price_out is not None:
        cost = llm["prompt_tokens"] * (price_in or 0) + llm["completion_tokens"] * (price_out or 0)
        llm["cost"] = round(cost / 1e6, 4)
    return {**facts, "llm": llm}
