# Each target sets up what it needs in .venv; a target that is up to date starts at once.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help train test test-all test-oldest test-wheel lint format docs bench clean

help:
	@echo "make train     train and score the demo (about 3 minutes on 2 cores)"
	@echo "make test      run the tests (minutes)"
	@echo "make test-all  run the tests, the slow ones too"
	@echo "make test-oldest, make test-wheel   with the oldest PyTorch; of the wheel in an empty environment"
	@echo "make lint      ruff and pyright"
	@echo "make format    ruff, rewriting"
	@echo "make docs      the site, into site/"
	@echo "make bench     the benchmarks, into docs/BENCHMARKS.md (an hour or two)"
	@echo "make clean     remove all environments, dist/ and site/"

train: .venv/installed
	$(BIN)/python train.py

test: .venv/installed-dev
	$(BIN)/python -m pytest -n auto --dist loadfile

test-all: .venv/installed-dev
	$(BIN)/python -m pytest -n auto --dist loadfile -m "slow or not slow"

# The oldest PyTorch that pyproject.toml allows, in an environment of its own.
test-oldest: .venv/bin/python
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --disable-pip-version-check "torch==2.9.*" "torchvision==0.24.*" -e ".[test]"
	.venv-oldest/bin/python -m pytest

# sdist, from it the wheel, and the wheel in an environment of its own.
test-wheel: .venv/bin/python
	rm -rf dist .venv-wheel
	$(BIN)/python -m pip install --disable-pip-version-check --quiet build
	$(BIN)/python -m build
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install --disable-pip-version-check dist/*.whl
	tests/check_wheel.sh .venv-wheel/bin

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/installed-dev
	$(BIN)/mkdocs build --strict

bench: .venv/installed-bench
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf .venv .venv-oldest .venv-wheel dist site

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version); set PYTHON=…"; exit 1; }
	@echo "creating .venv …"
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml .venv/bin/python
	@echo "installing cbam3d with PyTorch (several GB, minutes) …"
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -e .
	@touch $@

.venv/installed-bench: .venv/installed-dev
	@echo "installing what the benchmarks compare with …"
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -e ".[bench]"
	@touch $@

.venv/installed-dev: pyproject.toml .venv/bin/python
	@echo "installing cbam3d with PyTorch and what the tests need (several GB, minutes) …"
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -e ".[dev]"
	@touch $@ .venv/installed
