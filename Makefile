# On a bare machine: `make quickstart` or `make test`. Both create .venv once and reuse it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest

.PHONY: help setup quickstart test lowest slow torture tables pretrained lint clean

help:
	@echo "make setup        install drawbench into .venv"
	@echo "make quickstart   set up, then the whole tour on embedded digits (minutes)"
	@echo "make test         set up, then lint, types and tests"
	@echo "make lowest       the tests with the oldest dependencies that are allowed, in .venv-lowest"
	@echo "make slow         the tests that take longer"
	@echo "make torture      the fault-injection campaign of docs/reliability.md (about 40 minutes)"
	@echo "make tables       regenerate results/tables and results/figures from results/published"
	@echo "make pretrained  regenerate the models in the package from results/published"
	@echo "make lint         fix and format the code"
	@echo "make clean        remove .venv and caches; data and runs stay"

# Reinstalled only when the dependencies change; the package itself is installed editable.
$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "drawbench needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

setup: $(VENV)/installed

quickstart: setup
	$(BIN)/drawbench quickstart

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

# Old versions of one package warn about new versions of another; that is not ours to mend.
lowest:
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --editable '.[test]'
	$(LOWEST)/bin/python -m pytest -W ignore::DeprecationWarning

slow: setup
	$(BIN)/python -m pytest -m slow

torture: setup
	$(BIN)/python -m tests.torture --record

tables: setup
	$(BIN)/drawbench tables results/published
	$(BIN)/python docs/readme.py

pretrained: setup
	PYTHONPATH=tests $(BIN)/python -m tests.pack_pretrained

lint: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(LOWEST) build *.egg-info .pytest_cache .ruff_cache .mypy_cache
