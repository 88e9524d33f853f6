# `make repro` runs the pipeline and `make test` the tests. Both set up .venv first, if needed.
PYTHON ?= python3
# Named, so that every line goes through it: macOS's make 3.81 looks for the program of a simple line in its own PATH.
SHELL := /bin/bash
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1

.PHONY: setup repro replay neutral test test-slow lint format clean

setup: .venv/.ready

# Install torch first and by itself: as a dependency of another package, pip may choose a build with gigabytes of CUDA libraries.
.venv/.ready: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fairway needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

repro: setup
	dvc repro

# Whoever doubts the recorded run repeats it: every stage of the last commit in a clean clone, hash by hash against dvc.lock.
replay: setup
	python -m fairway.replay

# After a refactoring that changes no result: `make neutral REV=b7d5f1a` runs the pipeline and compares its files with that run's.
REV ?= HEAD
neutral: setup
	python -m bench.neutral $(REV)

lint: setup
	ruff check .
	ruff format --check .
	lint-imports --no-logo

# Test files run in parallel, in the order of tests/conftest.py, each on one thread: threads that wait for each other's cores are
# slower than one thread.
test: lint
	OMP_NUM_THREADS=1 python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Tests that take too long for every commit: remotes, also on an S3 server, and queues of the real pipeline.
test-slow: setup
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-s3.txt
	OMP_NUM_THREADS=1 python -m pytest -m slow

format: setup
	ruff check --fix .
	ruff format .

clean:
	rm -rf .ckpt .pytest_cache .ruff_cache .hypothesis .import_linter_cache
