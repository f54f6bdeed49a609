# The commands of the README, and those for contributors; `make help` lists them. A target that builds
# first installs what a fresh Debian machine lacks (tests/setup.sh). If it cannot, it names what is
# missing. A line that begins with `##` is the help of the target below it.

.PHONY: demo build install package deb package-test alerts-test pair-test test check \
	coverage loom fuzz bench bench-micro hooks help
.NOTPARALLEL:

PORT ?= 0
SECONDS ?= 20
# Where `make install` puts the program and all that goes with it; DESTDIR goes before every path.
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
# Debian's own packages use vendor-completions instead.
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
# A Rust that setup.sh has just installed is not on the PATH of this shell yet.
export PATH := $(HOME)/.cargo/bin:$(PATH)

## Run two push nodes, the edge in front of them and a demo page (PORT=8080); the default target
demo:
	@tests/setup.sh build
	cargo build --release --bin pushgate
	@exec target/release/pushgate demo --port $(PORT)

## Build the program, target/release/pushgate, with its man pages and completions
build:
	@tests/setup.sh build
	cargo build --release --bin pushgate
	target/release/pushgate generate man target/generated/man
	target/release/pushgate generate completions target/generated/completions

# The unit and the upgrade name the program by its full path. A configuration that is there already stays.
placed = sed 's|/usr/local/|$(PREFIX)/|; s|/etc/pushgate|$(SYSCONFDIR)/pushgate|'

## Install what `make build` has built (PREFIX=/usr/local, SYSCONFDIR=/etc, DESTDIR)
install:
	@test -e target/generated || { echo "first run: make build" >&2; exit 1; }
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin target/release/pushgate
	install -d $(DESTDIR)$(PREFIX)/lib/pushgate $(DESTDIR)$(PREFIX)/lib/systemd/system
	$(placed) conf/install/upgrade | install -m 755 /dev/stdin $(DESTDIR)$(PREFIX)/lib/pushgate/upgrade
	$(placed) conf/pushgate.service | \
		install -m 644 /dev/stdin $(DESTDIR)$(PREFIX)/lib/systemd/system/pushgate.service
	install -D -m 644 conf/install/pushgate.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/pushgate.conf
	install -D -m 644 conf/install/pushgate.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/pushgate.conf
	install -D -m 644 conf/install/pushgate.logrotate $(DESTDIR)$(SYSCONFDIR)/logrotate.d/pushgate
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man1 target/generated/man/*.1
	install -D -m 644 target/generated/completions/pushgate.bash \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/pushgate
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d \
		target/generated/completions/pushgate.fish
	install -D -m 644 -t $(DESTDIR)$(ZSHDIR) target/generated/completions/_pushgate
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/doc/pushgate README.md CHANGELOG.md docs/*.md
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/doc/pushgate/images docs/images/*.png
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/doc/pushgate/examples conf/*.yaml conf/*.schema.json
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/doc/pushgate/examples/grafana conf/grafana/*.json
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/doc/pushgate/examples/prometheus conf/prometheus/*.yaml
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/doc/pushgate/examples/pair conf/pair/*
	install -d -m 750 $(DESTDIR)$(SYSCONFDIR)/pushgate
	test -e $(DESTDIR)$(SYSCONFDIR)/pushgate/pushgate.yaml || \
		install -m 640 -t $(DESTDIR)$(SYSCONFDIR)/pushgate conf/install/pushgate.yaml
	@test -n "$(DESTDIR)" || echo "The service needs its user once: systemd-sysusers pushgate.conf && " \
		"chgrp -R pushgate $(SYSCONFDIR)/pushgate && systemctl daemon-reload"

## Build the Debian package: target/debian/pushgate_*.deb
package: build
	@tests/setup.sh package
	$(MAKE) deb

# Packages what `make build` has built (VERSION=0.1.1 instead of that of Cargo.toml).
deb:
	rm -rf target/stage
	$(MAKE) install DESTDIR=target/stage PREFIX=/usr ZSHDIR=/usr/share/zsh/vendor-completions
	CARGO_TARGET_DIR=target cargo deb --no-build --output target/debian/ \
		$(if $(VERSION),--deb-version $(VERSION))

# It needs root, Debian's mirrors and some minutes, so `make test` does not run it.
## Install the package into a clean Debian, serve, upgrade, remove it; build and run the container
package-test: package
	@tests/setup.sh package-test
	tests/package.sh

## Break things beside a real Prometheus, and see that the alerts of conf/prometheus fire
alerts-test: build
	@tests/setup.sh alerts-test
	python3 tests/alerts.py

## Fail edges of conf/pair under the real keepalived, and print the times beside a pair of HAProxy
pair-test: build
	@tests/setup.sh test
	PUSHGATE=target/release/pushgate tests/pair.py --haproxy

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
