# Every target works from a clean checkout with nothing but Python >= 3.11 and make: it creates
# .venv first, and again only when pyproject.toml or constraints.txt change.
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test check bench studies clean help
.DEFAULT_GOAL := help

help:
	@echo "make demo     record two example scripts and show the runs (about 2 minutes)"
	@echo "make test     the test suite"
	@echo "make check    format, lint, types, layering"
	@echo "make bench    benchmarks beside their peers; writes benchmarks/results/*.json"
	@echo "make studies  quick preset of every study; writes evidence and docs/results.md"

.venv/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Thalweg needs Python >= 3.11; this is $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "== creating .venv"
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.core: .venv/.python pyproject.toml constraints.txt
	@echo "== installing Thalweg and PyTorch (CPU) into .venv: a few minutes, once"
	$(BIN)/python -m pip install -c constraints.txt -e ".[data]"
	@touch $@

.venv/.dev: .venv/.core
	@echo "== installing the test and lint tools into .venv"
	$(BIN)/python -m pip install -c constraints.txt -e ".[data,dev]"
	@touch $@

demo: .venv/.core
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/demo.sh

test: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: .venv/.dev
	$(BIN)/python -m benchmarks

studies: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/thalweg study run --all --preset quick --ship
	$(BIN)/python docs/build_pages.py

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .import_linter_cache
