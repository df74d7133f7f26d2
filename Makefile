.DEFAULT_GOAL := help
.PHONY: help setup run test lint format typecheck benchmark profile clean

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

help: ## Show the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## Make .venv and install metagen with its development tools

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "metagen needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --allow-existing --python $(PYTHON) .venv \
		&& uv pip install --quiet --python $(BIN)/python -e . --group dev; \
	else \
		$(PYTHON) -m venv .venv \
		&& $(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1' \
		&& $(BIN)/python -m pip install --quiet -e . --group dev; \
	fi
	@touch $@

run: setup ## Train and evaluate the quickstart experiment
	@$(BIN)/metagen train experiment=quickstart

test: setup ## Run the tests
	@$(BIN)/pytest

lint: setup ## Check style
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: setup ## Format the code
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

typecheck: setup ## Check types
	@$(BIN)/mypy

benchmark: setup ## Time the sampler and the training step beside peers (benchmarks/README.md)
	@$(BIN)/python benchmarks/run.py

profile: setup ## Show where the time of a training loop goes
	@$(BIN)/python benchmarks/profile_loop.py

clean: ## Remove the environment and caches, never outputs or data
	rm -rf .venv dist build .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
