# Environment, checks, demo. `make` alone lists the targets.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
# The newest torch that is tested. On Linux, pip's usual index carries the CUDA build; a machine without a GPU saves
# some GB with pip's own setting for another index (PIP_INDEX_URL), see docs/operations.md.
TORCH ?= torch==2.13.0
# Options of `detex demo`, for example DEMO='--all --seed 3'.
DEMO ?=
# Test processes that run at once; each takes up to 2.5 GB of memory. Many tests wait for services that they start.
TEST_PROCESSES ?= 3

BIN := .venv/bin
PIP_INSTALL_SHOWN := $(BIN)/pip install --disable-pip-version-check
PIP_INSTALL := $(PIP_INSTALL_SHOWN) --quiet

.PHONY: help demo install install-dev tools test check lint types tests test-fast format protos reference clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "detex needs Python 3.11 or newer; set PYTHON")'
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml | .venv/bin/pip
	@echo "Installing torch, then detex with client, trainer and generator (some minutes the first time) ..."
	$(PIP_INSTALL_SHOWN) $(TORCH)
	$(PIP_INSTALL_SHOWN) -e '.[client,trainer,generator]'
	@touch $@

.venv/installed-dev: .venv/installed
	@echo "Installing what tests and checks need ..."
	$(PIP_INSTALL) -e '.[dev]'
	@touch $@

demo: .venv/installed  ## Photos to pictures through both services: out/demo/contact_sheet.png
	@$(BIN)/detex demo $(DEMO)

install: .venv/installed  ## Create .venv with the client and both services

install-dev: .venv/installed-dev  ## The same with all that tests and checks need

tools: .venv/installed-dev  ## Fetch helm, promtool and Chromium into .tools/bin
	@scripts/install_test_tools.sh $(BIN)/pip

test: tools  ## All of CI: checks, then tests
	@$(MAKE) check
	@$(MAKE) tests

check: lint types  ## Linters and types, no tests

lint: tools  ## Python, imports, contracts, Dockerfiles, chart
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet
	$(BIN)/lint-imports --no-cache > .tools/lint-imports.log || { cat .tools/lint-imports.log; exit 1; }
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/hadolint deploy/images/*/Dockerfile
	.tools/bin/helm lint --strict --quiet deploy/helm/detex

types: .venv/installed-dev  ## mypy, strict
	$(BIN)/mypy

# One thread per process: the processes share the cores, and sums do not depend on how many there are.
tests: tools  ## pytest alone; make tests ARGUMENTS='tests/core -x'
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(TEST_PROCESSES) --dist loadfile $(ARGUMENTS)

test-fast: tools  ## The tests that start no services and train little: some minutes
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(TEST_PROCESSES) --dist loadfile -m 'not slow and not chaos' $(ARGUMENTS)

format: .venv/installed-dev  ## Rewrite Python and protos in the project's format
	$(BIN)/ruff check --fix --quiet
	$(BIN)/ruff format --quiet
	$(BIN)/buf format --write

protos: .venv/installed-dev  ## Generate shared/detex_protos from proto/
	$(BIN)/python scripts/generate_protos.py

reference: .venv/installed-dev  ## Write the tables of settings and chart values into the documents
	$(BIN)/python -m scripts.generate_reference

clean:  ## Remove the environment, the tools and the demo's output
	rm -rf .venv .tools out
