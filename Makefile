# Every target works on a fresh machine with Python 3.10-3.13; `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The rooms of the mathematics: quick to test, and the tests say how much of them they reach.
MATHEMATICS := tests/merging tests/objectives tests/statistics tests/rules
COVERED := --cov=adamerge.merging --cov=adamerge.objectives --cov=adamerge.statistics --cov=adamerge.rules

.PHONY: help setup run test check coverage format lint types bench bench-smoke docs mini clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(READY)  ## make .venv with the tested versions

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]' -c constraints.txt
	@touch $@

run: $(READY)  ## set up, then merge and adapt eight experts on the embedded suite (about a minute)
	$(BIN)/python -m adamerge train method=adamerging_layerwise

test: $(READY)  ## set up, then lint, check types and run all tests, two at a time, with the coverage of the mathematics
	$(MAKE) --no-print-directory lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(COVERED) --cov-report=term $(MATHEMATICS)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --durations=15 $(addprefix --ignore=,$(MATHEMATICS))

check: $(READY)  ## lint, types and the tests of merging, rules and rooms (under a minute once mypy has its cache)
	$(MAKE) --no-print-directory lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow" tests/merging tests/rules tests/test_rooms.py --ignore=tests/rules/test_streaming.py

coverage: $(READY)  ## all tests once more, with what no test reaches
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term

format: $(READY)  ## put the code into ruff's form
	$(BIN)/ruff check --fix adamerge tests notebooks
	$(BIN)/ruff format adamerge tests notebooks

lint: $(READY)  ## ruff
	$(BIN)/ruff check adamerge tests notebooks
	$(BIN)/ruff format --check adamerge tests notebooks

types: $(READY)  ## mypy
	$(BIN)/mypy

bench: $(READY)  ## time a step of layer-wise AdaMerging on ViT-B/32 against naive autograd (minutes, 16 GB)
	$(BIN)/python -m adamerge bench adamerging

bench-smoke: $(READY)  ## time a step of a small encoder in float32 and in bfloat16, as JSON in build/ (under two minutes)
	mkdir -p build
	$(BIN)/python -m adamerge bench adamerging backbone=small tasks=4 rounds=1 output=build/bench_float32.json
	$(BIN)/python -m adamerge bench adamerging backbone=small tasks=4 rounds=1 precision=bf16-mixed output=build/bench_bf16.json

docs: $(READY)  ## write docs/methods.md and the JSON Schemas from the YAMLs and the code
	$(BIN)/python -m adamerge.report.methods_page > docs/methods.md
	$(BIN)/python -m adamerge.tracking.schemas docs

mini: $(READY)  ## remake the embedded suite's weights (about half an hour on two cores)
	rm -rf adamerge/zoo/mini/base adamerge/zoo/mini/experts
	$(BIN)/python -m adamerge pretrain suite=mini checkpoints=mini
	$(BIN)/python -m adamerge finetune suite=mini checkpoints=mini

clean:  ## remove the environment and the caches, not the outputs
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
