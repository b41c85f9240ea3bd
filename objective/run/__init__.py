"""Running a script under limits, and reading what came of it."""
