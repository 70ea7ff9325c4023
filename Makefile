# Each target makes its own virtual environment (.venv) first; nothing but Python 3.11 is needed.
#   make demo     a local cluster, a sharded table, a partition that moves under load
#   make test     lint, then the whole test suite; SHARDMAN_PG_BIN=DIR chooses other servers
#   make soak     ten minutes of chaos; SOAK_ARGS
#   make crash    kill -9 before and after every step of every command, all of them
#   make bench    what it costs on this machine; BENCH_ARGS

.DEFAULT_GOAL := help
SHELL := /bin/bash

BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

# Two processes suit two processors; a file's tests stay together, for they share a cluster.
PYTEST_WORKERS ?= 2
PYTEST_ARGS ?=

.PHONY: help venv demo test pytest lint format soak crash bench clean

help:
	@sed -n 's/^#   //p' Makefile

venv:
	@PYTHON='$(PYTHON)' tools/make-venv

demo: venv
	@$(BIN)/shardman demo $(DEMO_ARGS)

# SKIP_LINT=1: for the second run of a build, on another server.
ifeq ($(SKIP_LINT),)
test: lint
endif
test: pytest

pytest: venv
	@$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

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
	@SHARDMAN_LONG=1 $(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile tests/crash tests/chaos $(PYTEST_ARGS)

bench: venv
	@$(BIN)/python bench/run.py $(BENCH_ARGS)

clean:
	rm -rf .venv .venv.lock build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
