"""A night in two minutes: until a time of day, killed once, resumed once, with a winner in the end."""

from __future__ import annotations

from datetime import datetime
import json
import os
from pathlib import Path
import signal
import time

import pytest

from studies.budget import is_ok
from studies.repetitions import SUFFIX
from tests.studies.conftest import Cli
from tests.studies.conftest import testbed as testbed
from tests.studies.conftest import until


SECONDS = 100  # of the night


@pytest.mark.faults
def test_a_night_that_was_killed_once_ends_in_time_with_its_best_confirmed(
    cli: Cli, testbed: Path
) -> None:
    train = testbed / "train.py"
    text = train.read_text().replace("import math\n", "import math\nimport os\n")
    seed = 'int(os.environ.get("AUTORESEARCH_SEED", "42"))'
    train.write_text(text.replace("+ 3))\n", f"+ 3) + {seed} % 1000 / 1000)\n"))
    morning = time.time() + SECONDS
    night = [
        *("run", "--method", "tpe", "--testbed", testbed, "--study", "s", "--confirm", 1),
        *("--train-seconds", 1, "--until", f"{datetime.fromtimestamp(morning):%H:%M:%S}"),
    ]
    killed = cli.start(*night)
    until(lambda: sum(map(is_ok, cli.trials("s"))) >= 3)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    before = len(cli.trials("s"))

    out, err = (resumed := cli.start(*night, "--json")).communicate(timeout=3 * SECONDS)
    assert resumed.returncode == 0, err
    assert time.time() <= morning + 3, "the last training may take longer than those before"
    assert "going on with a study of" in err
    facts = json.loads(out)
    assert facts["state"] == "done" and len(cli.trials("s")) > before
    assert facts["winner"]["repeated"]["values"], "the best was trained again in time"
    assert len(cli.trials("s" + SUFFIX)) == len(facts["winner"]["repeated"]["values"])
    assert json.loads(cli("status", "--json").stdout)[0]["state"] == "done"
