# `make demo` and `make test` work on a fresh machine: they make .venv and install into it first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: venv demo test test-slow lint web bench clean

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

# The explorer's page, built of explorer/web; what is built is committed, so that installing needs no node.
web:
	cd src/diptych/explorer/web && npm ci --silent && npm run --silent build

# The peers that we are compared with live in a venv of their own.
bench: .bench/installed
	.bench/bin/python benchmarks/views.py
	.bench/bin/python benchmarks/epochs.py
	.bench/bin/python benchmarks/audit.py

.bench/installed: pyproject.toml
	$(PYTHON) -m venv .bench
	.bench/bin/pip install --quiet --upgrade pip
	.bench/bin/pip install --quiet --editable '.[fast]' torchvision lightly kornia
	touch $@

clean:
	rm -rf .venv .bench runs audits build
