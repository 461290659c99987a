# Every target works in a virtual environment of its own; nothing else is touched.
# PYTHON=… chooses the Python it is made with; without it, .ci/python looks for one
PYTHON ?=
VENV ?= .venv
BIN := $(VENV)/bin
# tests start real engines and swarms: two at a time keeps small machines steady
JOBS ?= 2
# how long each target is fuzzed
FUZZ_SECONDS ?= 60
FUZZ_TARGETS := archive members stream manifest name announce range torrent call

.PHONY: help install demo test torture constraints audit clients bench bench-full check fix fuzz images clean

help:  ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14
	@echo; echo "Variables: PYTHON (Python 3.11 to 3.13), VENV (.venv), JOBS (2 tests at a time), FUZZ_SECONDS (60)"

$(VENV)/.docket: setup.cfg setup.py pyproject.toml
	@python="$(or $(PYTHON),$$(.ci/python))" && "$$python" -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.docket
	$(BIN)/python -m pip install --quiet --editable '.[dev,bench]'
	touch $@

$(VENV)/.fuzz: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	touch $@

install: $(VENV)/.docket  ## Install docket into .venv

demo: $(VENV)/.docket  ## Three releases to two hosts, by pulls and by a deploy, and what moved
	$(BIN)/python -m benchmarks.demo

test: $(VENV)/.dev  ## Install what the tests need, and run them
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

torture: $(VENV)/.dev  ## Kill a registry under load 2,000 times, cut its power 200 times (as root)
	$(BIN)/python -m tests.torture.kills --kills 2000
	$(BIN)/python -m tests.torture.power_cuts --cuts 200

check: $(VENV)/.dev  ## Format, lint, types and tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

fix: $(VENV)/.dev  ## Format, and repair what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

fuzz: $(VENV)/.fuzz  ## Search for inputs that break docket, FUZZ_SECONDS (60) for each target
	@for target in $(FUZZ_TARGETS); do \
	    $(BIN)/python -m tests.fuzz $$target --seconds $(FUZZ_SECONDS) || exit 1; \
	done

constraints: $(VENV)/.dev  ## Write the installed versions to constraints.txt, which CI installs from
	@(head -n 1 constraints.txt; $(BIN)/python -m pip list --format=freeze \
	    | grep -Ev '^(docket|pip|setuptools|pip[-_]audit)==') > $(VENV)/constraints.txt
	mv $(VENV)/constraints.txt constraints.txt

audit: $(VENV)/.dev  ## Compare constraints.txt with PyPI's advisories; needs the network
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/python -m pip_audit --requirement constraints.txt --no-deps --disable-pip --strict

clients: $(VENV)/.dev  ## Build other registry clients with Go, once, and run them against a registry
	$(BIN)/python -m tests.clients.tools
	DOCKET_ALL_CLIENTS=1 $(BIN)/python -m pytest -n $(JOBS) -rs tests/clients tests/api/test_clients.py

bench: $(VENV)/.dev  ## Measure with small images, in under ten minutes: benchmarks/results/small
	$(BIN)/python -m benchmarks.suite

bench-full: $(VENV)/.dev  ## Measure with images of real size: benchmarks/results/full
	$(BIN)/python -m benchmarks.suite --full

images: $(VENV)/.dev  ## Build the family of real images for tests (the small one)
	$(BIN)/python -m tests.support.image_family.build --small --out benchmarks/built/small

clean:  ## Remove the virtual environment and caches
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
