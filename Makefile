# Every target works in a virtual environment of its own; nothing else is touched.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# tests start real engines and swarms: two at a time keeps small machines steady
JOBS ?= 2

.PHONY: help install demo test bench bench-full check fix images clean

help:  ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(VENV)/.docket: setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "docket needs Python 3.11 or newer; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.docket
	$(BIN)/python -m pip install --quiet --editable '.[dev,bench]'
	touch $@

install: $(VENV)/.docket  ## Install docket into .venv

demo: $(VENV)/.docket  ## Two releases to two hosts through BitTorrent, and what moved
	$(BIN)/python -m benchmarks.demo

test: $(VENV)/.dev  ## Install what the tests need, and run them
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

check: $(VENV)/.dev  ## Format, lint, types and tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

fix: $(VENV)/.dev  ## Mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev  ## Measure with small images, in under ten minutes: benchmarks/results/small
	$(BIN)/python -m benchmarks.suite

bench-full: $(VENV)/.dev  ## Measure with images of real size: benchmarks/results/full
	$(BIN)/python -m benchmarks.suite --full

images: $(VENV)/.dev  ## Build the family of real images for tests (the small one)
	$(BIN)/python -m benchmarks.images --small --out benchmarks/built/small

clean:  ## Remove the virtual environment and caches
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
