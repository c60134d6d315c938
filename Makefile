# From nothing but Python >= 3.11, make and a package index. `make help` lists what there is.

SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
ARGS ?=

BIN := .venv/bin
READY := .venv/.ready
COMPILE := UV_PYTHON_DOWNLOADS=never .tools/bin/uv --quiet pip compile --generate-hashes --universal \
	--no-emit-index-url --no-header --python-version 3.11

.PHONY: help setup demo test test-servers chaos bench check format lint types layers docs-check lock clean up stop

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 16

$(READY): requirements.lock pyproject.toml tools/setup tools/uv.txt
	@PYTHON="$(PYTHON)" tools/setup
	@touch $@

setup: $(READY) ## Make .venv with the locked dependencies (done by the others when needed)

demo: $(READY) ## Record real agent runs, query them, train on them, break things: the tour
	@$(BIN)/workledger demo $(ARGS)

up: $(READY) ## Run everything that loops: dashboard, API, Synapse, training writer, metrics
	@$(BIN)/workledger up $(ARGS)

stop: $(READY) ## Stop what runs in the background for this folder
	@$(BIN)/workledger stop $(ARGS)

test-servers: # what `make test` installs, if it may
	@tools/install-test-servers

test: $(READY) test-servers ## Run the tests against real servers (ARGS="-k name" selects)
	@$(BIN)/python -m pytest -n auto -m "not chaos" $(ARGS)

chaos: $(READY) test-servers ## Run the long attacks: kill anything at any moment
	@$(BIN)/python -m pytest -n auto -m chaos $(ARGS)

bench: $(READY) ## Measure: each script in benchmarks/ prints its figures as ratios of one run
	@for script in startup record log archive storage landing; do \
		if [ -f benchmarks/$$script.py ]; then $(BIN)/python benchmarks/$$script.py $(ARGS) || exit 1; fi; done

check: format-check lint types layers docs-check ## Run every check but the tests

format: $(READY) ## Format the code
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix --quiet || true

.PHONY: format-check
format-check: $(READY)
	@$(BIN)/ruff format --check --quiet || { echo "make format puts this right"; exit 1; }

lint: $(READY) ## Lint
	@$(BIN)/ruff check --quiet

types: $(READY) ## Check the types
	@$(BIN)/basedpyright

layers: $(READY) ## Check that imports point down
	@$(BIN)/lint-imports --no-logo

docs-check: $(READY) ## Check that the documentation tells the truth
	@if [ -d tests/docs ]; then $(BIN)/python -m pytest -q tests/docs; fi

lock: ## Lock what pyproject.toml asks for: hashes, no hosts (ARGS=--upgrade for the newest)
	@tools/setup uv
	@$(COMPILE) $(ARGS) tools/uv.in -o tools/uv.txt
	@$(COMPILE) $(ARGS) --all-extras --group pyproject.toml:dev pyproject.toml tools/build.in -o requirements.lock

clean: ## Remove environments and caches, never recorded data
	@rm -rf .venv .tools dist build site .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -prune -exec rm -rf {} +
