# Two commands on a fresh machine with Python >= 3.11 and make: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
TORCH  ?= torch==2.13.0
LIMIT  ?=
BIN    := $(VENV)/bin
export OMP_NUM_THREADS ?= $(shell nproc)

.PHONY: demo test lint gpu-check clean

$(BIN)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25"
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet "$(TORCH)" --editable ".[dev]"
	touch $@

demo: $(BIN)/.installed
	$(BIN)/qtool demo $(if $(LIMIT),--items $(LIMIT))

test: $(BIN)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(BIN)/.installed
	$(BIN)/ruff check qtool tests benchmarks
	$(BIN)/ruff format --check qtool tests benchmarks
	$(BIN)/mypy

gpu-check:  # installs nothing: the Python of this project where it is there, else the one that has torch
	$(or $(wildcard $(BIN)/python),$(PYTHON)) benchmarks/gpu_check.py

clean:
	rm -rf $(VENV) runs dist build
