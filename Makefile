# Every target does its own set-up; a second run is quick.
.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt tools/install
	@tools/install $(VENV)
	@touch $@

.PHONY: install
install: $(STAMP) ## what the machine lacks, the virtual environment, and .venv/bin/ringfence

.PHONY: demo
demo: $(STAMP) ## the walk-through with real packets: a policy, a time-out, a label, a connection
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/ringfence demo

.PHONY: check
check: $(STAMP) ## format, lint, types, imports, the C program
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	tools/check-ebpf

.PHONY: test
test: $(STAMP) ## all tests, with branch coverage
	tools/test

.PHONY: bench
bench: $(STAMP) ## measure, in one run, against a baseline
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m bench.run

.PHONY: torture
torture: $(STAMP) ## real agents under fire: SECONDS=60 SEED=… DATAPLANE=ebpf; see docs/torture.md
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tools.torture --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED)) $(if $(DATAPLANE),--dataplane $(DATAPLANE))

SECONDS ?= 60
.PHONY: fuzz
fuzz: $(STAMP) ## random clusters and policies, all engines against the oracle: make fuzz SECONDS=600 [SEED=n]
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

.PHONY: golden
golden: $(STAMP) ## write the golden files anew; look at the difference before you commit it
	RINGFENCE_GOLDEN=write $(BIN)/pytest -q -k golden

.PHONY: clean
clean: ## everything that make made in this folder
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* build dist
