# make demo      DenseNet-201 through the compiler: times against eager, errors against float64;
#                DenseNet-121 on the device "ve": its error, and the simulated share of the peak
# make test      the tests that every change must pass
# make test-all  also the slow ones
# make lint      ruff and mypy
# make bench     every peer on a few networks; ARGS="--net resnet50 --batch 1,32" chooses
# make clean     remove what these made
#
# Each target first makes .venv, with plain pip, when it is missing or older than pyproject.toml.
# torch's usual Linux build carries CUDA packages; without a GPU they are merely unused.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready-test
READY_BENCH := $(VENV)/.ready-bench
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
PYTEST := SOL_STRICT=1 $(BIN)/python -m pytest -n 2

.PHONY: demo test test-all lint bench clean

demo: $(READY)
	$(BIN)/python -m examples.densenet201 $(ARGS)
	$(BIN)/python -m examples.ve_resnet densenet121

test: $(READY)
	$(PYTEST) -m "not slow" $(ARGS)

test-all: $(READY)
	$(PYTEST) $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY_BENCH)
	$(BIN)/python -m benchmarks.bench $(ARGS)

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable ".[test]"
	touch $@

$(READY_BENCH): $(READY)
	$(PIP) --editable ".[test,bench]"
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find sol_dynamo tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +
