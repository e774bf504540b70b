# `make demo` and `make test` need only Python ≥ 3.11, make and PyPI; they make .venv by themselves.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test soak lint types bench clean setup

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: setup  ## onboard three tasks with real weights, then see the gate refuse a fine-tuned copy
	@$(BIN)/clr demo

test: setup  ## run the test suite, on all cores
	@$(BIN)/python -m pytest -n auto --dist loadgroup --no-loadscope-reorder -m "not soak" $(ARGS)

soak: setup  ## kills, crowds and clusters: the tests that take minutes
	@$(BIN)/python -m pytest -m soak $(ARGS)

lint: setup  ## ruff and import-linter
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports

types: setup  ## mypy, strict
	@$(BIN)/mypy

bench: setup  ## measure: gate over 3, 30 and 300 tasks, and what tests/benchmarks holds
	@$(BIN)/python -m tests.benchmarks

clean:  ## remove environment, caches and this workspace's state (data/ and data.dvc stay)
	rm -rf .venv .clr .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find clr flows tests -name __pycache__ -type d -prune -exec rm -rf {} +

setup: .venv/.synced

# uv itself comes from PyPI where the machine has none
.venv/.synced: pyproject.toml uv.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@command -v uv >/dev/null 2>&1 || test -x $(BIN)/uv || $(BIN)/python -m pip install -q uv
	@echo "setting up .venv (the first time it fetches about 3 GB from PyPI)"
	@$$(command -v uv || echo $(BIN)/uv) sync --frozen --inexact
	@touch $@
