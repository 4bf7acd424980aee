# `make` alone lists what there is. Every target works as the first command on a fresh
# machine: it makes .venv, installs what it needs there, and the next call finds it done.

PYTHON  ?= python3
VENV    ?= .venv
WORKERS ?= 2
ARGS    ?=

BIN     := $(VENV)/bin
PIP     := $(BIN)/python -m pip
INSTALL := $(PIP) install -qq --disable-pip-version-check -c constraints.txt
SOURCES := pyproject.toml constraints.txt
EVIDENCE := fleet boosters fedcmapss nodes when coverage

# In a variable, because the comma would end an argument of $(or …).
TWO_SITES := site=detroit,houston

# Real data beside the checkout is used where nothing else is said.
ifeq ($(origin FEDPDM_DATA),undefined)
ifneq ($(wildcard ../shared/data/.),)
export FEDPDM_DATA := $(shell cd ../shared/data && pwd)
endif
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help simulate test test-all check docs bench evidence clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1|\2/' \
	  | awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'

simulate: $(VENV)/.run-stamp ## run a federation: make simulate ARGS="site=houston rounds=20"
	$(BIN)/python -m fedpdm.simulate $(or $(ARGS),$(TWO_SITES))

test: $(VENV)/.dev-stamp ## run all tests; some of them: make test ARGS="-k history"
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(ARGS)

test-all: $(VENV)/.dev-stamp ## run the long sweeps, too
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "" $(ARGS)

check: $(VENV)/.dev-stamp docs ## formatting, lint, strict types, examples and links in the docs
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest -q tests/test_docs.py

docs: $(VENV)/.dev-stamp ## the documentation as a site, in build/docs; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: $(VENV)/.dev-stamp ## measure speed, against peers too: make bench ARGS="--cells cnn:100"
	$(BIN)/python benchmarks/run.py $(ARGS)

evidence: $(VENV)/.dev-stamp ## measure predictions again, all or some: make evidence ARGS="fleet ai4i"
	$(BIN)/python benchmarks/evidence.py $(ARGS)
	$(if $(ARGS),,for each in $(EVIDENCE); do $(BIN)/python -m benchmarks.$$each || exit; done)

clean: ## remove .venv, caches and builds; runs/ stays
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A Python that is new enough is looked for under its usual names, $(PYTHON) first.
$(BIN)/python:
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  $$python -c 'import venv, ensurepip' 2>/dev/null || { \
	    echo "error: $$python has no venv module; on Debian or Ubuntu: apt-get install python3-venv" >&2; \
	    exit 2; }; \
	  echo "making $(VENV) with $$($$python --version)"; \
	  rm -rf $(VENV) && exec $$python -m venv $(VENV); \
	done; \
	echo "error: no Python 3.11 or newer found; install one, or name it: make PYTHON=/path/to/python3" >&2; \
	exit 2

# Two stamps, because simulating needs no test tools. The second covers the first.
$(VENV)/.run-stamp: $(SOURCES) | $(BIN)/python
	@echo "installing fedpdm into $(VENV) (once; torch alone takes a minute or more)"
	$(INSTALL) -e .
	@touch $@

$(VENV)/.dev-stamp: $(SOURCES) | $(BIN)/python
	@echo "installing fedpdm and its test tools into $(VENV) (once; torch alone takes a minute or more)"
	$(INSTALL) -e '.[dev]'
	@touch $(VENV)/.run-stamp $@
