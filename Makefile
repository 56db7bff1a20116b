# Two commands on a fresh machine with Python >= 3.11 and make: `make demo` and `make test`. Versions: constraints.txt;
# `make LOCK= demo` takes what is newest, `make lock` writes that down.
PYTHON ?= python3
VENV   ?= .venv
TORCH  ?= torch==2.13.0
LOCK   ?= constraints.txt
LIMIT  ?=
BIN    := $(VENV)/bin
export OMP_NUM_THREADS ?= $(shell nproc)

.PHONY: demo test lint lock torch gpu-check clean

$(BIN)/.installed: pyproject.toml $(LOCK)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade $(if $(LOCK),--constraint $(LOCK) pip,"pip>=25")
	PIP_BUILD_CONSTRAINT=$(LOCK) $(BIN)/python -m pip install --quiet $(LOCK:%=--constraint %) "$(TORCH)" --editable ".[dev]"
	touch $@

lock: # the newest versions of everything `dev` needs, as $(LOCK); run it with the oldest Python, then `make test`
	$(PYTHON) -m venv --clear $(VENV)/lock
	$(VENV)/lock/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/lock/bin/python -m pip install --quiet --dry-run --ignore-installed --report - "$(TORCH)" --editable ".[dev]" \
		| $(VENV)/lock/bin/python .ci/lock.py > constraints.txt.new
	mv constraints.txt.new constraints.txt
	rm -rf $(VENV)/lock

torch:
	@echo "$(TORCH)"

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
