# The commands of the README, and those for contributors; `make help` lists them. A target that builds
# first installs what a fresh Debian machine lacks (tests/setup.sh). If it cannot, it names what is
# missing. A line that begins with `##` is the help of the target below it.

.PHONY: demo test check coverage loom fuzz bench bench-micro hooks help
.NOTPARALLEL:

PORT ?= 0
SECONDS ?= 20
# A Rust that setup.sh has just installed is not on the PATH of this shell yet.
export PATH := $(HOME)/.cargo/bin:$(PATH)

## Run two push nodes, the edge in front of them and a demo page (PORT=8080); the default target
demo:
	@tests/setup.sh build
	cargo build --release --bin pushgate
	@exec target/release/pushgate demo --port $(PORT)

## Run everything that a change must pass, and print the totals
test:
	@tests/setup.sh test
	@tests/all.sh

## Check layout, compilation and lints: seconds rather than minutes
check:
	@tests/setup.sh build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

# It needs `rustup component add llvm-tools`, or LLVM_TOOLS: a folder with llvm-cov and llvm-profdata as
# new as rustc's LLVM.
## Measure which lines the unit tests run, by folder (COVERAGE="--workspace" runs all tests)
coverage:
	@tests/setup.sh build
	@tests/coverage.sh $(COVERAGE)

## Run the lock-free parts in every order that threads may run in (tests/loom)
loom:
	@tests/setup.sh build
	cargo run --release --manifest-path tests/loom/Cargo.toml --target-dir target

## Feed made-up input to every reader of foreign bytes (SECONDS=20 each, TARGET=name); see fuzz/README.md
fuzz:
	@tests/setup.sh fuzz
	@fuzz/run.sh $(SECONDS) $(TARGET)

## Measure beside HAProxy, nginx and Envoy, some 40 minutes (BENCH="--quick"); see benches/README.md
bench:
	@tests/setup.sh bench
	cargo build --release --bin pushgate
	cargo build --release --manifest-path benches/Cargo.toml --target-dir target --bin load
	python3 benches/run.py $(BENCH)

## Time single decisions, without sockets
bench-micro:
	@tests/setup.sh build
	cargo bench --manifest-path benches/Cargo.toml --target-dir target

## Install the git hooks of .githooks: layout and length of staged files before each commit
hooks:
	git config core.hooksPath .githooks

## Print this list
help:
	@awk '/^## / { help = substr($$0, 4); next } \
		/^[a-z-]+:/ && help { sub(/:.*/, ""); printf "%-12s %s\n", $$0, help } \
		{ help = "" }' Makefile
