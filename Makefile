.DEFAULT_GOAL := help
.PHONY: help setup run demo browser test slow fuzz recipes lint format typecheck benchmark gpu gpu-wheels profile docs figures clean

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
INSTALL = $(if $(shell command -v uv),uv pip install --quiet --python $(BIN)/python,$(BIN)/python -m pip install --quiet)
PYTEST := $(BIN)/pytest -n auto --maxprocesses 8 --dist worksteal
# One thread each, so that the figures are the same on any number of cores.
QUICK := OMP_NUM_THREADS=1 $(BIN)/metagen train --force

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## Make .venv and install metagen with its development tools

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "metagen needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@if command -v uv >/dev/null 2>&1; then uv venv --quiet --allow-existing --python $(PYTHON) .venv; \
	else $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'; fi
	@$(INSTALL) -e . --group dev
	@touch $@

run: setup ## Train and evaluate the quickstart with deformations, beside its controls
	@mkdir -p outputs; $(QUICK) experiment=quickstart learner=scratch curves=last hydra.run.dir=outputs/quickstart/scratch > outputs/quickstart.log 2>&1 & \
	$(QUICK) experiment=quickstart_deformation hydra.run.dir=outputs/quickstart/deformation \
		&& $(QUICK) experiment=quickstart model=warp learner=in_context model.strength=0.4 hydra.run.dir=outputs/quickstart/warp > outputs/quickstart-warp.log 2>&1 \
		&& wait $$! || { tail -q -n 3 outputs/quickstart*.log; exit 1; }
	@$(BIN)/metagen compare outputs/quickstart --by model,learner --metric recognised,diversity,coverage_relative

demo: setup ## Draw a symbol once and see sixteen new ones: nothing is trained first
	@$(BIN)/python -c 'import gradio' 2>/dev/null || $(INSTALL) -e '.[demo]'
	@$(BIN)/metagen demo pretrained/symbols

browser: setup ## Install what the tests of the page need beside Chromium
	@$(INSTALL) -e '.[demo]' playwright

test: setup ## Run the tests, but for the slow ones
	@$(PYTEST) -m 'not slow'

slow: setup ## Run the slow tests: all pairs, all experiments, kills, long trainings, the page in a browser
	@$(PYTEST) -m slow

fuzz: setup ## Try bad values of every key of every group
	@$(BIN)/python tests/fuzz.py

recipes: setup ## Train every learner with every model it serves on every embedded data set (hours)
	@OMP_NUM_THREADS=1 $(BIN)/python tests/recipes.py

lint: setup ## Check style
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: setup ## Format the code
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

typecheck: setup ## Check types
	@$(BIN)/mypy

benchmark: setup ## Time the sampler and the training step beside peers (benchmarks/README.md)
	@$(BIN)/python benchmarks/run.py

gpu: setup ## Measure everything on a GPU, in 25 minutes (docs/howto/gpu.md)
	@$(BIN)/python benchmarks/gpu.py

gpu-wheels: setup ## Pack wheels, project and data for a GPU's machine without network, in dist/gpu.tar.gz
	@$(BIN)/python benchmarks/carry.py --python $(if $(wildcard $(BIN)/pip),$(BIN)/python,$(PYTHON)) $(if $(METAGEN_DATA),--data $(METAGEN_DATA))

profile: setup ## Show where the time of a training loop goes
	@$(BIN)/python benchmarks/profile_loop.py

docs: setup ## Build the guide into docs/_build/index.html, strictly
	@$(BIN)/python -c 'import sphinx, furo, myst_parser, latex2mathml' 2>/dev/null || $(INSTALL) --group docs
	@$(BIN)/python -m sphinx -q -n -W --keep-going -d docs/_build/.doctrees docs docs/_build
	@echo docs/_build/index.html

figures: setup ## Write the figures of README and guide anew from benchmarks/results
	@$(BIN)/python docs/tools/figures.py

clean: ## Remove the environment and caches, never outputs or data
	rm -rf .venv dist build .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
