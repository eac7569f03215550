# The front door. `make help` lists it; CI calls `make test` and nothing else.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -q
STACK := PYTHONPATH=tools $(BIN)/python -m qcstack
PACKAGES := libs/servicekit services/vm-host services/image-store services/qemu-runner services/controller services/gateway

BENCHES := run object_store event_latency added_latency reserved_address fifty_cards throughput containers databases readiness_lag agent idle idle_consoles scale debian_guest

# What `make test-full` runs once more with the rows on PostgreSQL: tests/integration/test_*.py.
ON_POSTGRESQL := main_path survival policies events patch

# MODE=native runs plain processes, MODE=compose containers; without it, containers where an engine answers.
# A stack other than the default one: make up STATE=/srv/qc PORT=9080 CONTROLLER_PORT=9009 IMAGE_STORE_PORT=9010
OPTIONS := --mode=$(or $(MODE),auto) $(if $(STATE),--state=$(STATE)) $(if $(PORT),--port=$(PORT)) \
  $(if $(CONTROLLER_PORT),--controller-port=$(CONTROLLER_PORT)) \
  $(if $(IMAGE_STORE_PORT),--image-store-port=$(IMAGE_STORE_PORT)) \
  $(if $(OTLP_ENDPOINT),--otlp-endpoint=$(OTLP_ENDPOINT)) $(if $(STOP_GRACE),--stop-grace=$(STOP_GRACE)) \
  $(if $(ACCELERATOR),--accelerator=$(ACCELERATOR)) \
  $(if $(DEFAULT_NETWORK),--default-network=$(DEFAULT_NETWORK)) \
  $(if $(BRIDGE),--bridge=$(BRIDGE)) $(if $(BRIDGE_SUBNET),--bridge-subnet=$(BRIDGE_SUBNET))

.PHONY: help setup test-setup demo up down status logs clean guest guest-debian doctor \
  fmt lint types unit integration chaos chaos-real compose-test base-images wheels protos protos-check test test-full bench lock

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' Makefile

setup: ## Install what is missing (Debian packages as root, Python environment)
	@tools/setup

test-setup: ## And what only the tests need (PostgreSQL, Packer)
	@tools/setup --tests

demo: setup ## The whole main job in a directory of its own: stack up, guest built, VM launched, used, removed
	@guest=$$(packer/guests/tiny/build | tee >(cat >&2) | tail -n 1) && export PYTHONPATH=tools && \
	  exec $(BIN)/python -m qcstack demo --guest="$$guest" $(OPTIONS)

up: setup ## Start the stack in the background and wait until it is ready
	@$(STACK) up $(OPTIONS)

down: ## Stop the stack: guests are powered down; images, disks and databases stay
	@$(STACK) down $(OPTIONS)

status: ## Show the services of the running stack
	@$(STACK) status $(OPTIONS)

logs: ## Follow the services' logs
	@$(STACK) logs $(OPTIONS)

clean: ## Stop the stack and remove its state: images, disks, databases
	@$(STACK) clean $(OPTIONS)

doctor: ## Tell what is wrong with this host and what to do about it
	@$(STACK) doctor $(OPTIONS)

base-images: ## Pull the containers' base image, or make it from Debian packages (REFRESH=1: anew)
	@tools/base-images $(if $(REFRESH),--refresh)

guest: setup ## Build the small guest image and print its path
	@packer/guests/tiny/build | tail -n 1

guest-debian: setup ## Build the full Debian 12 guest image and print its path
	@packer/guests/debian/build | tail -n 1

fmt: ## Format the code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

lint: ## Check format, lint, import contracts and shell scripts
	@$(BIN)/ruff format --check . && $(BIN)/ruff check .
	@$(BIN)/lint-imports --config .importlinter --no-cache
	@tools/check-text

types: ## Check types (mypy strict), each package by itself
	@for package in $(PACKAGES); do \
	  echo "types: $$package"; (cd $$package && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml src tests); done
	@cd tools && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml qcstack qcengine tests
	@cd packer/guests && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml .
	@cd tests/integration && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml . ../conftest.py
	@cd tests/compose && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml .
	@cd tests/chaos && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml .

protos: ## Generate the Python code of the protos
	@protos/generate

protos-check: ## Lint the protos, refuse breaking changes and drift of the generated code
	@tools/check-protos

wheels: ## Build every service and library as a wheel of its own, into dist/
	@rm -rf dist && for package in protos $(PACKAGES); do \
	  $(BIN)/pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation -w dist ./$$package; done && ls dist

unit: ## Unit tests: no network, no QEMU; two packages at a time
	@printf '%s\n' services/controller/tests $(addsuffix /tests,$(filter-out services/controller,$(PACKAGES)) tools packer/guests) | \
	  xargs -P 2 -I {} sh -c 'echo "unit: {}"; $(PYTEST) {} -m "not netns and not real and not minio and not postgres and not full"'

integration: ## The whole stack through its public APIs, with real QEMU, MinIO and PostgreSQL
	@tools/minio >/dev/null || [ -z "$$CI" ]
	@$(PYTEST) services/*/tests -m "(netns or real or minio or postgres) and not full"
	@$(PYTEST) packer/tests packer/guests/tiny tests/integration -m "not full"
	@$(PYTEST) tests/chaos -m "not full"

chaos: setup ## The kill matrix on the fake runner: N=10000 cells of SEED=…, with a report
	@PYTHONPATH=tests/chaos $(BIN)/python -m killmatrix --cells=$(or $(N),10000) \
	  $(if $(SEED),--seed=$(SEED)) --report=.cache/chaos-report.md

chaos-real: setup ## Cells of the kill matrix with real QEMU: N=20 of them drawn by SEED=…
	@QC_CHAOS_CELLS=$(or $(N),20) QC_CHAOS_SEED=$(or $(SEED),5) $(PYTEST) tests/chaos/test_real_cells.py -m "not full"

compose-test: ## The stack in containers, where a Docker engine answers (CI gets one)
	@tools/compose-test

test: test-setup lint types protos-check wheels unit integration compose-test ## Everything that CI runs

test-full: test ## And the long suites whole
	@$(PYTEST) services/*/tests tests/integration tests/chaos -m full
	@QC_DATABASE=postgresql $(PYTEST) $(addprefix tests/integration/test_,$(ON_POSTGRESQL:=.py)) -m "not full"
	@MARKS=full tools/compose-test
	@$(PYTEST) packer/guests/debian packer/tests

bench: setup ## Benchmarks that print ratios
	@for module in $(BENCHES); do PYTHONPATH=tools $(BIN)/python bench/$$module.py; done

lock: ## Compile the lock files anew from requirements/*.in and the services' pyproject.toml
	@tools/lock
