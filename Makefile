# Atelier. `make` lists the targets; what each needs it installs, or names the one command that does.

SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON  ?= python3
MODEL   ?= node/diffusion/toy/model
PROMPT  ?= a cat on a blue background
SEED    ?= 7
GOLDEN  ?= node/diffusion/tests/golden
OUT     ?= target/parity
RIG     ?= core
SEEDS   ?= 200
CUTS    ?= 20
KILLS   ?= 50
CANCELS ?= 1000
ROUNDS  ?= 200
JOBS    ?= 1000000

# Handed over by the environment, so that the shell never reads a prompt.
export MODEL PROMPT SEED
BIN = $(or $(CARGO_TARGET_DIR),target)/release

# With a CUDA driver the engine is built for it; without one that build would cost minutes for nothing.
CUDA := $(if $(shell ldconfig -p 2>/dev/null | grep -F libcuda.so.1),--features atelier-node/cuda)

# The page is built where Node is; a program without it has a plain one, which still draws.
PAGE := $(if $(shell command -v npm 2>/dev/null),node/ui/dist/index.html)
BUILD = cargo build --release --locked -p atelier-node -p atelier-client $(CUDA)

# What `make upgrade` upgrades from.
PREVIOUS ?= HEAD~1

.PHONY: help tools demo page page-test test check simulate reproduce mutants coverage parity bench bench-failover bench-clean acceptance verify fix train power-cut resume soak bench-engine bench-queue storage upgrade bench-storage bench-endurance

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

tools: ## Name what a build needs and this machine lacks.
	@command -v cc >/dev/null || { echo "a C linker is missing; run: apt-get install -y build-essential" >&2; exit 1; }
	@command -v cargo >/dev/null || { echo "cargo is missing; install Rust 1.95 or newer from your distribution or rustup" >&2; exit 1; }

demo: tools $(PAGE) ## Build, start three peers, draw a picture: make demo PROMPT="a dog on a red background" SEED=7
	@echo "building (the first time takes minutes, later ones seconds) $(if $(CUDA),with CUDA,for the CPU)"
	@$(BUILD)
	@"$(BIN)/atelier" demo --model "$$MODEL" --prompt "$$PROMPT" --seed "$$SEED" --directory demo

page: $(PAGE) ## Build the web page, where npm is here.
	@[ -n "$(PAGE)" ] || echo "npm is not here: programs are built with the plain page; apt-get install -y nodejs npm"

node/ui/dist/index.html: node/ui/package-lock.json node/ui/index.html node/ui/vite.config.ts $(shell find node/ui/src -type f 2>/dev/null)
	@echo "building the page"
	@(cd node/ui && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && npm run --silent build) \
		|| echo "the page could not be built, so the program gets the plain one; node/ui/README.md has what it needs" >&2

page-test: tools ## Unit tests of the page, and a browser at three peers: make page-test, or ALL=1 for every test
	@.ci/page unit
	@$(BUILD)
	@.ci/page e2e $(if $(ALL),all)

test: tools ## Everything that CI runs: formatting, lints, all tests.
	@.ci/test

check: tools ## Type-check the cluster, without burn.
	@cargo check --locked

simulate: tools ## Random worlds: make simulate SEEDS=1000, RIG=cluster SEEDS=100, RIG=cluster MINUTES=60, RIG=wire SEEDS=20, RIG=process SEEDS=5
	@[ "$(RIG)" != process ] || cargo build --release --locked -q -p atelier-node
	@cargo run --release --locked -q -p atelier-simulation -- run --rig "$(RIG)" --seeds "$(SEEDS)" $(if $(MINUTES),--minutes "$(MINUTES)")

reproduce: tools ## One world again, step by step: make reproduce SEED=7
	@[ "$(RIG)" != process ] || cargo build --release --locked -q -p atelier-node
	@cargo run --release --locked -q -p atelier-simulation -- reproduce --rig "$(RIG)" --seed "$(SEED)"

mutants: tools ## Plant bugs in the product, one at a time; each must be found: make mutants ONLY=lost-wakeup
	@cargo run --release --locked -q -p atelier-simulation --features mutants -- mutants $(ONLY:%=--only %)

