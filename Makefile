# Every target is self-contained: it makes .venv with the machine's Python if there is none and installs what it needs once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNS := runs

.PHONY: demo test test-all lint bench clean

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "spikeloop needs Python 3.11 or later, $(PYTHON) is `$(PYTHON) -V`; run make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# One stamp for each set of extras; a changed pyproject.toml installs anew.
$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[$*]'
	@touch $@

demo: $(VENV)/.installed-train
	$(BIN)/python scripts/train.py --config digits --run-dir $(RUNS)/digits --overwrite

# Files of tests are shared out among processes of one thread each; two processes with threads would fight for the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test: $(VENV)/.installed-test
	$(PYTEST)

test-all: $(VENV)/.installed-test
	$(PYTEST) -m ''

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-bench
	$(BIN)/python scripts/bench/neurons.py --json $(RUNS)/bench-neurons.json
	$(BIN)/python scripts/bench/layer.py --json $(RUNS)/bench-layer.json
	$(BIN)/python scripts/bench/train_step.py --json $(RUNS)/bench-train-step.json
	$(BIN)/python scripts/bench/startup.py --json $(RUNS)/bench-startup.json

clean:
	rm -rf $(VENV) build dist *.egg-info
