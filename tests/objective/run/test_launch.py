"""The limit of memory on a machine with a GPU, by a torch that only says what is asked of it."""

from __future__ import annotations

from pathlib import Path
import subprocess
import sys
import textwrap

import pytest

from objective.run import launch


# There is no GPU where these tests run: what is really asked of PyTorch is all that they can show.
TORCH = """
import os
from types import SimpleNamespace
print("settings:", os.environ.get("PYTORCH_ALLOC_CONF"))
queued = []
def start():
    print("soft limit at the start of CUDA:", resource.getrlimit(resource.RLIMIT_DATA)[0])
import resource
_C = SimpleNamespace(_cuda_init=start)
def lazy_init():
    _C._cuda_init()
    for call in queued:
        call()
cuda = SimpleNamespace(
    _lazy_call=queued.append, current_device=lambda: 0, lazy_init=lazy_init,
    get_device_properties=lambda device: SimpleNamespace(total_memory=2**30),
    set_per_process_memory_fraction=lambda share, device: print("share", share, "of", device),
)
"""


def run(program: str, folder: Path, **torch: str) -> str:
    """Run a program with a limit of 256 MB on a machine that seems to have a GPU."""
    for name, text in torch.items():
        (folder / f"{name}.py").write_text(text)
    code = f"""
import os, resource, sys
sys.path[:0] = [{str(Path(launch.__file__).parents[2])!r}, {str(folder)!r}]
from objective.run import launch
launch.GPU_DEVICES = ("/dev/null",)
launch._limit_memory(256)
{textwrap.dedent(program)}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_script_without_a_gpu_is_limited_on_a_machine_with_one(tmp_path: Path) -> None:
    program = """
    import torch
    try:
        bytearray(2**29)
    except MemoryError:
        print("limited")
    """
    assert run(program, tmp_path, torch="class _C: pass\n") == "limited\n"


def test_the_limit_moves_to_the_device_when_cuda_starts(tmp_path: Path) -> None:
    program = """
    os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
    import torch
    import torch
    print("imported")
    torch.cuda.lazy_init()
    bytearray(2**29)
    """
    out = run(program, tmp_path, torch=TORCH).splitlines()
    assert out[:2] == ["settings: expandable_segments:True", "imported"]
    assert out[2] == "soft limit at the start of CUDA: -1"
    assert out[3:] == ["share 0.25 of 0"]


def test_a_script_that_asks_for_the_cpu_has_no_way_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTORESEARCH_DEVICE", "cpu")
    assert run("print(resource.getrlimit(resource.RLIMIT_DATA))", tmp_path) == (
        f"({2**28}, {2**28})\n"
    )
