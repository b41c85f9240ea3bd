from __future__ import annotations

import json

from studies.changes import changes
from studies.changes import recorded


def test_changes_are_named() -> None:
    before = {"a.py": "1", "b.py": "1", "c.py": "1"}
    now = {"a.py": "1", "b.py": "2", "d.py": "1"}
    assert changes(before, now) == "b.py was edited, c.py is gone, d.py is new"
    assert changes(before, before) == ""


def test_many_changes_are_counted() -> None:
    files = {f"{n}.py": "1" for n in range(9)}
    assert changes({}, files).endswith("4.py is new, 4 more")


def test_many_files_are_recorded_by_folder() -> None:
    files = {f"data/{n}/x.csv": "1" for n in range(5000)} | {"a.py": "1", "../up/b.py": "1"}
    before = recorded(files)
    assert before.keys() == {"data/", "a.py", "../up/"}
    assert len(json.dumps(before)) < 200
    files["data/7/x.csv"] = "2"
    assert changes(before, recorded(files)) == "data/ was edited"
    assert recorded({"a.py": "1"}) == {"a.py": "1"}
