# Every task, under the name that CI uses. Nothing has to be installed by hand: `.venv` holds the
# Python tools, cargo builds the rest.

SHELL := bash
VENV := .venv/bin
PYTHON ?= python3
CARGO_FLAGS := --release
PROGRAMS := --bin envelope --bin envelope-service
# What tests compile beside what a demo needs: jobs on clusters.
TESTED := --features cli/cluster
# Other packages together would be other features of what they share, and DataFusion compiled once more.
CRATES := $(addprefix -p ,envelope-format registry runtime server batch cli acceptance)

.PHONY: help demo build package test rust-tests python-tests models clients airflow-test page-test otlp-test lint format docs bench chaos batch-chaos overload swaps bundle-test cluster-test s3-test cluster-chaos placements soak fuzz clean

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

demo: build package ## Train, save, call, serve and map a model; shows every step
	$(VENV)/python examples/demo.py

build: ## The program `envelope` and the service stub, in target/release
	cargo build $(CARGO_FLAGS) $(FEATURES) $(PROGRAMS)

package: $(VENV)/.demo-tools ## The Python package, in .venv
	cd python && VIRTUAL_ENV=$(CURDIR)/.venv PATH="$(CURDIR)/$(VENV):$$PATH" ../$(VENV)/maturin develop --release --quiet

$(VENV)/.demo-tools: requirements/demo.txt
	test -x $(VENV)/python || $(PYTHON) -m venv .venv
	$(VENV)/python -m pip install --quiet --disable-pip-version-check uv
	$(VENV)/uv pip install --quiet --python $(VENV)/python -r requirements/demo.txt
	touch $@

$(VENV)/.test-tools: requirements/test.txt $(VENV)/.demo-tools
	$(VENV)/uv pip install --quiet --python $(VENV)/python -r requirements/test.txt
	touch $@

test rust-tests python-tests: FEATURES := $(TESTED)
test: build package $(VENV)/.test-tools target/tools/moto ## All tests, Rust and Python; prints how many there were
	$(VENV)/python tests/run_all.py

rust-tests: build package $(VENV)/.test-tools ## The Rust tests alone
	$(VENV)/python tests/run_all.py rust

python-tests: build package $(VENV)/.test-tools ## The Python tests alone
	$(VENV)/python tests/run_all.py python

models: build package $(VENV)/.models-tools ## Twelve kinds of models, online and over 100,000 rows each; eleven services that look the same
	cd python && MODELS_ROWS=100000 ../$(VENV)/pytest -q -rs tests/test_models.py
	FRAMEWORKS=11 cargo test $(CARGO_FLAGS) -p server --test load -- --nocapture frameworks

$(VENV)/.models-tools: requirements/models.txt $(VENV)/.test-tools
	$(VENV)/uv pip install --quiet --python $(VENV)/python -r requirements/models.txt
	touch $@

clients: build package $(VENV)/.demo-tools ## The real clients of every protocol, unmodified, each in its own environment
	$(VENV)/python tests/clients/run.py

airflow-test: build package $(VENV)/.test-tools ## The operator in a real Airflow: killed tasks and triggerers, cleared runs, schedules
	$(VENV)/python airflow/tests/run.py

page-test: build package $(VENV)/.demo-tools ## The page of a service in a real Chromium, with no network but loopback
	$(VENV)/python tests/clients/run.py page

otlp-test: ## Spans of calls, as a collector of OpenTelemetry gets them
	PYO3_NO_PYTHON=1 cargo test $(CARGO_FLAGS) -p server --features otlp --lib --test otlp

lint: $(VENV)/.test-tools ## Format, clippy, rustdoc, ruff, types
	cargo fmt --all --check
	PYO3_NO_PYTHON=1 cargo clippy $(CARGO_FLAGS) --workspace $(TESTED) --all-targets --quiet -- -D warnings
	PYO3_NO_PYTHON=1 cargo clippy $(CARGO_FLAGS) -p server --features otlp --all-targets --quiet -- -D warnings
	PYO3_NO_PYTHON=1 RUSTDOCFLAGS="-D warnings" cargo doc $(CARGO_FLAGS) --workspace $(TESTED) --no-deps --document-private-items --quiet
	$(VENV)/ruff check python runtime/worker/src/python examples tests benches airflow
	$(VENV)/ruff format --check python runtime/worker/src/python examples tests benches airflow
	cd python && ../$(VENV)/mypy

format: $(VENV)/.test-tools ## Rewrites the sources in the house style
	cargo fmt --all
	$(VENV)/ruff check --fix-only --quiet python runtime/worker/src/python examples tests benches airflow
	$(VENV)/ruff format --quiet python runtime/worker/src/python examples tests benches airflow

docs: ## The API documentation, in target/doc
	PYO3_NO_PYTHON=1 cargo doc $(CARGO_FLAGS) --workspace --no-deps

