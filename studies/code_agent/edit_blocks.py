"""A change to a text, as a language model writes it: search / replace blocks.

The format, one or more times in a reply, with prose around it ignored:

    <<<<<<< SEARCH
    lines of the text, exactly as they stand there
    =======
    lines that take their place (none: the lines are deleted)
    >>>>>>> REPLACE

Markers stand alone on their lines, with five or more of their signs. If several files may be edited
(`studies.code_agent.files`), the line before a block may name the one that it is for. Blocks are applied in order,
each to what the one before it left, and the lines of each must occur exactly once: a block that
occurs twice is as wrong as one that occurs nowhere, since the model meant one place and the reader
can't know which. Nothing is matched loosely (blanks at the ends of lines excepted): a proposal is
run for minutes, so a question back is cheaper than a guess.

Errors are written for the model, which gets them back word for word:

    EditError(ValueError)    what is wrong with the reply, and the nearest lines of the text
      NoBlocks               there is nothing in it that was meant as a block
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
import difflib
import re

from studies.code_agent.files import join
from studies.code_agent.files import split


# A reply of more characters than this is no answer to a question about one script.
MAX_REPLY_CHARS = 400_000
# How many lines of context the message of a block that matched nowhere shows.
_NEAREST_LINES = 12
_MOST_TOLD = 5  # blocks that are told to be wrong
# difflib is quadratic: beyond this many candidates, only windows that share a line are compared.
_MAX_CANDIDATES = 400

DESCRIPTION = re.compile(r"^\W*description\W*:\s*(.+)$", re.IGNORECASE | re.MULTILINE)
_SEARCH = re.compile(r"^<{5,}\s*SEARCH\s*$")
_DIVIDER = re.compile(r"^={5,}\s*$")
_REPLACE = re.compile(r"^>{5,}\s*REPLACE\s*$")
_FENCE = re.compile(r"^\s*```")
_FILE = re.compile(r"^[\s#*`]*(?:file:? *)?[\s*`]*([\w./-]+\.py)[\s#*`:]*$", re.IGNORECASE)
_REFUSAL = re.compile(
    r"\b(i can(?:'|’)?t|i cannot|i(?:'|’)?m sorry|i am sorry|unable to|i won(?:'|’)?t)\b",
    re.IGNORECASE,
)


class EditError(ValueError):
    """A reply that can't be turned into a changed text; the message tells its author why."""


class NoBlocks(EditError):
    """A reply without a block, so that the format itself wasn't understood, or wasn't wanted."""


@dataclass(frozen=True)
class EditBlock:
    """One replacement, of whole lines without the last newline; ``search`` must be found once.

    ``file`` is the name in the line before it, if that is one.
    """

    search: str
    replace: str
    file: str | None = None


def parse_edits(reply: str) -> list[EditBlock]:
    """Return the blocks of a reply, in order.

    Raises:
        EditError: the reply is too long, has no block, or has a block that isn't closed.
    """
    if len(reply) > MAX_REPLY_CHARS:
        raise EditError(
            f"A reply must have at most {MAX_REPLY_CHARS} characters, but got {len(reply)}."
        )
    blocks = list(_blocks(split_lines(reply.replace("\r\n", "\n"))))
    if blocks:
        return blocks
    if not reply.strip():
        raise NoBlocks("The reply is empty: it must contain a SEARCH / REPLACE block.")
    if _REFUSAL.search(reply[:400]):
        raise NoBlocks("The reply is a refusal: it must contain a SEARCH / REPLACE block.")
    raise NoBlocks(
        "The reply has no SEARCH / REPLACE block. A line <<<<<<< SEARCH, the lines to change, a "
        "line =======, the new lines, and a line >>>>>>> REPLACE make one."
    )


def _blocks(lines: Sequence[str]) -> Iterator[EditBlock]:
    """Walk the three states of a reply: prose, the lines sought, the lines that replace them."""
    search: list[str] = []
    replace: list[str] = []
    state = "prose"
    before = ""
    for number, line in enumerate(lines, start=1):
        if state == "prose":
            if _SEARCH.match(line):
                search, replace, state = [], [], "search"
            elif _REPLACE.match(line):
                raise EditError(
                    f"Line {number} of the reply closes a block that was never opened."
                )
            elif line.strip() and not _FENCE.match(line):
                before = line
        elif state == "search":
            if _DIVIDER.match(line):
                state = "replace"
            elif _SEARCH.match(line) or _REPLACE.match(line):
                raise EditError(f"Line {number} of the reply must come after a line =======.")
            else:
                search.append(line)
        elif _REPLACE.match(line):
            name = _FILE.match(before)
            yield EditBlock(_text(search), _text(replace), name[1] if name else None)
            state, before = "prose", ""
        elif _SEARCH.match(line) or _DIVIDER.match(line):
            raise EditError(
                f"Line {number} of the reply must come after a line >>>>>>> REPLACE that closes "
                "the block before it."
            )
        else:
            replace.append(line)
    if state != "prose":
        raise EditError(
            "The reply ends inside a block: it was cut off, or a line >>>>>>> REPLACE is missing."
        )


