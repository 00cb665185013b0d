# Needs Python 3.11 to 3.13 as `python3` (or PYTHON=…) and nothing else.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCHMARKS := compare growth small clients overload catalogue tiles item_search jobs memory reductions

.PHONY: help demo test coverage serve check bench clean venv

help:  ## Show this help
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /\1\t/' | expand -t 10

demo: $(STAMP)  ## Start the stack, compute a composite and a time series with the openEO client: demo-output/
	$(BIN)/odc-openeo demo --output demo-output

test: $(STAMP)  ## Run all tests (no Docker, no server, nothing from apt needed)
	$(BIN)/python -m pytest

coverage: $(STAMP)  ## Run all tests and report which lines they run, in processes that they start as well
	$(BIN)/python -m pytest --cov --cov-report=term

serve: $(STAMP)  ## Run the stack with sample scenes on http://127.0.0.1:8080 until Ctrl-C
	$(BIN)/odc-openeo up

check: $(STAMP)  ## Check style, spelling, types, import floors and dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .

bench: $(STAMP)  ## Measure: each benchmark prints a table
	@for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python -m benchmarks.$$name || exit 1; done

clean:  ## Remove everything that make made
	rm -rf $(VENV) build dist demo-output .coverage .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

venv: $(STAMP)  ## Make the virtual environment only

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Python 3.11, 3.12 or 3.13 is needed; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	touch $@