bench: build package $(VENV)/.bench-tools ## Speed against peers: ratios in one run; ONLY="online batch" PEERS="fastapi" ENGINES="polars" JSON=FILE
	cargo build $(CARGO_FLAGS) --quiet -p server --example load --example hello
	cargo build $(CARGO_FLAGS) --quiet -p runtime --example runtime_figures
	$(VENV)/python benches/bench.py --only "$(ONLY)" --models "$(MODELS)" --peers "$(PEERS)" --maps "$(MAPS)" --engines "$(ENGINES)" --json "$(JSON)"

$(VENV)/.bench-tools: requirements/bench.txt $(VENV)/.demo-tools
	$(VENV)/uv pip install --quiet --python $(VENV)/python -r requirements/bench.txt
	touch $@

chaos: package $(VENV)/.test-tools ## A million calls while workers end in all ways; of clients that leave; poison, stalls, attacks
	KILLS=500 cargo test $(CARGO_FLAGS) -p acceptance --test runtime -- --nocapture kills_under_load
	CHAOS_CALLS=1000000 cargo test $(CARGO_FLAGS) -p acceptance --test faults -- --nocapture mixed_deaths
	CHAOS_REQUESTS=1000000 ATTACK_SECONDS=60 POISON_REQUESTS=100000 POISON_HANGS=10 cargo test $(CARGO_FLAGS) -p server --test load -- --nocapture --test-threads 1 chaos poison stall memory

batch-chaos: package $(VENV)/.test-tools ## JOBS (130) jobs whose drivers and workers are killed, then run until they are done
	CHAOS_JOBS=$(or $(JOBS),130) cargo test $(CARGO_FLAGS) $(CRATES) $(TESTED) --test chaos -- --nocapture

overload: package $(VENV)/.test-tools ## From 10 % to 300 % of what a service can answer, over an open loop
	cargo bench --profile release -p server --bench overload

swaps: package $(VENV)/.test-tools ## A thousand swaps to kept workers and back, and some to new ones, under load
	SWAPS=$(or $(SWAPS),1000) cargo test $(CARGO_FLAGS) -p server --test load -- --nocapture swaps
	SWAPS=$(or $(SWAPS),1000) cargo test $(CARGO_FLAGS) -p server --test swap -- --nocapture no_call_fails

bundle-test: build package $(VENV)/.test-tools ## A real model in one executable, in a root without Python, shell and network
	cargo test $(CARGO_FLAGS) -p server --test bundle -- --include-ignored --nocapture

cluster-test: FEATURES := $(TESTED)
cluster-test: build package $(VENV)/.test-tools ## Jobs on clusters of processes alone; CLUSTER_LONG=1 kills the parts of one at random, CLUSTER_ROWS=10000000
	$(VENV)/pytest -q tests/cluster

cluster-chaos: package $(VENV)/.test-tools ## JOBS (240) jobs on a cluster whose drivers, executors, workers and schedulers are killed
	CLUSTER_CHAOS_JOBS=$(or $(JOBS),240) cargo test $(CARGO_FLAGS) $(CRATES) $(TESTED) --test chaos -- --nocapture jobs_on_a_cluster

placements: FEATURES := $(TESTED)
placements: build package $(VENV)/.bench-tools ## Six kinds of functions over 10,000,000 rows: in one process, on cores, on clusters; the same bits
	cd tests/cluster && PLACEMENTS_ROWS=$(ROWS) ../../$(VENV)/python placements.py

s3-test: FEATURES := $(TESTED)
s3-test: build package target/tools/moto target/tools/bin/s3s-fs ## Tables in buckets of two servers that speak S3: functions, races, faults
	$(VENV)/pytest -q -rs tests/s3

target/tools/moto: $(VENV)/.test-tools
	$(VENV)/uv venv --quiet --clear $@
	$(VENV)/uv pip install --quiet --python $@/bin/python 'moto[server]==5.2.5'

target/tools/bin/s3s-fs:
	cargo install --quiet --root target/tools --locked s3s-fs --version 0.14.1 --features binary

soak: package $(VENV)/.test-tools ## Leaking workers for SECONDS (3600): memory keeps its ceiling
	SOAK_SECONDS=$(or $(SECONDS),3600) cargo test $(CARGO_FLAGS) -p acceptance --test faults -- --nocapture ceiling

fuzz: ## Fuzzes the format for SECONDS_EACH (60) each way; then a million mutated envelopes against a second reader
	envelope-format/fuzz/run.sh $(or $(SECONDS_EACH),60)
	MUTATIONS=1000000 cargo test $(CARGO_FLAGS) -p envelope-format --test mutations -- --nocapture

clean: ## Removes what was built
	rm -rf target .venv demo-out
