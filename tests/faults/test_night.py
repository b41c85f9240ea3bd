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
from tests.studies.conftest import output_of
from tests.studies.conftest import testbed as testbed
from tests.studies.conftest import until


SECONDS = 80  # of the night


@pytest.mark.faults
@pytest.mark.long
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

    out, err = output_of(resumed := cli.start(*night, "--json"))
    assert resumed.returncode == 0, err
    # Nobody can know how long the last training takes, but none begins that won't end in time.
    begun = [t.datetime_start for t in cli.trials("s") if t.datetime_start]
    assert max(begun).timestamp() < morning
    assert "going on with a study of" in err
    facts = json.loads(out)
    assert facts["state"] == "done" and len(cli.trials("s")) > before
    assert facts["winner"]["repeated"]["values"], "the best was trained again in time"
    assert len(cli.trials("s" + SUFFIX)) == len(facts["winner"]["repeated"]["values"])
    assert json.loads(cli("status", "--json").stdout)[0]["state"] == "done"
