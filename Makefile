# All targets work on a new machine with Python 3.11 or later and npm. Nothing is installed outside this folder.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 3
SOAK ?= 10
AHEAD ?= 366

.DEFAULT_GOAL := help
.PHONY: help demo test test-ahead soak nightly bench lint lock clean screenshots

help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements-dev.lock pyproject.toml README.md
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

demo: $(STAMP) ## Runs the whole product on this machine: local Slack, PostgreSQL, the bot
	@$(BIN)/python -m demo

test: lint ## Runs all tests on private servers (a test without its server is skipped by name)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder

test-ahead: $(STAMP) ## Runs the fast tests with the clock set AHEAD days ahead (366); Linux with gcc
	$(BIN)/python -m tests.clock_ahead $(AHEAD) $(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder \
	  -k "not hostile_user" tests/clock_ahead tests/unit tests/access tests/slack \
	  tests/contract/postgresql/test_contract.py tests/contract/postgresql/test_tls.py tests/contract/mysql/test_contract.py tests/contract/mysql/test_tls.py \
	  tests/contract/redis/test_contract.py tests/contract/redis/test_tls.py tests/contract/mongodb/test_contract.py tests/contract/mongodb/test_tls.py

soak: $(STAMP) ## Runs the random tests SOAK times as long (10): policies, transitions, use cases, input, kills, network
	SOAK=$(SOAK) $(BIN)/python -m pytest -n $(WORKERS) --timeout 1800 --dist loadscope --no-loadscope-reorder \
	  tests/access/test_crash.py tests/unit/test_ledger_sequences.py tests/unit/test_policy_whole.py tests/unit/test_policy_properties.py \
	  tests/access/test_state_machine.py tests/unit/test_fuzz.py tests/unit/test_load_fuzz.py
	SOAK=$(SOAK) $(BIN)/python -m pytest -n $(WORKERS) --timeout 1800 --dist loadscope --no-loadscope-reorder -m soak

nightly: $(STAMP) ## Runs the tests that take hours, and writes benchmarks/nightly.json: 500 kills, state machine, bad input, load
	$(BIN)/python -m tests.nightly

bench: $(STAMP) ## Measures the running bot against its limits (about ten minutes)
	$(BIN)/python -m benchmarks

lint: $(STAMP) ## Checks style, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

lock: ## Locks the newest versions that pyproject.toml allows, with hashes
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(VENV)-lock/bin/uv pip compile --quiet --upgrade --generate-hashes --no-emit-index-url --no-header --universal --python-version 3.11 pyproject.toml -o requirements.lock
	$(VENV)-lock/bin/uv pip compile --quiet --upgrade --generate-hashes --no-emit-index-url --no-header --universal --python-version 3.11 --group dev pyproject.toml -o requirements-dev.lock
	rm -rf $(VENV)-lock

screenshots: $(STAMP) ## Takes docs/screenshots again from the running demo (needs Chromium)
	$(BIN)/python -m demo.screenshots

clean: ## Removes the virtual environment and the cache
	rm -rf $(VENV) .cache
