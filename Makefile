# `make demo` runs the quickstart grid, `make test` the tests, `make bench` the benchmarks; all set up .venv first.
# CONTRIBUTING.md says what `make test-slow` and `make test-portable` add.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: setup demo test test-slow test-portable check docs mutants bench gpu-check rehearse clean

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

# Two processes side by side, of which one has all tests that start Ray.
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadgroup

test: setup
	$(PYTEST) -m "not slow"

test-slow: setup
	$(PYTEST) -m slow

# Tests that compute, under each instruction set of this processor, with one thread and with two.
PORTABLE ?= tests/autodo

test-portable: setup
	.ci/portable $(PORTABLE)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site in build/site; a broken link, or a name that the reference does not find, is an error.
docs: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

mutants: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,mutants]'
	$(BIN)/python -m tests.mutants

bench: setup
	$(BIN)/python -m benchmarks

# Needs a GPU and eight minutes: `make gpu-check DATA=FOLDER` with the folder of Fashion-MNIST.
DATA ?= /usr/share/datasets/fashion-mnist

gpu-check: setup
	$(BIN)/python -m benchmarks.gpu --data-dir $(DATA)

# The paper's grids on small files in the real formats, in build/rehearsal; see docs/how-to/gpu.md.
rehearse: setup
	rm -rf build/rehearsal
	$(BIN)/python -m orchestration.testing.rehearsal build/rehearsal

clean:
	rm -rf .venv build dist *.egg-info
