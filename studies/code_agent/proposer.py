"""One change of the script, asked of a language model or of a coding agent of the user's own.

A reply that can't be used (no block, lines that don't occur, no Python, a script that was run
before) goes back once, with the reason; and if there was no block in it, with the offer to change
one constant instead (`constant_choice`). That takes no trial, only tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from objective.run.outcome import one_line
from samplers._llm.chat import Completion
from samplers._llm.chat import ContextTooLong
from samplers._llm.prompt import PromptTooLong
from samplers._llm.propose import starved
from samplers._llm.record import Exchange
from studies.code_agent.constant_choice import apply_choice
from studies.code_agent.constant_choice import candidate_values
from studies.code_agent.constant_choice import Candidates
from studies.code_agent.constant_choice import choice_schema
from studies.code_agent.constant_choice import describe_choice
from studies.code_agent.edit_blocks import apply_edits
from studies.code_agent.edit_blocks import DESCRIPTION
from studies.code_agent.edit_blocks import EditError
from studies.code_agent.edit_blocks import NoBlocks
from studies.code_agent.edit_blocks import parse_edits
from studies.code_agent.edit_blocks import split_ideas
from studies.code_agent.edit_command import EditCommand
from studies.code_agent.history import CodeHistory
from studies.code_agent.history import Step
from studies.code_agent.ideas import IDEA
from studies.code_agent.ideas import IDEAS
from studies.code_agent.ideas import order
from studies.code_agent.ideas import words
from studies.code_agent.outlook import Outlook
from studies.code_agent.prompt import build_prompt
from studies.code_agent.prompt import Form
from studies.code_agent.sources import changed_lines
from studies.code_agent.sources import SourceLost
from studies.code_agent.validator import check_source
from studies.code_agent.validator import ValidationError
from studies.errors import Failed


if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from objective import Testbed
    from samplers import Chat
    from samplers._llm.chat import Message
    from studies.code_agent.drafts import Drafts
    from studies.code_agent.sources import Sources
    from studies.spec import Editing


# A reply with blocks takes some hundred tokens, but models that reason first take thousands; of a
# small context it must not take too much.
MAX_REPLY_TOKENS = 8192
REPLY_SHARE = 1 / 12
CHOICE_TOKENS = 300
TEMPERATURE = 0.7
# After so many choices of a constant in a row, each instead of blocks, a choice is asked for at
# once; but blocks are asked for again now and then, since a study may go on with another model.
_FUTILE = 3
_ASK_AGAIN = 10  # proposals
_REPLY_FORMAT = "form"  # user attribute of a proposal: one of the next two
_BLOCKS, _CHOICE = "blocks", "choice"
DESCRIPTION_CHARS = 120


@dataclass(frozen=True)
class Proposal:
    """The outcome of asking for a change.

    Attributes:
        attributes: User attributes of its trial, as far as the replies tell them.
        exchanges: The requests and replies.
        source: The changed script; ``""`` if no reply could be used.
        reason: Why the last reply that couldn't be used couldn't.
    """

    attributes: dict[str, Any]
    exchanges: Sequence[Exchange]
    source: str = ""
    reason: str = ""


class Proposer:
    """Asks for changes. It keeps nothing that isn't in the storage.

    Args:
        testbed: Its script, task and metric.
        sources: Where the scripts are.
        editing: How changes are to be given.
        author: The language model, or the coding agent that edits in place.
        drafts: Where replies are kept until they are on a trial.
        tail: The end of the log of a failed step's run.
    """

    def __init__(
        self,
        testbed: Testbed,
        sources: Sources,
        editing: Editing,
        author: Chat | EditCommand,
        drafts: Drafts,
        tail: Callable[[Step], str],
    ) -> None:
        self._testbed = testbed
        self._sources = sources
        self._editing = editing
        self._author = author
        self._drafts = drafts
        self._tail = tail

    def propose(
        self, history: CodeHistory, trials: Sequence[FrozenTrial], outlook: Outlook, seed: int
    ) -> Proposal:
        """Ask for a change of the best script.

        Args:
            history: The study so far, with a best.
            trials: The study's.
            outlook: What the model is told of what is to come.
            seed: Of the request, the next one of the second.

        Raises:
            Failed: If the prompt doesn't fit into the model's context.
            ChatError: If the model can't be asked.
        """
        assert history.best is not None
        parent = self._sources.load(history.best.user_attrs["source_sha256"])
        attributes: dict[str, Any] = {}
        exchanges: list[Exchange] = []
        reason = ""
        candidates: Candidates = {}
        if _writes_no_blocks(history):
            candidates = self._candidates(parent, seed, trials)
        choice = describe_choice(parent, candidates) if candidates else ""
        messages = self._prompt(history, outlook, choice)
        is_idle = not any(t.state == TrialState.RUNNING for t in trials)
        for attempt in range(2):
            try:
                completion, edited = self._ask(
                    messages, seed + attempt, candidates, parent, is_idle
                )
            except EditError as error:  # of a command, which can be asked again
                reason = str(error)
                exchanges.append(Exchange(messages, Completion(""), problem=reason))
                messages = self._retry(messages, "", reason)
                continue
            if completion.is_starved:
                reason = starved(completion)
                attributes.setdefault("description", describe(""))
                exchanges.append(Exchange(messages, completion, problem=reason))
                break
            text = completion.text
            is_choice = bool(candidates) and text.lstrip().startswith("{")
            attributes[_REPLY_FORMAT] = _CHOICE if is_choice else _BLOCKS
            try:
                if is_choice:
                    description, source = apply_choice(parent, text)
                    attributes["description"] = one_line(description, DESCRIPTION_CHARS)
                elif edited is not None:
                    attributes["description"] = describe(text)
                    source = edited
                else:
                    source, found = self._first_of(text, parent, history, trials)
                    attributes |= found
                attributes["fingerprint"] = check(source, self._sources, self._testbed, trials)
            except (EditError, ValidationError) as error:
                reason = str(error)
                attributes.setdefault("description", describe(text))
                exchanges.append(Exchange(messages, completion, problem=reason))
                if isinstance(error, NoBlocks):
                    # It didn't get the format, and is asked for less: to change one constant.
                    candidates = self._candidates(parent, seed, trials)
                how = "Reply again, in the same format."
                if isinstance(self._author, EditCommand):
                    how = "Try again."
                if candidates:
                    how = describe_choice(parent, candidates)
                messages = self._retry(messages, text, f"{reason}\n{how}")
                continue
            exchanges.append(Exchange(messages, completion))
            return Proposal(attributes, exchanges, source, reason)
        return Proposal(attributes, exchanges, reason=reason)

    def apply_idea(
        self, sha: str, parent: str, trials: Sequence[FrozenTrial]
    ) -> tuple[str, dict[str, Any]]:
        """Return the script that an idea which waits makes of another, and its trial's attributes.

        Raises:
            EditError, ValidationError: If it can't be used.
            SourceLost: If its text is gone.
        """
        text = self._sources.load(sha)
        source = apply_edits(parent, parse_edits(text))
        attributes = {"description": describe(text), IDEA: sha, _REPLY_FORMAT: _BLOCKS}
        attributes["fingerprint"] = check(source, self._sources, self._testbed, trials)
        return source, attributes

    def _first_of(
        self, text: str, parent: str, history: CodeHistory, trials: Sequence[FrozenTrial]
    ) -> tuple[str, dict[str, Any]]:
        """Return the script that the first idea of a reply makes, and attributes of its trial.

        The others are kept, and named by the attributes: those that can be used in their order,
        then those that can't now, but may when their turn comes, or are told to the model then.
        """
        parts = split_ideas(text)[: self._editing.proposals]
        if len(parts) < 2:
            found = {"description": describe(text)}
            return apply_edits(parent, parse_edits(text)), found
        usable: list[tuple[str, str]] = []
        others: list[str] = []
        problem: EditError | ValidationError | None = None
        for part in parts:
            try:
                source = apply_edits(parent, parse_edits(part))
                check(source, self._sources, self._testbed, trials)
                usable.append((part, source))
            except (EditError, ValidationError) as error:
                others.append(part)
                problem = problem or error
        if not usable:
            assert problem is not None
            raise problem
        changes = [words(changed_lines(parent, source)[0]) for _, source in usable]
        ranked = [usable[i] for i in order(changes, self._tried(history))]
        first, source = ranked[0]
        kept = [self._sources.save(part) for part in [p for p, _ in ranked[1:]] + others]
        return source, {"description": describe(first), IDEAS: kept}

    def _tried(self, history: CodeHistory) -> list[frozenset[str]]:
        """Return the words of each change that the model proposed before."""
        found = []
        for step in history.proposals:
            with suppress(SourceLost):
                if change := self._sources.change(step.trial):
                    found.append(words(change))
        return found

    def _prompt(self, history: CodeHistory, outlook: Outlook, choice: str) -> list[Message]:
        """Return the request for a change; ``choice`` offers one instead of writing blocks."""
        reply_tokens = self._reply_tokens()
        if choice:
            reply_tokens = max(reply_tokens, CHOICE_TOKENS + self._author.count_tokens(choice))
        form = Form.IN_PLACE if isinstance(self._author, EditCommand) else Form.BLOCKS
        try:
            messages = build_prompt(
                self._author,
                history,
                self._sources,
                self._tail,
                task=self._testbed.task,
                outlook=outlook,
                reply_tokens=reply_tokens,
                form=form,
                n_ideas=self._editing.proposals,
            )
        except PromptTooLong as error:
            raise Failed(str(error)) from None
        last = messages[-1]
        content = f"{last['content']}\n\n{choice}".rstrip()
        return [*messages[:-1], {"role": last["role"], "content": content}]

    def _ask(
        self,
        messages: list[Message],
        seed: int,
        candidates: Candidates,
        parent: str,
        is_idle: bool,
    ) -> tuple[Completion, str | None]:
        """Return the reply, and the script itself if it was edited in place."""
        schema = choice_schema(candidates) if candidates else None
        request = messages, schema, seed
        kept = self._drafts.load(request, is_idle)
        if kept is not None:
            return kept
        edited = None
        if isinstance(self._author, EditCommand):
            completion, edited = self._author.edit(messages, parent)
        else:
            try:
                completion = self._author.complete(
                    messages,
                    schema=schema,
                    max_tokens=CHOICE_TOKENS if candidates else self._reply_tokens(),
                    temperature=TEMPERATURE,
                    seed=seed % 2**31,
                )
            except ContextTooLong as error:
                raise Failed(
                    f"the prompt is too long for the model ({error}); choose one with a longer"
                    " context"
                ) from None
        self._drafts.keep(request, completion, edited)
        return completion, edited

    def _reply_tokens(self) -> int:
        tokens = MAX_REPLY_TOKENS
        if self._author.context_tokens is not None:
            tokens = min(tokens, int(self._author.context_tokens * REPLY_SHARE))
        return tokens

    def _retry(self, messages: list[Message], reply: str, reason: str) -> list[Message]:
        """Return the second request: the reply and what is wrong with it, or only the latter."""
        complaint: Message = {"role": "user", "content": f"That reply can't be used. {reason}"}
        longer = [*messages, {"role": "assistant", "content": reply[:2000]}, complaint]
        limit = self._author.context_tokens
        if limit is not None:
            needed = sum(self._author.count_tokens(m["content"]) + 16 for m in longer)
            if needed + self._reply_tokens() > limit:
                last = messages[-1]
                short = f"{last['content']}\n\nAn earlier reply couldn't be used. {reason[:1500]}"
                return [*messages[:-1], {"role": last["role"], "content": short}]
        return longer

    def _candidates(self, parent: str, seed: int, trials: Sequence[FrozenTrial]) -> Candidates:
        def is_usable(source: str) -> bool:
            try:
                check(source, self._sources, self._testbed, trials)
            except ValidationError:
                return False
            return True

        return candidate_values(parent, seed, is_usable)


def check(source: str, sources: Sources, testbed: Testbed, trials: Sequence[FrozenTrial]) -> str:
    """Check a script against the unedited one and all that were proposed; return its fingerprint.

    Raises:
        ValidationError: See `studies.code_agent.validator.check_source`.
    """
    earlier = {str(t.user_attrs["fingerprint"]) for t in trials if "fingerprint" in t.user_attrs}
    return check_source(
        source,
        baseline=sources.load(sources.baseline),
        earlier=earlier,
        evaluator=testbed.metric.evaluator,
    )


def _writes_no_blocks(history: CodeHistory) -> bool:
    formats = [step.trial.user_attrs.get(_REPLY_FORMAT) for step in history.proposals]
    return formats[-_FUTILE:] == [_CHOICE] * _FUTILE and len(formats) % _ASK_AGAIN != 0


def describe(reply: str) -> str:
    """Return the line in which a reply says what it changes, at most 120 characters."""
    match = DESCRIPTION.search(reply)
    if match:
        return one_line(match[1], DESCRIPTION_CHARS)
    for line in reply.splitlines():
        if line.startswith(("<<<<<", "```")):
            break
        if line.strip():
            return one_line(line, DESCRIPTION_CHARS)
    return "(not described)"
