# Each target makes its own virtual environment (.venv) first; nothing but Python 3.11 is needed.
#   make demo     a local cluster, a sharded table, a partition that moves under load
#   make quick    lint, types, and the tests that need no server; under a minute
#   make test     lint, then the whole test suite; SHARDMAN_PG_BIN=DIR chooses other servers, and
#                 COVERAGE=1 says what it runs of the shardlord
#   make soak     ten minutes of chaos; SOAK_ARGS
#   make crash    kill -9 before and after every step of every command, all of them
#   make dialect  SQLAlchemy's suite for dialects over the client, all of it
#   make psycopg-lowest  what programs rely on of psycopg, with the lowest version of it that pyproject.toml allows
#   make bench    what it costs on this machine; BENCH_ARGS

.DEFAULT_GOAL := help
SHELL := /bin/bash

VENV ?= .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

# Two processes suit two processors; a file's tests stay together, for they share a cluster.
PYTEST_WORKERS ?= 2
PYTEST_ARGS ?=

.PHONY: help venv demo quick test pytest coverage lint format soak crash dialect psycopg-lowest bench clean

help:
	@sed -n 's/^#   //p' Makefile

venv:
	@VENV='$(VENV)' PYTHON='$(PYTHON)' tools/make-venv

demo: venv
	@$(BIN)/shardman demo $(DEMO_ARGS)

# `server` is the marker of whatever starts PostgreSQL: shardman.testing.plugin says how it gets there.
quick: lint
	@$(BIN)/python -m pytest -q -m 'not server' -n $(PYTEST_WORKERS) --dist worksteal $(PYTEST_ARGS)

# SKIP_LINT=1: for the second run of a build, on another server.
ifeq ($(SKIP_LINT),)
test: lint
endif
# COVERAGE=1: with what the tests run of the shardlord.
ifeq ($(COVERAGE),)
test: pytest
else
test: coverage
endif

pytest: venv
	@$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# Of lord/ and steps/ (pyproject.toml): the rest is thin or pure, and tracing it would cost more.
coverage: venv
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -n $(PYTEST_WORKERS) --dist loadfile $(PYTEST_ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

lint: venv
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: venv
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format --quiet .

soak: venv
	@$(BIN)/python -m shardman.testing.soak $(SOAK_ARGS)

crash: venv
	@SHARDMAN_LONG=1 $(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile tests/crash tests/chaos tests/answers $(PYTEST_ARGS)

dialect: venv
	@SHARDMAN_LONG=1 $(BIN)/python -m pytest tests/orm/test_dialect.py $(PYTEST_ARGS)

lowest = $(shell sed -n 's/.*"psycopg\[binary\]>=\([0-9.]*\)".*/\1/p' pyproject.toml)
psycopg-lowest: venv
	@$(BIN)/pip install --quiet --no-deps --upgrade --target build/psycopg psycopg==$(lowest) psycopg-binary==$(lowest)
	@PYTHONPATH=build/psycopg $(BIN)/python -m pytest -q tests/client/test_psycopg.py $(PYTEST_ARGS)

bench: venv
	@$(BIN)/python bench/run.py $(BENCH_ARGS)

clean:
	rm -rf .venv* .coverage build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
