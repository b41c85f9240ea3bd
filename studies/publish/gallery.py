"""The notes in the stored study of docs/gallery.md, as they are written today: ``make gallery``."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
import sqlite3
from tempfile import TemporaryDirectory

import optuna

from studies.notes import Notes
from studies.publish.build import ROOT


STORED = ROOT / "docs/gallery/trainings.db"
_NOTES = "FROM study_system_attributes WHERE key LIKE 'dashboard:%note%'"


def annotate(database: Path) -> bool:
    """Write the notes on the trials of the one study of a SQLite file in place of those that it has.

    Returns whether they differ; where they don't, the file stays as it is.
    """
    with TemporaryDirectory() as folder, closing(sqlite3.connect(database)) as before:
        path = Path(folder, database.name)
        path.write_bytes(database.read_bytes())
        with closing(sqlite3.connect(path)) as after:
            after.execute(f"DELETE {_NOTES}")
            after.commit()
            # Optuna's own storage: the project's would leave the file in WAL mode, in which nobody
            # can read it from a folder that is read-only.
            storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
            study = optuna.load_study(study_name=None, storage=storage)
            Notes(study).write(study.get_trials(deepcopy=False))
            storage.engine.dispose()
            query = f"SELECT key, value_json {_NOTES} ORDER BY key"
            if before.execute(query).fetchall() == after.execute(query).fetchall():
                return False
            after.execute("VACUUM")
        database.write_bytes(path.read_bytes())
    return True


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print("notes written anew" if annotate(STORED) else "notes are as they were")