def split_ideas(reply: str) -> list[str]:
    """Split a reply at the descriptions outside blocks, of which each begins another idea.

    What stands before the first is left out; a reply without a description is one idea.
    """
    ideas: list[list[str]] = []
    is_prose = True
    for line in split_lines(reply.replace("\r\n", "\n")):
        if is_prose and DESCRIPTION.match(line):
            ideas.append([])
        if ideas:
            ideas[-1].append(line)
        if _SEARCH.match(line):
            is_prose = False
        elif _REPLACE.match(line):
            is_prose = True
    return ["\n".join(lines) + "\n" for lines in ideas] or [reply]


def _text(lines: list[str]) -> str:
    """Return the lines of one side of a block, without a code fence that was put inside it."""
    if len(lines) >= 2 and _FENCE.match(lines[0]) and _FENCE.match(lines[-1]):
        lines = lines[1:-1]
    return "\n".join(lines)


def split_lines(text: str) -> list[str]:
    """Split at newlines only: a form feed or U+0085 is a character of a script like any other."""
    lines = text.split("\n")
    return lines if lines[-1] else lines[:-1]


def apply_edits(text: str, blocks: Sequence[EditBlock]) -> str:
    """Return the text with every block applied, in order, each to what the one before it left.

    Raises:
        EditError: a block searches for nothing, for lines that don't occur, or for lines that
            occur more than once; it names a file that isn't among several; or all of them together
            leave the text as it was. What is wrong with several blocks is told at once.
    """
    edited = text
    wrong: list[str] = []
    for number, block in enumerate(blocks, start=1):
        try:
            edited = _apply_to_files(edited, block, f"Block {number} of {len(blocks)}")
        except EditError as error:
            wrong.append(str(error))
    if wrong:
        raise EditError("\n".join(wrong[:_MOST_TOLD]))
    if edited == text:
        raise EditError("The blocks leave the text as it was: the new lines must differ.")
    return edited


def _apply_to_files(text: str, block: EditBlock, said: str) -> str:
    files = split(text)
    names = list(files)
    if len(files) == 1 or block.file is None:
        edited = _apply(text, block, said)
    elif block.file not in files:
        raise EditError(f"{said} must be for one of {', '.join(names)}, but names {block.file}.")
    else:
        files[block.file] = _apply(files[block.file], block, f"{said}, for {block.file},")
        edited = join(files)
    if [*split(edited)] != names:
        raise EditError(f"{said} must leave the lines with the files' names as they are.")
    return edited


def _apply(text: str, block: EditBlock, name: str) -> str:
    if not block.search.strip():
        raise EditError(
            f"{name} searches for nothing: it must name at least one line of the text."
        )
    lines = split_lines(text)
    search = split_lines(block.search)
    found = _occurrences(lines, search)
    if len(found) > 1:
        places = ", ".join(str(start + 1) for start in found[:5])
        raise EditError(
            f"{name} must match once, but its lines occur {len(found)} times (at lines {places}). "
            "Put the lines around the right one into the block too."
        )
    if not found:
        raise EditError(f"{name} matches no lines of the text. {_nearest(lines, search)}")
    start = found[0]
    end = "\r" if lines[start].endswith("\r") else ""
    new = [line.rstrip("\r") + end for line in split_lines(block.replace)]
    lines[start : start + len(search)] = new
    return "\n".join(lines) + ("\n" if text.endswith("\n") else "")


def _occurrences(lines: Sequence[str], search: Sequence[str]) -> list[int]:
    """Find where whole lines match; trailing blanks don't count, leading ones do."""
    wanted = [line.rstrip() for line in search]
    bare = [line.rstrip() for line in lines]
    return [
        start
        for start in range(len(bare) - len(wanted) + 1)
        if bare[start] == wanted[0] and bare[start : start + len(wanted)] == wanted
    ]


def _nearest(lines: Sequence[str], search: Sequence[str]) -> str:
    """Return the lines of the text that are most like those sought, for the model to copy from."""
    length = min(max(len(search), 1), _NEAREST_LINES)
    wanted = "\n".join(search[:length])
    starts = range(max(len(lines) - length + 1, 1))
    part = wanted.strip()
    if length == 1 and (holding := [i for i, line in enumerate(lines) if part in line]):
        starts = holding[:_MAX_CANDIDATES]  # type: ignore[assignment]
    elif len(starts) > _MAX_CANDIDATES:
        shared = {line.strip() for line in search if line.strip()}
        close = difflib.get_close_matches(
            next(line for line in search if line.strip()), [*{*lines}], n=5, cutoff=0.3
        )
        shared |= {line.strip() for line in close}
        hits = [i for i, line in enumerate(lines) if line.strip() in shared]
        starts = [i for i in hits if i < len(starts)][:_MAX_CANDIDATES]  # type: ignore[assignment]
    matcher = difflib.SequenceMatcher(autojunk=False)
    matcher.set_seq2(wanted)
    best, ratio = 0, 0.0
    for start in starts:
        matcher.set_seq1("\n".join(lines[start : start + length]))
        # The two cheap upper bounds spare most of the quadratic work.
        if matcher.real_quick_ratio() > ratio and matcher.quick_ratio() > ratio:
            score = matcher.ratio()
            if score > ratio:
                best, ratio = start, score
    if ratio < 0.3 and part not in lines[best]:
        return "Nothing in the text is like it: copy the lines from the text as it is shown."
    shown = "\n".join(lines[best : best + length])
    return f"The nearest lines are (from line {best + 1}):\n{shown}"