coverage: tools ## Which faults and paths the seeds reach: make coverage RIG=cluster SEEDS=100
	@cargo run --release --locked -q -p atelier-simulation -- coverage --rig "$(RIG)" --seeds "$(SEEDS)"

power-cut: tools ## Cut the power of three peers' disks again and again, as root: make power-cut CUTS=20
	@POWER_CUTS="$(CUTS)" cargo test --release --locked -p atelier-node --test power_cut -- --nocapture

resume: tools ## Kill workers at random steps; every picture must be the same: make resume KILLS=50
	@KILLS="$(KILLS)" cargo test --release --locked -p atelier-node --test resume -- --nocapture

soak: tools ## Cancel jobs at random moments and measure what is left: make soak CANCELS=1000
	@CANCELS="$(CANCELS)" cargo test --release --locked -p atelier-node --test cancel -- --nocapture

storage: tools ## Kill and damage one store again and again: make storage ROUNDS=200
	@ATELIER_TEST_ROUNDS="$(ROUNDS)" cargo test --release --locked -p atelier-peer --test raft -- --nocapture --test-threads 1 kill:: power:: damage::

parity: tools ## Compare the model with golden tensors: make parity GOLDEN=DIR OUT=DIR
	@cargo run --release --locked -q -p atelier-diffusion --bin parity -- "$(GOLDEN)" "$(OUT)"

acceptance: tools ## Draw 100 fixed prompts with the bundled model and judge them.
	@cargo test --release --locked -p atelier-diffusion --test acceptance -- --nocapture

upgrade: tools ## Run the previous commit's daemon beside today's, under load: make upgrade PREVIOUS=HEAD~1
	@git worktree remove --force target/previous 2>/dev/null; git worktree prune
	@git worktree add --detach target/previous "$(PREVIOUS)"
	@cd target/previous && CARGO_TARGET_DIR=../previous-build cargo build --release --locked -p atelier-node
	@git worktree remove --force target/previous
	@PREVIOUS_DAEMON=$(CURDIR)/target/previous-build/release/atelierd cargo test --release --locked -p atelier-node --test upgrade -- --nocapture

bench: tools ## Measure; writes node/BENCH.md beside the machine's own limits.
	@$(BUILD)
	@ONLY="$(ONLY)" cargo bench --locked -p atelier-node --bench cluster
	@[ -n "$(ONLY)" ] || $(MAKE) --no-print-directory bench-failover

bench-failover: tools ## Lose the leader 60 times in three ways: make bench-failover RUNS=20
	@$(BUILD)
	@cargo bench --locked -p atelier-node --bench failover

bench-engine: tools ## Each stage beside PyTorch, and the profile: make bench-engine PYTHON=python3
	@PYTHON="$(PYTHON)" cargo bench --locked -p atelier-diffusion --bench engine

bench-queue: tools ## The queue beside etcd, RabbitMQ and NATS; adds its section to node/BENCH.md.
	@cargo bench --locked -p atelier-node --bench queue

bench-endurance: tools ## Hours of load, 100,000 waiting, 1,000,000 kept: make bench-endurance ONLY=half-load MINUTES=10
	@ONLY="$(ONLY)" MINUTES="$(MINUTES)" RATE="$(RATE)" JOBS="$(JOBS)" cargo bench --locked -p atelier-node --bench endurance

bench-storage: tools ## Disk, memory and restart of one peer's store after many jobs: make bench-storage JOBS=1000000
	@JOBS="$(JOBS)" cargo bench --locked -p atelier-peer --bench storage

bench-clean: tools ## Minutes of make demo and make test in a fresh clone.
	@.ci/clean

verify: test ## The gate before a change lands; changes nothing.
	@cargo doc --locked --no-deps -q

fix: ## Format and apply lint suggestions; changes files.
	@cargo fmt
	@cargo clippy --fix --allow-dirty --allow-staged --all-targets

train: ## Train the bundled model again (an hour or two on two cores; see its README for what it needs).
	@cd node/diffusion/toy && python3 train.py
