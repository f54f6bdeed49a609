# The README's `make demo` and `make test`, and targets for those who change things. Each first installs what a
# fresh Debian machine lacks (tests/setup.sh), or says what is missing where it cannot.

.PHONY: demo test check bench bench-micro
.NOTPARALLEL:

PORT ?= 0
# A Rust that setup.sh has just installed is not on the PATH of this shell yet.
export PATH := $(HOME)/.cargo/bin:$(PATH)

## Two push nodes, the edge before them, a page to look at: make demo [PORT=8080]
demo:
	@tests/setup.sh build
	cargo build --release --bin pushgate
	@exec target/release/pushgate demo --port $(PORT)

## Everything a change must pass, and the totals
test:
	@tests/setup.sh test
	@tests/all.sh

## What needs seconds rather than minutes: does it compile, is it laid out and linted
check:
	@tests/setup.sh build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

## Beside HAProxy, nginx and Envoy, some 40 minutes: make bench [BENCH="--quick"]; benches/README.md has the last run
bench:
	@tests/setup.sh bench
	cargo build --release --bin pushgate
	cargo build --release --manifest-path benches/Cargo.toml --target-dir target --bin load
	python3 benches/run.py $(BENCH)

## What one decision costs, without sockets
bench-micro:
	@tests/setup.sh build
	cargo bench --manifest-path benches/Cargo.toml --target-dir target
