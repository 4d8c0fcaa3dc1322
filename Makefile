# Terrace: what a newcomer needs is `make run` and `make test`.

CARGO ?= cargo
PREFIX ?= examples/eshop
PORTS ?=

.PHONY: run stack stack-down test bench build check needs fmt references clean

## run: build and start Terrace on the example shop
run: needs
	$(CARGO) build --release -p terrace
	@scripts/run $(PREFIX)

## stack: the shop as a fleet, with real servers around it, in the background; PORTS="dispatch=9080 ..." moves some
stack:
	@scripts/needs stack
	$(CARGO) build --release -p terrace
	@TERRACE_BIN=$(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/release/terrace \
		$(CARGO) run --quiet -p e2e --bin stack -- up $(PORTS)

## stack-down: end what `make stack` started
stack-down:
	@$(CARGO) run --quiet -p e2e --bin stack -- down

## test: everything that must hold, as CI runs it
test:
	scripts/test

## bench: Terrace beside nginx with its Lua module, L1 beside other caches; ratios
bench:
	@scripts/needs bench
	$(CARGO) build --release -p terrace
	benches/run --check
	$(CARGO) bench -p terrace-cache --bench l1

## build: the release binary, target/release/terrace
build: needs
	$(CARGO) build --release -p terrace

## check: the quick part of the tests
check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) xtask tidy

## references: write docs/ references anew from the code's tables
references:
	$(CARGO) run --quiet -p terrace-server --example references -- docs

needs:
	@scripts/needs build

fmt:
	$(CARGO) fmt --all

clean:
	$(CARGO) clean
