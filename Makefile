# `make demo` and `make test` work on a fresh machine: they make .venv and install into it first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: venv demo test test-slow lint clean

venv: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

demo: venv
	$(BIN)/diptych pretrain photos --out runs/demo --epochs 10 --overwrite
	$(BIN)/diptych evaluate runs/demo photos
	@echo "Open runs/demo/report.html in a browser."

test: venv lint
	$(BIN)/pytest -n 2 -m 'not slow'

test-slow: venv
	$(BIN)/pytest -m slow

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv runs build
