# The front door. `make demo` and `make test` set up what they need.
.DEFAULT_GOAL := help
CARGO ?= cargo
export CARGO_TARGET_DIR ?= $(CURDIR)/target
KOBZA := $(CARGO_TARGET_DIR)/release/kobza

.PHONY: help demo demo-stop build ui test test-rust test-python test-ui test-luigi test-airflow test-argo test-soak lint bench bench-docs soak fuzz clean

help:
	@echo "make demo    build, start a server in the background, load 14 days of real data with it"
	@echo "             WAREHOUSE=postgres://... takes PostgreSQL as source and warehouse"
	@echo "make demo-stop   end what make demo started"
	@echo "make test    install what the tests need, and pass them all"
	@echo "make build   the release binary, at target/release/kobza"
	@echo "make ui      the user interface, to be built into the binary"
	@echo "make bench   measure beside the peers, and print a table (BENCH=quick|full ROWS=...)"
	@echo "make soak    injure a running system for minutes or hours, and audit it"
	@echo "make fuzz    feed each parser with what libFuzzer makes up"
	@echo "make lint    rustfmt and clippy"

ui: ui/dist/index.html

ui/dist/index.html: $(shell find ui/src -type f 2>/dev/null) ui/package-lock.json
	cd ui && npm ci --no-audit --no-fund --loglevel=error && npm run build

build: ui
	$(CARGO) build --release -p kobza

demo: build
	@WAREHOUSE="$(WAREHOUSE)" python3 examples/nightly-etl/demo.py start $(KOBZA)

demo-stop:
	@python3 examples/nightly-etl/demo.py stop

test: test-rust test-python test-ui test-luigi test-airflow test-argo test-soak
	@echo "all tests passed"

test-rust:
	bash tests/rust

test-python:
	bash tests/python

test-ui:
	bash tests/ui

test-argo:
	bash tests/argo

test-luigi:
	bash tests/luigi

test-airflow:
	bash tests/airflow

# A short soak, on what the other tests have built and installed.
test-soak:
	SOAK_SECONDS=12 SOAK_PAUSE=0.5 SOAK_KINDS="python argo luigi" bash tests/soak

# SOAK_SECONDS or SOAK_HOURS of injury for each store, SOAK_SEED=... to repeat: see soak/run.py.
soak:
	bash tests/soak

# FUZZ_SECONDS for each parser (60), FUZZ_TARGETS="cron rrule": see tests/fuzz. Needs a nightly compiler.
fuzz:
	bash tests/fuzz

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

# BENCH=quick (if absent) or full; ROWS="chain airflow ..." chooses, see bench/run.py.
bench:
	$(CARGO) build --release -p kobza -p kobza-bench
	BENCH="$(BENCH)" ROWS="$(ROWS)" python3 bench/run.py $(KOBZA)

# What make bench measured, as the chart and the table of the documentation.
bench-docs:
	python3 bench/chart.py

clean:
	$(CARGO) clean
	rm -rf ui/dist ui/node_modules demo
