# Every verb a developer needs. `make` alone lists them.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
# As pip does: trust what this machine trusts, so that a company's proxy is no obstacle.
export UV_SYSTEM_CERTS ?= 1
export UV_PROJECT_ENVIRONMENT := $(CURDIR)/$(VENV)

.DEFAULT_GOAL := help
.PHONY: help setup up down doctor check docs format test golden fuzz sim proof mutants ring2 chaos bench dispatch soak-kafka soak-sse peers clean sagas trace

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  \033[1m%-10s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## make the Python environment (idempotent)

$(VENV)/.ready: uv.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "SPECTRUM needs Python 3.11 or later; this is %d.%d. Run: make PYTHON=/path/to/python3.11" % sys.version_info[:2])'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); echo "Python's venv module is missing. On Debian: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv sync --quiet --frozen --all-extras --all-groups --inexact
	@touch $@

up: setup ## start the whole system, with the example products and a first instance (KAFKA=1: and Apache Kafka)
	@$(BIN)/spectrum up $(if $(KAFKA),--bus kafka)

down: setup ## stop instances and parts; data stays
	@$(BIN)/spectrum down

doctor: setup ## check this machine for what is needed, with remedies
	@$(BIN)/spectrum doctor

check: setup ## lint, types, import contracts, generated files fresh
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m sim.lint
	@$(BIN)/python -m docs.generate --check

docs: setup ## write the documents that come from code anew
	@$(BIN)/python -m docs.generate

format: setup ## rewrite the code in the project's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

test: setup ## run every test, fast ones first
	@$(BIN)/pytest -n auto --dist worksteal

golden: setup ## rewrite the texts that are kept (problems, products, plans); read the difference aloud
	@SPECTRUM_TEST_UPDATE_GOLDEN=1 $(BIN)/pytest -q tests/api/test_problems.py tests/api/test_broken_requests.py tests/api/test_openapi.py \
		tests/unit/product/test_broken_products.py tests/db/test_plans.py
	@git --no-pager diff --stat tests/golden

EXAMPLES ?= 100
fuzz: setup ## send the API whatever its document allows, and what it does not: make fuzz EXAMPLES=100
	@SPECTRUM_TEST_FUZZ=$(EXAMPLES) $(BIN)/pytest -q tests/api/test_fuzz.py

sagas: setup ## play every situation of every operation in the saga harness
	@SPECTRUM_LEDGER=$(LEDGER) SPECTRUM_TEST_SAGAS=all $(BIN)/pytest -n auto --dist worksteal tests/sagas

SEEDS ?= 1-200
sim: setup ## run the whole system in the seeded simulator: make sim SEEDS=1-200 (LEDGER=1 adds the run to docs/proof)
	@$(BIN)/python -m sim run --seeds $(SEEDS) --jobs 2 --again $(if $(LEDGER),--ledger)

PROOF_SEEDS ?= 2001-7000
PROOF_SECONDS ?= 400
proof: setup ## the seeds that a change has to pass before it lands, with all rare situations, and 1 % of them twice
	@$(BIN)/python -m sim run --seeds $(PROOF_SEEDS) --for $(PROOF_SECONDS) --jobs 2 --again --marks $(if $(LEDGER),--ledger)

mutants: setup ## hunt every planted bug; a survivor fails
	@$(BIN)/python -m tests.mutants $(if $(LEDGER),--ledger)

ring2: setup ## interleave pairs of transactions on a real PostgreSQL: make ring2 SEEDS=0-9999 (LEDGER=1 adds the run)
	@$(BIN)/python -m sim pairs --seeds $(SEEDS) --jobs 2 $(if $(LEDGER),--ledger)

JOBS ?= 2000
FAULTS ?= 200
SEED ?= 1
chaos: setup ## harm real processes under load: make chaos SEED=1 JOBS=2000 FAULTS=200 (LEDGER=1 adds the run to docs/proof)
	@$(BIN)/python -m chaos --seed $(SEED) --jobs $(JOBS) --faults $(FAULTS) $(if $(LEDGER),--ledger)

FLAMES ?= .cache/flames
bench: setup ## measure jobs a second, their latencies and what they cost, and draw where the time goes (three minutes)
	@$(BIN)/python -m bench.jobs --flames $(FLAMES)

soak-sse: setup ## 2,000 clients follow events and 200 of them read nothing: what is missed, and the server's memory (three minutes)
	@$(BIN)/python -m bench.streams

dispatch: setup ## measure how soon jobs are claimed with long polls and with Kafka, side by side (three minutes; needs Java)
	@$(BIN)/python -m bench.dispatch

RATE ?= 100
SECONDS ?= 300
HARMS ?= kill,hang,disk,rebalance
soak-kafka: setup ## harm Kafka under load: make soak-kafka SECONDS=300 RATE=100 HARMS=kill,hang,disk,rebalance
	@$(BIN)/python -m bench.soak_kafka --rate $(RATE) --seconds $(SECONDS) --harms $(HARMS)

peers: setup ## the same six steps on other engines, side by side (five minutes, and as long again to have them)
	@$(BIN)/python -m bench.peers

trace: setup ## draw the trace of one create into docs/trace.svg
	@$(BIN)/python -m docs.trace docs/trace.svg

clean: ## remove what can be made again
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .cache
