# Everything runs inside .venv, which `make setup` builds from constraints.txt.

PYTHON ?= python3
PYTEST_ARGS ?= -n logical --maxprocesses 8 --dist worksteal
OUT ?= demo
BIN := .venv/bin
STAMP := .venv/.installed

# One thread per test process: the processes share the cores already.
test coverage: export OMP_NUM_THREADS := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format types docs bench results pictures check stats coverage

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

setup: $(STAMP)  ## make .venv with the pinned packages

$(STAMP): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'The pinned packages need Python 3.11 or newer: make PYTHON=/path/to/python3.11 ...' >&2; \
		exit 1; }
	"$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --no-input --disable-pip-version-check --quiet \
		-c constraints.txt -e '.[train,report,serve,dicom,openvino,onnx,monai,dev,docs]'
	@touch $@

demo: $(STAMP)  ## the main job on made-up scans, into OUT=demo
	$(BIN)/lamina demo --out "$(OUT)"

test: $(STAMP)  ## the whole test suite; PYTEST_ARGS='-k volume' narrows it
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(STAMP)  ## style, spelling, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell --skip docs/_build src tests docs tools benchmarks *.md
	$(BIN)/lint-imports

format: $(STAMP)  ## rewrite the sources in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP)  ## strict type check
	$(BIN)/mypy

docs: $(STAMP)  ## the manual, into docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

bench: $(STAMP)  ## time predictions of each network, a whole scan, and training steps
	$(BIN)/lamina bench --whole-scan --out docs
	$(BIN)/python benchmarks/step_time.py
	$(BIN)/python benchmarks/patches.py

results: $(STAMP)  ## the tables of results, from the records in docs/results
	$(BIN)/python tools/results_page.py
	$(BIN)/python tools/results_front.py

pictures: demo  ## pictures of the pages in the manual, on the demonstration's scans
	$(BIN)/python tools/pictures.py "$(OUT)"

check: lint types test  ## all that must hold before a change goes in

stats: $(STAMP)  ## the shape of the source tree
	$(BIN)/python tools/stats.py src/lamina

coverage: $(STAMP)  ## the test suite, with the lines it does not reach
	$(BIN)/python -m pytest $(PYTEST_ARGS) --cov --cov-report=term-missing:skip-covered
