# Two commands for people: `make repro` (the main job) and `make test`. Both set up .venv first, where needed.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1

.PHONY: setup repro neutral test test-slow lint format clean

setup: .venv/.ready

# torch goes first and by itself: asked for by another package, pip may fetch a build with gigabytes of CUDA libraries.
.venv/.ready: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fairway needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

repro: setup
	dvc repro

# After a refactoring that changes no result: `make neutral REV=b7d5f1a` runs the pipeline and compares its files with that run's.
REV ?= HEAD
neutral: setup
	python -m bench.neutral $(REV)

lint: setup
	ruff check .
	ruff format --check .
	lint-imports --no-logo

# Files of tests side by side, each on one thread: two that wait for each other's cores are slower than one.
test: lint
	OMP_NUM_THREADS=1 python -m pytest -n auto --maxprocesses 4 --dist loadfile

# What takes too long for every commit: remotes, also on a server that speaks S3, and queues of the real pipeline.
test-slow: setup
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-s3.txt
	OMP_NUM_THREADS=1 python -m pytest -m slow

format: setup
	ruff check --fix .
	ruff format .

clean:
	rm -rf .ckpt .pytest_cache .ruff_cache .hypothesis .import_linter_cache
