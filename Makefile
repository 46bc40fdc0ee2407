# On a bare machine: `make quickstart` or `make test`. Both create .venv once and reuse it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
PARALLEL := --numprocesses=logical --maxprocesses=4 --dist=loadfile

.PHONY: help setup quickstart test processes lowest slow gpu torture tables pretrained reader docs demo-test lint clean

help:
	@echo "make setup        install drawbench into .venv"
	@echo "make quickstart   set up, then the whole tour on embedded digits (minutes)"
	@echo "make test         set up, then lint, types and tests"
	@echo "make processes    the tests that start commands in processes of their own (minutes)"
	@echo "make lowest       the tests with the oldest dependencies that are allowed, in .venv-lowest"
	@echo "make slow         the tests that take longer"
	@echo "make gpu          on a machine with a GPU: its tests, then the benchmark into results/bench/gpu"
	@echo "make torture      the fault-injection campaign of docs/reliability.md (about 40 minutes)"
	@echo "make tables       regenerate results/tables and results/figures from results/published"
	@echo "make docs         build the documentation into docs/_build; run what is in it"
	@echo "make demo-test    install Gradio and test the demo in Chromium"
	@echo "make pretrained   regenerate the models in the package from results/published"
	@echo "make reader       train the reader of drawn digits again (needs MNIST, minutes)"
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
	$(BIN)/python -m pytest $(PARALLEL)

processes: setup
	$(BIN)/python -m pytest $(PARALLEL) -m "processes and not slow"

# Old versions of one package warn about new versions of another; that is not ours to mend.
lowest:
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --editable '.[test]'
	$(LOWEST)/bin/python -m pytest $(PARALLEL) -W ignore::DeprecationWarning

slow: setup
	$(BIN)/python -m pytest $(PARALLEL) -m slow

gpu: setup
	$(BIN)/python -m pytest -m gpu
	$(BIN)/drawbench bench classifier generator --device cuda --against eager --out results/bench/gpu

torture: setup
	$(BIN)/python -m tests.torture --record

tables: setup
	$(BIN)/drawbench tables results/published
	$(BIN)/python docs/readme.py

pretrained: setup
	PYTHONPATH=tests $(BIN)/python -m tests.pack_pretrained

$(VENV)/docs $(VENV)/demo: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(@F)]'
	touch $@

docs: $(VENV)/docs
	$(BIN)/python -m sphinx -q -W --keep-going docs docs/_build
	$(BIN)/python -m pytest -m slow tests/test_docs.py tests/test_notebooks.py

demo-test: $(VENV)/demo
	$(BIN)/python -m pytest -m slow tests/test_demo.py

reader: setup
	$(BIN)/python -c "from drawbench.evaluation import reader; reader.make(); print(reader.facts())"

lint: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(LOWEST) build docs/_build *.egg-info .pytest_cache .ruff_cache .mypy_cache
