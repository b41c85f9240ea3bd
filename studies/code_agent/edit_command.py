"""A coding agent of the user's own in the place of one request to a language model.

It is any command: started in a folder that holds the best script so far, given the prompt, and free
to take as long as it is allowed. What it leaves in ``train.py`` is the proposal; whatever else it
wrote is thrown away. The command itself runs with the user's rights, since it needs their network
and keys; what it wrote runs in the sandbox, by the same rules as any proposal.
"""

from __future__ import annotations

from contextlib import suppress
import math
import os
from pathlib import Path
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING

from objective.run.outcome import one_line
from samplers._llm.chat import ChatUnavailable
from samplers._llm.chat import Completion
from samplers._llm.client import FIRST_PAUSE
from samplers._llm.client import LONGEST_PAUSE
from samplers._llm.client import PATIENCE
from samplers._llm.tokens import estimate_tokens
from studies.code_agent.edit_blocks import EditError
from studies.code_agent.files import join
from studies.code_agent.files import split
from studies.errors import Misuse


if TYPE_CHECKING:
    from collections.abc import Sequence

    from objective.testbed.files import Files
    from samplers._llm.chat import Message


PROMPT = "PROMPT.md"
_MOST_BYTES = 1_000_000  # of what it prints and of the script that it leaves


def _left(folder: Path, name: str) -> str:
    """Return the text of a file that the command left."""
    path = folder / name
    if not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
        raise EditError(f"{name} must be left in the folder, but isn't there any more.")
    if path.stat().st_size > _MOST_BYTES:
        raise EditError(f"{name} must have at most {_MOST_BYTES} bytes.")
    return path.read_bytes().decode(errors="replace")


class EditCommand:
    """A command that edits ``train.py`` in the folder in which it is started.

    Args:
        command: The command line, split as a shell would; ``{prompt}`` becomes the path of the
            prompt, which it otherwise reads from its standard input.
        files: Of the testbed. It may look at copies of the Python files beside the script, as a
            trial of this process has them. The script is there as ``train.py`` only: what is
            changed in a second copy would be lost.
        seconds: It is stopped after this time.

    Raises:
        Misuse: If there is no such command.
    """

    context_tokens: int | None = None  # nobody knows what it reads of the prompt

    def __init__(self, command: str, files: Files, seconds: float) -> None:
        try:
            self._command = shlex.split(command)
        except ValueError as error:
            raise Misuse(f"--agent-command must be a command line, but {error}") from None
        if not self._command or shutil.which(self._command[0]) is None:
            raise Misuse(
                f"--agent-command must begin with a command on the PATH, but got {command!r}"
            )
        self._files = files
        self._seconds = seconds
        self._has_worked = False

    def count_tokens(self, text: str) -> int:
        """Estimate the tokens of a text."""
        return estimate_tokens(text)

    def edit(self, messages: Sequence[Message], parent: str) -> tuple[Completion, str]:
        """Let it edit a script.

        Once it has worked, a failure may pass, as an outage does: it is started again for a while.

        Args:
            messages: The prompt.
            parent: The script as it is.

        Returns:
            What it printed, and the script as it left it.

        Raises:
            EditError: It took too long, or left no script.
            ChatUnavailable: It ended with another exit status than 0, as without a key.
        """
        pause, until = FIRST_PAUSE, math.inf
        while True:
            try:
                return self._edit(messages, parent)
            except ChatUnavailable:
                now = time.monotonic()
                until = min(until, now + PATIENCE)
                if not self._has_worked or now + pause >= until:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _edit(self, messages: Sequence[Message], parent: str) -> tuple[Completion, str]:
        prompt = "\n\n".join(message["content"] for message in messages) + "\n"
        with tempfile.TemporaryDirectory(
            prefix="autoresearch-edit-",
            ignore_cleanup_errors=True,  # what is killed may still write
        ) as name:
            folder = Path(name)
            for file, (content, _) in self._files.read.items():
                if file.parent == self._files.folder and file.suffix == ".py":
                    (folder / file.name).write_bytes(content)
            files = split(parent)
            for path, text in files.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(text.encode())
            (folder / PROMPT).write_text(prompt, encoding="utf-8")
            began = time.monotonic()
            said = self._run(folder)
            seconds = time.monotonic() - began
            source = join({path: _left(folder, path) for path in files})
        return Completion(said, model=self._command[0], seconds=seconds), source

    def _run(self, folder: Path) -> str:
        """Run the command in a process group of its own, and return what it printed last."""
        path = str(folder / PROMPT)
        argv = [part.replace("{prompt}", path) for part in self._command]
        with open(path, "rb") as prompt, tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                argv,
                cwd=folder,
                stdin=subprocess.DEVNULL if argv != self._command else prompt,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status = process.wait(self._seconds)
            except subprocess.TimeoutExpired:
                raise EditError(
                    f"The command must end within {self._seconds:g} s, but didn't."
                ) from None
            finally:  # whatever it started must not outlive it, and it not a Ctrl-C
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            output.seek(max(0, output.tell() - _MOST_BYTES))
            said = output.read().decode(errors="replace")
        if status:
            last = one_line((said.strip().splitlines() or ["no output"])[-1])
            raise ChatUnavailable(
                f"the command of --agent-command ended with status {status}: {last}"
            )
        self._has_worked = True
        return said
