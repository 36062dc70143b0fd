# Everything that a person or CI runs. `make` alone says what there is.
#
# Needs a Rust toolchain, Python 3.11 or later and make; the rest it installs, inside this folder.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
TOOLS := target/tools
export PATH := $(CURDIR)/$(VENV)/bin:$(CURDIR)/$(TOOLS)/bin:$(PATH)
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Extra arguments of the programs, as in `make demo DEMO_ARGS="--photos ~/photos"`.
DEMO_ARGS ?=
BENCH_ARGS ?=
FUZZ_SECONDS ?= 300
COMPARE_ARGS ?=
CONFORMANCE_ARGS ?=
# Not empty: fewer cases and shorter turns.
QUICK ?=

COMPARE_VENV := .venv-compare

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

# --- What people start from ---------------------------------------------------------------------------------------------

.PHONY: demo
demo: ## The main job: seven tiers of processes pass photographs by value and by reference
	cargo run --locked --release -p img-transcode -- $(DEMO_ARGS)

.PHONY: bench
bench: ## Every layer against the bare machine, as one table; figures also in out/bench.json
	@mkdir -p out
	cargo run --locked --release -p dmrpc-bench --features peers -- --json out/bench.json $(BENCH_ARGS)

.PHONY: compare
compare: $(COMPARE_VENV)/ready ## Side by side with Ray, Spark and gRPC; QUICK=1 takes minutes. The report goes to compare/report
	cargo build --locked --release $(COMPARED)
	VIRTUAL_ENV=$(CURDIR)/$(COMPARE_VENV) $(COMPARE_VENV)/bin/maturin develop --locked --release --quiet --manifest-path pydmrpc/Cargo.toml
	@# What went wrong is in the report, too.
	status=0; $(COMPARE_VENV)/bin/python compare/run.py $(if $(QUICK),--quick) $(COMPARE_ARGS) || status=$$?; \
		$(COMPARE_VENV)/bin/python compare/report.py; exit $$status

# The programs that are compared, and what some of them have for that alone.
COMPARE_FEATURES := --features img-transcode/compare,social-network/compare,social-network/redis
COMPARED := -p dmrpc-compare -p img-transcode -p offload -p social-network $(COMPARE_FEATURES)
# All that there is in Rust.
EVERYTHING := --workspace $(COMPARE_FEATURES)

# Ray in an environment of its own, beside which the Python package is compared.
RAY_VENV := .venv-ray

.PHONY: conformance
conformance: python $(RAY_VENV)/ready ## Small programs on Ray and on the Python package, side by side: docs/ray-conformance.md
	cd compare/ray && python -m conformance table --ray-python $(CURDIR)/$(RAY_VENV)/bin/python \
		--output $(CURDIR)/docs/ray-conformance.md $(CONFORMANCE_ARGS)

.PHONY: record-ray
record-ray: $(RAY_VENV)/ready ## Records how the same programs end on Ray, for the tests, which run without it
	cd compare/ray && $(CURDIR)/$(RAY_VENV)/bin/python -m conformance record $(CONFORMANCE_ARGS)

.PHONY: compare-ray
compare-ray: $(RAY_VENV)/ready $(VENV)/ready ## Ray's microbenchmark on Ray and on the Python package, in turns: docs/ray-speed.md
	@mkdir -p out
	maturin develop --locked --quiet --release --manifest-path pydmrpc/Cargo.toml
	python compare/ray/microbenchmark.py --ray-python $(RAY_VENV)/bin/python \
		--json out/ray-speed.json --markdown docs/ray-speed.md $(COMPARE_ARGS)

.PHONY: python
python: $(VENV)/ready ## The Python package, built and installed into .venv
	maturin develop --locked --quiet --manifest-path pydmrpc/Cargo.toml

# --- Tests --------------------------------------------------------------------------------------------------------------

.PHONY: test
test: test-rust test-loom test-fuzz test-python compare-smoke test-rdma test-dpdk ## Every test

.PHONY: test-rust
test-rust: $(VENV)/ready ## Unit, property, simulation, conformance and process tests, and the examples in the documentation
	@if cargo nextest --version >/dev/null 2>&1; then \
		set -x; tests/with-huge-pages 40 cargo nextest run --locked $(EVERYTHING); \
	else \
		set -x; tests/with-huge-pages 40 cargo test --locked $(EVERYTHING) --lib --bins --tests; \
	fi
	cargo test --locked $(EVERYTHING) --doc

.PHONY: test-loom
test-loom: ## Every interleaving of rings and doorbell
	RUSTFLAGS="--cfg loom" cargo test --locked --release -p dmrpc-fabric --lib --target-dir target/loom loom

.PHONY: test-fuzz
test-fuzz: ## A short run of each fuzz target
	fuzz/run 2

.PHONY: test-python
test-python: python ## The Python package against a real memory node
	python -m pytest pydmrpc

.PHONY: test-rdma
test-rdma: python ## What needs an RDMA device, in an emulated guest that has one
	tests/rdma/run

