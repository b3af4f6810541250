# Each target sets up what it needs in .venv; nothing is installed outside it.
PYTHON ?= python3.11
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check

.NOTPARALLEL:  # one .venv
.PHONY: demo setup test soak check clean

demo: .venv/demo
	$(BIN)/embtune search search/presets/demo.yaml

setup: .venv/demo

test: .venv/dev
	$(BIN)/python -m pytest -m "not soak" -n 2 --dist loadfile --no-loadscope-reorder

soak: .venv/dev
	$(BIN)/python -m pytest -m soak -n 2 --dist loadfile --no-loadscope-reorder

check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The stamps are younger than what they were made from, so a changed constraints.txt installs again.
.venv/bin/pip:
	$(PYTHON) -m venv .venv

# torch first and alone: with it in place, nothing else asks for another build of it.
.venv/torch: constraints.txt | .venv/bin/pip
	$(PIP) install -q -c constraints.txt torch
	touch $@

.venv/demo: pyproject.toml constraints.txt .venv/torch
	$(PIP) install -q -c constraints.txt -e '.[demo]'
	touch $@

.venv/dev: pyproject.toml constraints.txt .venv/torch
	$(PIP) install -q -c constraints.txt -e '.[demo,dev]'
	touch .venv/demo $@
