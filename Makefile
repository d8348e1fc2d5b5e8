# `make demo` runs the quickstart grid, `make test` the tests, `make bench` the benchmarks; all set up .venv first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: setup demo test test-slow check mutants bench clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -c "import torch, torchvision"
	touch $@

demo: setup
	$(BIN)/autodo launch quickstart

test: setup
	$(BIN)/python -m pytest -m "not slow" tests/orchestration
	$(BIN)/python -m pytest -m "not slow" --ignore tests/orchestration --numprocesses 2

test-slow: setup
	$(BIN)/python -m pytest -m slow

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

mutants: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,mutants]'
	$(BIN)/python -m tests.mutants

bench: setup
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv build dist *.egg-info