.PHONY: test-rdma-two
test-rdma-two: ## A memory node and its client in two such guests; takes longer than a change should wait for
	tests/rdma/two

.PHONY: bench-rdma
bench-rdma: ## Messages, reads and writes over RDMA beside perftest, in such a guest
	tests/rdma/figures

.PHONY: test-dpdk
test-dpdk: ## What needs DPDK, over its drivers that need no card
	tests/dpdk/run

.PHONY: compare-smoke
compare-smoke: python ## One short turn of every comparison that needs no other system: answers, not times
	python -m pip install --quiet -r requirements/compare.txt
	@# With the tests, since what they have built need not be built again then.
	cargo build --locked $(EVERYTHING) --bins --tests
	python compare/run.py --smoke --systems dmrpc,pydmrpc,grpc,memcpy,socket,flight,iperf3 --binaries target/debug --json out/compare/results.json
	python compare/report.py out/compare/results.json

.PHONY: fuzz
fuzz: ## A long run of each fuzz target: FUZZ_SECONDS each
	fuzz/run $(FUZZ_SECONDS)

.PHONY: miri
miri: ## What has no system calls, under Miri; needs a nightly toolchain with that component
	@if ! cargo +nightly miri --version >/dev/null 2>&1; then \
		echo "miri: no nightly toolchain with the miri component here: rustup toolchain install nightly -c miri,rust-src" >&2; \
		exit 1; \
	fi
	cargo +nightly miri test --target-dir target/miri -p dmrpc-pages -p dmrpc-wire

# --- Checks -------------------------------------------------------------------------------------------------------------

.PHONY: check
check: format clippy docs deny test ## What CI asks of a change: formatting, lints, documentation, licences, tests

.PHONY: format
format:
	cargo fmt --all --check

.PHONY: clippy
# PyO3 asks the interpreter what it is, which is that of .venv.
clippy: $(VENV)/ready
	cargo clippy --locked $(EVERYTHING) --all-targets -- -D warnings

.PHONY: docs
docs: $(VENV)/ready
	RUSTDOCFLAGS="-D warnings" cargo doc --locked $(EVERYTHING) --no-deps --document-private-items

# The database of advisories is fetched anew where it can be reached; elsewhere the rest is checked all the same.
.PHONY: deny
deny: $(VENV)/ready
	@command -v cargo-deny >/dev/null || { set -x; cargo install --locked --quiet --root $(TOOLS) cargo-deny; }
	cargo deny --locked check --hide-inclusion-graph licenses bans sources
	@if cargo deny --locked fetch db >target/advisory-fetch.log 2>&1; then \
		set -x; cargo deny --locked check --disable-fetch advisories; \
	else \
		echo "deny: the advisory database can't be reached from here: advisories NOT checked (target/advisory-fetch.log)"; \
	fi

# --- Set-up -------------------------------------------------------------------------------------------------------------

$(RAY_VENV)/ready: compare/ray/requirements.txt
	$(PYTHON) -m venv $(RAY_VENV) >/dev/null
	$(RAY_VENV)/bin/python -m pip install --quiet -r compare/ray/requirements.txt
	@touch $@

# Cargo's helpers are optional here: whoever needs one has another way.
$(VENV)/ready: requirements/python.txt requirements/tools.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11: say which one to use with make PYTHON=..." >&2; exit 1; }
	@# Debian leaves ensurepip to python3-venv; a pip that is there already will do instead.
	@$(PYTHON) -m venv $(VENV) >/dev/null || { $(PYTHON) -m venv --without-pip $(VENV) && \
		$(PYTHON) -m pip --python $(VENV)/bin/python install --quiet pip; } || \
		{ echo "setup: this Python has neither ensurepip nor pip: install python3-venv" >&2; exit 1; }
	$(VENV)/bin/python -m pip install --quiet -r requirements/python.txt
	$(VENV)/bin/python -m pip install --quiet --only-binary :all: -r requirements/tools.txt || \
		echo "setup: no wheels of cargo's helpers for this machine"
	@touch $@

$(COMPARE_VENV)/ready: requirements/python.txt requirements/compare.txt requirements/peers.txt
	@$(PYTHON) -m venv $(COMPARE_VENV) >/dev/null || { $(PYTHON) -m venv --without-pip $(COMPARE_VENV) && \
		$(PYTHON) -m pip --python $(COMPARE_VENV)/bin/python install --quiet pip; }
	$(COMPARE_VENV)/bin/python -m pip install --quiet -r requirements/python.txt -r requirements/compare.txt
	@# A peer that can't be had here is left out of the comparison, which says so.
	@while read -r peer; do \
		case "$$peer" in "#"*|"") continue;; esac; \
		$(COMPARE_VENV)/bin/python -m pip install --quiet "$$peer" || echo "compare: $$peer can't be installed here" >&2; \
	done <requirements/peers.txt
	@touch $@

.PHONY: clean
clean: ## Removes all that was built, installed or written here
	rm -rf target $(VENV) $(COMPARE_VENV) $(RAY_VENV) out compare/report
