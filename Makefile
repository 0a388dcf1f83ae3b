# The front door. `make demo` and `make test` set up what they need.
.DEFAULT_GOAL := help
CARGO ?= cargo
export CARGO_TARGET_DIR ?= $(CURDIR)/target
KOBZA := $(CARGO_TARGET_DIR)/release/kobza

.PHONY: help demo demo-stop build ui test test-rust test-python test-ui test-luigi test-airflow test-argo lint bench soak clean

help:
	@echo "make demo    build, start a server in the background, load 14 days of real data with it"
	@echo "             WAREHOUSE=postgres://... takes PostgreSQL as source and warehouse"
	@echo "make demo-stop   end what make demo started"
	@echo "make test    install what the tests need, and pass them all"
	@echo "make build   the release binary, at target/release/kobza"
	@echo "make ui      the user interface, to be built into the binary"
	@echo "make bench   measure, and print a table"
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

test: test-rust test-python test-ui test-luigi test-airflow test-argo
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

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

bench:
	$(CARGO) build --release -p kobza -p kobza-bench
	$(CARGO_TARGET_DIR)/release/kobza-bench
	LUIGID="$$(bash -c '. tests/venv; venv luigi luigi==3.8.1 requests pytest==9.2.0')/bin/luigid" \
		python3 bench/run.py $(KOBZA) $(ROWS)

clean:
	$(CARGO) clean
	rm -rf ui/dist ui/node_modules demo
