# make demo   everything once, on toy faces, in about five minutes
# make test   lint, types and the default tests
# make docs   the site, into site/; every link checked

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow lint types format docs wheel clean

demo: .venv/installed
	$(BIN)/kao demo

test: lint types
	$(BIN)/pytest -q -n auto

test-slow: .venv/installed-dev
	$(BIN)/pytest -q -m "slow"

lint: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/installed-dev
	$(BIN)/mypy

format: .venv/installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/python docs/check_site.py site

wheel: .venv/installed-dev
	$(BIN)/python -m build

clean:
	rm -rf .venv dist build site

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kao needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet -e .
	touch $@

.venv/installed-dev: pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet -e ".[dev]"
# A reference for tests.  It asks for torchvision, which what we import of it does not need, and
# whose mere presence breaks other packages on CPU builds of torch.
	$(BIN)/pip install --quiet --no-deps "clean-fid>=0.1.35,<0.2"
	touch $@ .venv/installed

.venv/installed-docs: pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet -e ".[docs]"
	touch $@ .venv/installed
