PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install test check

install: $(VENV)/.installed  ## make .venv and install everything into it

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch torchvision
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[demo,test,check]"
	touch $@

test: install  ## run the tests
	$(BIN)/python -m pytest

check: install  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
