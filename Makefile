# Each target sets up what it needs in .venv; nothing is installed outside it.
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.NOTPARALLEL:  # one .venv
.PHONY: demo setup test soak check clean pinned

demo: .venv/demo
	$(BIN)/embtune search search/presets/demo.yaml

setup: .venv/demo

test: .venv/dev
	$(BIN)/python -m pytest -m "not soak" -n 2 --dist loadfile --no-loadscope-reorder --durations 15

soak: .venv/dev
	$(BIN)/python -m pytest -m soak -n 2 --dist loadfile --no-loadscope-reorder --durations 15

check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

# A path or an address that a tool wrote for a package is right on one machine alone: told before anything is installed.
HASH := \#
STRAY = $(shell grep -m1 -nvE '^($(HASH).*|[A-Za-z0-9._-]+==[A-Za-z0-9._!]+)?$$' constraints.txt)
pinned:
	$(eval stray := $(STRAY))
	$(if $(stray),$(error constraints.txt:$(stray) is not name==version; expected the package by its version alone))

# What makes .venv: PYTHON=..., else the first of these that runs (a name on the path may be an empty shim), is 3.11 to
# 3.13, and can make an environment with pip in it (Debian keeps that part of Python in a package of its own).
PYTHONS = $(if $(PYTHON),"$(PYTHON)",python3.11 python3.12 python3.13 python3)
RIGHT_VERSION := import sys; print("python%d.%d" % sys.version_info[:2]); sys.exit(not (3, 11) <= sys.version_info < (3, 14))
FIND = for python in $(PYTHONS); do \
	name=$$("$$python" -c '$(RIGHT_VERSION)' 2>/dev/null) || continue; \
	if "$$python" -c 'import venv; from ensurepip import bootstrap' 2>/dev/null; then echo "$$python"; exit; fi; \
	bare="$${bare:-without $$name}"; \
done; echo "$${bare:-none}"
NONE = no Python from 3.11 to 3.13 runs here as $(if $(PYTHON),PYTHON=$(PYTHON),any of $(PYTHONS)): install one, or name \
	it, as in make PYTHON=/usr/bin/python3.11
NO_VENV = $(1) cannot make a virtual environment (no ensurepip or venv): install $(1)-venv, as in apt install $(1)-venv

# The stamps are younger than what they were made from, so a changed constraints.txt installs again.
.venv/bin/pip:
	$(eval found := $(shell $(FIND)))
	$(if $(filter none,$(firstword $(found))),$(error $(NONE)))
	$(if $(filter without,$(firstword $(found))),$(error $(call NO_VENV,$(lastword $(found)))))
	"$(found)" -m venv .venv

# torch first and alone: with it in place, nothing else asks for another build of it.
.venv/torch: constraints.txt | pinned .venv/bin/pip
	$(PIP) install -q -c constraints.txt torch
	touch $@

.venv/demo: pyproject.toml constraints.txt .venv/torch
	$(PIP) install -q -c constraints.txt -e '.[demo,app]'
	touch $@

.venv/dev: pyproject.toml constraints.txt .venv/torch
	$(PIP) install -q -c constraints.txt -e '.[demo,dev]'
	$(BIN)/python -m venv .venv/moto  # an S3 server for tests; it asks for older packages than embtune
	.venv/moto/bin/python -m pip --disable-pip-version-check install -q -r tests/kit/moto.txt
	touch .venv/demo $@
