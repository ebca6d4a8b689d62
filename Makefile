# The same commands locally and in CI. Everything is installed into .venv; nothing else is touched.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ROWS   ?= 200000
SEEDS  ?= 20
STATE  ?= sqlite
FLEET  ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format bench chaos mutate docs docs-check clean

help: ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/retl: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --editable '.[local]'
	@touch $@

$(VENV)/dev: $(BIN)/retl
	$(BIN)/pip install --quiet --group dev
	@touch $@

setup: $(VENV)/dev ## create the environment

demo: $(BIN)/retl ## six syncs from a local BigQuery to a local Customer.io (ROWS=200000)
	$(BIN)/retl demo --rows $(ROWS)

test: $(VENV)/dev ## the test suite
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/dev ## lint, format, import contracts, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(VENV)/dev ## format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/bench: $(VENV)/dev
	$(BIN)/pip install --quiet --group bench
	@touch $@

bench: $(VENV)/bench ## every benchmark; each ends with one line of JSON
	@for bench in benchmarks/[a-z]*.py; do $(BIN)/python $$bench || exit 1; done

chaos: $(VENV)/dev ## kills, stops, full disks and faults at random: SEEDS=500, SEED=7, STATE=postgres, FLEET=3
	PYTHONPATH=.:tests/support $(BIN)/python -m chaos --state $(STATE) --fleet $(FLEET) \
	  $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))

mutate: $(VENV)/dev ## mutation testing of the encoder; what survives is in docs/encoding-proof.md
	$(BIN)/pip install --quiet --group mutation
	RETL_TEST_EXAMPLES=120 $(BIN)/mutmut run
	$(BIN)/mutmut results

docs: $(VENV)/dev ## write the generated documents
	$(BIN)/python -m pipeline.config.reference > docs/configuration.md
	$(BIN)/python -m pipeline.metrics > docs/metrics.md

docs-check: docs ## fail when a generated document is out of date
	git diff --exit-code docs/configuration.md docs/metrics.md

clean: ## remove the environment and everything the demo wrote
	rm -rf $(VENV) .retl
