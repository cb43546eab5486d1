# `make help` lists what there is. Shell scripts in tools/ do the work.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

TOOLS := $(or $(QUORATE_TOOLS_DIR),$(CURDIR)/target/tools)
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
QUORATE := $(TARGET)/debug/quorate

.PHONY: help
help: ## List what there is to make
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the binary target/debug/quorate
	@tools/setup build
	cargo build --locked -p quorate-cli

.PHONY: demo
demo: build ## Build, then show seven scenarios on five trustees; ends 0 only if each ends as told
	$(QUORATE) demo

.PHONY: dev
dev: build ## Build, then run five trustees on this machine until Ctrl-C
	$(QUORATE) dev

.PHONY: cluster
cluster: build ## Start three etcd, PostgreSQL and five nodes on this machine, in the background
	@tools/setup cluster
	tools/cluster up

.PHONY: cluster-down
cluster-down: ## End what `make cluster` started; what it stored stays (tools/cluster wipe)
	tools/cluster down

.PHONY: test
test: ## Run every test of the workspace, and the nodes' on etcd and PostgreSQL too
	@tools/setup test
	cargo test --workspace --locked
	QUORATE_TEST_BOARD=etcd QUORATE_TEST_AUDIT=postgres cargo test --workspace --locked \
		--test decide --test collected --test killed --test restart --test streams --test roles

# How long to hunt: seconds for `make hunt`, minutes for `make soak`; and from which
# seed `make hunt` goes, a fresh one unless this is set.
HUNT_SECONDS ?= 120
HUNT_SEED ?=
SOAK_MINUTES ?= 60

.PHONY: sim
sim: build ## Hunt for faults with the simulator for 20 seconds, from a fresh seed
	$(QUORATE) sim

.PHONY: hunt
hunt: ## The same, optimised, on all cores for 2 minutes (HUNT_SECONDS): what CI runs
	@tools/setup build
	cargo build --locked --profile hunt -p quorate-sim --example hunt
	$(TARGET)/hunt/examples/hunt --seconds $(HUNT_SECONDS) --threads $$(nproc) \
		--seed $(or $(HUNT_SEED),$$(od -An -N5 -tu8 /dev/urandom))

.PHONY: soak
soak: ## The same for an hour (SOAK_MINUTES), past failures; they go to target/sim
	@tools/setup build
	cargo build --locked --release -p quorate-cli
	$(TARGET)/release/quorate sim --minutes $(SOAK_MINUTES) --keep-going

.PHONY: verify
verify: ## Check formatting, lints, docs, proto files, alerts, arrows between crates, that mutants apply, and that all that people can name has a test; writes nothing
	@tools/setup verify
	rustfmt --edition 2024 --check $$(git ls-files "*.rs")
	tools/check-arrows
	tools/check-protos
	tools/check-alerts
	tools/mutants --check-patches
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo build --locked -p quorate-cli
	tools/surface $(QUORATE)
	RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --workspace --locked

.PHONY: fix
fix: ## Mend what can be mended by itself: formatting, simple lints, docs/surface.md
	@tools/setup verify
	$(TOOLS)/bin/buf format -w
	cargo clippy --workspace --all-targets --locked --fix --allow-dirty --allow-staged
	rustfmt --edition 2024 $$(git ls-files "*.rs")
	cargo build --locked -p quorate-cli
	tools/surface --write $(QUORATE)

.PHONY: mutants
mutants: ## Show that the simulator finds every deliberate defect of crates/sim/mutants
	@tools/setup mutants
	tools/mutants

# How long to fuzz each of the five targets, two at a time: seconds.
FUZZ_SECONDS ?= 60

.PHONY: fuzz
fuzz: ## Fuzz decoders, statements, rules, proofs and engines for a minute each (FUZZ_SECONDS)
	@tools/setup fuzz
	tools/fuzz $(FUZZ_SECONDS)

.PHONY: deny
deny: ## Check licences, sources and banned crates of all dependencies (advisories: docs/supply.md)
	@tools/setup deny
	tools/deny

.PHONY: sbom
sbom: ## Write target/quorate.cdx.json, the list of all that is in the binary (CycloneDX)
	@tools/setup sbom
	tools/sbom

.PHONY: release
release: ## Build target/dist/quorate, the same bytes in any directory, and its SHA-256
	@tools/setup build
	tools/release

.PHONY: interop
interop: build ## Drive a dev cluster with the real grpcurl and with a Python client
	@tools/setup interop
	$(TOOLS)/python/bin/python tools/interop/run.py $(QUORATE) $(TOOLS)

.PHONY: trace
trace: build ## Drive four transactions with a real Jaeger beside the nodes, and check their traces
	@tools/setup trace
	python3 tools/trace/run.py $(QUORATE) $(TOOLS)/bin/jaeger $(if $(TRACE_TABLE),--write $(TRACE_TABLE))

.PHONY: scrape
scrape: build ## Let a real Prometheus scrape a dev cluster, and ask it what dashboards and alerts ask
	@tools/setup scrape
	python3 tools/scrape/run.py $(QUORATE) $(TOOLS)

.PHONY: descriptor
descriptor: ## Write target/quorate.binpb, the descriptor set of the API
	@tools/setup verify
	@mkdir -p $(TARGET)
	$(TOOLS)/bin/buf build -o $(TARGET)/quorate.binpb
	@echo "$(TARGET)/quorate.binpb"
