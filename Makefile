# The two commands of the README do all the set-up: `make demo`, `make test`.
# Everything that is installed goes into .venv and .cache, which `make clean` removes.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CACHE := $(CURDIR)/.cache
# ETCD_DIR: a folder with another etcd, etcdctl and etcdutl to run everything on.
export PATH := $(if $(ETCD_DIR),$(ETCD_DIR):)$(CACHE)/bin:$(PATH)
export PYTHONHASHSEED ?= 0

.PHONY: demo test lint unit bench bench-mesh bench-compare sim protos schemas lock clean etcd mosquitto chaos-tools

demo: $(VENV)/.installed etcd
	$(BIN)/meshd demo $(ARGS)

test: lint unit

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/make_schemas.py --check
	scripts/make_protos.sh --check

# Two workers for the two cores of CI; tests/conftest.py says which gets which test.
unit: $(VENV)/.installed etcd mosquitto
	rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest -n 2 --dist loadscope
	$(BIN)/coverage combine --quiet
	rm -f .coverage.*  # what a killed process left half-written
	$(BIN)/coverage report --include='meshd/core/*,meshd/model/*' --fail-under=100 --skip-covered
	$(BIN)/coverage report --fail-under=90 --skip-covered --skip-empty --format=total

bench: $(VENV)/.installed etcd
	$(BIN)/python -m tests.bench $(ARGS)

bench-mesh: $(VENV)/.installed etcd
	$(BIN)/python -m tests.bench.mesh $(ARGS)

bench-compare: $(VENV)/.installed etcd
	$(BIN)/python -m tests.bench.compare $(ARGS)

sim: $(VENV)/.installed
	$(BIN)/python -m tests.sim $(ARGS)

protos: $(VENV)/.installed
	scripts/make_protos.sh

schemas: $(VENV)/.installed
	$(BIN)/python scripts/make_schemas.py

# Names, versions and hashes only: no registry's address.
lock:
	uv pip compile pyproject.toml $(COMPILE) --group dev -o requirements.lock
	uv pip compile pyproject.toml $(COMPILE) --group build -o requirements-run.lock

COMPILE := --generate-hashes --universal --python-version 3.11 --no-emit-index-url --no-header

etcd: $(VENV)/.installed
	$(if $(ETCD_DIR),$(ETCD_DIR)/etcd --version,scripts/ensure_etcd.sh)

# Only tests need an MQTT broker.
mosquitto:
	scripts/ensure_mosquitto.sh

# What chaos can do more with, for root to install; it works without.
chaos-tools:
	scripts/ensure_chaos.sh

$(VENV)/.installed: requirements.lock pyproject.toml scripts/ensure_venv.sh
	scripts/ensure_venv.sh $(VENV) $(PYTHON)
	touch $@

clean:
	rm -rf $(VENV) .cache build dist *.egg-info .coverage .coverage.* htmlcov \
	  .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
