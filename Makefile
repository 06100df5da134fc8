PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= runs/demo

.PHONY: help install demo reproduce test check docs package bench clean

help:  ## what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

install: $(VENV)/.installed  ## make .venv and install everything into it

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch torchvision
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[demo,ray,test,check,docs]"
	$(BIN)/pip install --quiet --no-deps lxt==2.1  # an oracle of tests/test_transformers.py; its dependencies are not needed
	touch $@

demo: install  ## Figure 4 and a small study with its verdict on the embedded network and photos: runs/demo, runs/demo-study
	$(BIN)/faithmap run --protocol samek2017 --draws 1 --save-heatmaps --out $(OUT)
	$(BIN)/faithmap report $(OUT) --out $(OUT)/report.html
	$(BIN)/faithmap study --methods fig4 --settings quick --heatmaps-from $(OUT) --out $(OUT)-study

reproduce: install  ## the 2021 replication on AlexNet and Imagenette (downloads both, once)
	$(BIN)/python main.py --images 1000 --protocol replication2021

test: install  ## run the tests
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 2

check: install  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install  ## the documentation site, in site/: open site/index.html, no server needed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

package: install  ## build the wheel and the sdist into dist/, and check them
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*
	$(BIN)/python -m pytest tests/test_package.py

bench: install  ## all benchmarks on one page, benchmarks/README.md (half an hour)
	$(BIN)/python -m benchmarks.page --out benchmarks/README.md

clean:  ## remove what make made
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache
