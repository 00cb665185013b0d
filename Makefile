# Needs Python 3.11 to 3.13 as `python3` (or PYTHON=…) and nothing else.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NOTEBOOKS := .venv-tools
XCUBE := .venv-xcube
PREFECT := .venv-prefect
BENCHMARKS := compare growth small clients overload catalogue tiles item_search jobs memory reductions

.PHONY: help demo test compose-test coverage docs serve check bench notebooks tools clean venv

help:  ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 14

demo: $(STAMP)  ## Start the stack, compute a composite and a time series with the openEO client: demo-output/
	$(BIN)/odc-openeo demo --output demo-output

test: $(STAMP)  ## Run all tests (no Docker, no server, nothing from apt needed)
	$(BIN)/python -m pytest

compose-test: $(STAMP)  ## Build the images, start them on a Docker engine and test user code in containers
	$(BIN)/python -m pytest -n 0 -m compose -s --timeout 4000 tests/deployment

coverage: $(STAMP)  ## Run all tests and report which lines they run, in processes that they start as well
	$(BIN)/python -m pytest --cov --cov-report=term

docs: $(STAMP)  ## Build the documentation site in build/site; fails if a link leads nowhere
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

serve: $(STAMP)  ## Run the stack with sample scenes on http://127.0.0.1:8080 until Ctrl-C
	$(BIN)/odc-openeo up

check: $(STAMP)  ## Check style, spelling, types, import floors and dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .

# The benchmarks compute by hand with numbagg. Tests go without: it compiles in each process that imports it.
bench: $(STAMP)  ## Measure: each benchmark prints a table
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint requirements.lock 'numbagg>=0.9'
	@for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python -m benchmarks.$$name || exit 1; done

notebooks: $(NOTEBOOKS)/.installed  ## Run the notebooks in Jupyter: build/notebooks, docs/pictures
	PYTHONPATH=. $(NOTEBOOKS)/bin/python -m tests.notebooks

tools: $(NOTEBOOKS)/.installed $(XCUBE)/.installed $(PREFECT)/.installed  ## Install the tools that tests/field_tools tries, and try them
	$(BIN)/python -m pytest -n0 tests/field_tools

# These see the packages of .venv and add their own.
$(NOTEBOOKS)/bin/python $(PREFECT)/bin/python: | $(STAMP)
	$(BIN)/python -m venv $(@D)/..
	$@ -c 'import sysconfig; print(sysconfig.get_path("purelib", vars={"base": "$(abspath $(VENV))"}))' \
	  > "$$($@ -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/venv.pth"

$(NOTEBOOKS)/.installed: $(STAMP) docs/notebooks/requirements.txt | $(NOTEBOOKS)/bin/python
	$(NOTEBOOKS)/bin/python -m pip install --disable-pip-version-check --quiet -r docs/notebooks/requirements.txt
	touch $@

# Apart from .venv: Prefect needs an older cachetools than the one that is locked.
$(PREFECT)/.installed: $(STAMP) pyproject.toml | $(PREFECT)/bin/python
	$(PREFECT)/bin/python -m pip install --disable-pip-version-check --quiet 'prefect>=3,<4'
	touch $@

# Apart from .venv: it needs older versions of some packages.
$(XCUBE)/.installed: $(STAMP) docs/xcube-requirements.txt
	test -x $(XCUBE)/bin/python || $(BIN)/python -m venv $(XCUBE)
	$(XCUBE)/bin/python -m pip install --disable-pip-version-check --quiet -r docs/xcube-requirements.txt
	$(XCUBE)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps 'xcube-core>=1.14,<2'
	touch $@

clean:  ## Remove everything that make made
	rm -rf $(VENV) $(NOTEBOOKS) $(XCUBE) $(PREFECT) build dist demo-output .coverage .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

venv: $(STAMP)  ## Make the virtual environment only

$(STAMP): requirements.lock pyproject.toml openeo_xarray/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Python 3.11, 3.12 or 3.13 is needed; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e . -e ./openeo_xarray
	touch $@
