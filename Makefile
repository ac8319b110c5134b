# make demo | make test | make build | make bench | make kafka | make fmt | make help
#
# One profile (dev) and one set of features for all of build, demo and test: the largest dependencies take minutes to
# compile, and cargo would compile them again for every other combination.

.DEFAULT_GOAL := help
.PHONY: help demo build test fmt fmt-check lint unit rules-test readme bench kafka kafka-stop tools clean

CARGO ?= cargo
# Python with duckdb and deltalake, if .ci/run has made one: tests that need it find it first.
export PATH := $(CURDIR)/target/venv/bin:$(PATH)

HARRIER := target/debug/harrier
export CARGO_TARGET_DIR := $(CURDIR)/target

help:
	@echo 'make demo    build, then play an account takeover and show what harrier makes of it'
	@echo 'make test    everything that CI checks'
	@echo 'make build   only build: $(HARRIER)'
	@echo 'make bench   measurements, with the release profile (builds everything once more)'
	@echo 'make kafka   a real Apache Kafka on loopback, from Maven Central (NODES=3 for three); make kafka-stop ends it'
	@echo 'make fmt     format the code'

# One clear line instead of a page of errors from a build script.
tools:
	@command -v $(CARGO) >/dev/null || { echo 'harrier needs Rust 1.95 or later: https://rustup.rs' >&2; exit 1; }
	@command -v cc >/dev/null || { echo 'harrier needs a C compiler; on Debian: apt-get install build-essential' >&2; exit 1; }
	@command -v pkg-config >/dev/null && pkg-config --exists openssl || { echo 'harrier needs the headers of OpenSSL for Kafka; on Debian: apt-get install pkg-config libssl-dev' >&2; exit 1; }

# Naming a test beside the binary makes cargo resolve features as it does for `cargo test`, so that both share what they
# compile. Plain `cargo build` would compile the query engine a second time.
build: tools
	@[ -x $(HARRIER) ] || echo 'The first build takes about six minutes on two cores.'
	$(CARGO) build --locked --workspace --bin harrier --test http

demo: build
	$(HARRIER) demo

test: fmt-check unit rules-test readme lint

fmt:
	$(CARGO) fmt --all

fmt-check: tools
	$(CARGO) fmt --all --check

unit: tools
	$(CARGO) test --locked --workspace

# The rules' own tests, as an author of rules runs them.
rules-test: build
	$(HARRIER) rules test

# What the README shows is what there is: the commands of its first rule run as they stand, and the rule is the pack's.
readme: build
	@awk '/^```yaml rule$$/{f=1;next} /^```$$/{f=0} f' README.md | diff - rules/sharepoint/anonymous_link_created.yml \
	  || { echo 'README.md shows another text of this rule' >&2; exit 1; }
	@mkdir -p target/readme
	@awk '/^```sh first-rule$$/{f=1;next} /^```$$/{f=0} f' README.md > target/readme/first-rule.sh
	TMPDIR=$(CURDIR)/target/readme sh -eu target/readme/first-rule.sh

# What tests and examples may do and nothing else may: stop at the first thing that is not as it should be.
TESTS_MAY := -A clippy::unwrap_used -A clippy::expect_used -A clippy::panic

# Last, because it reads every dependency once more: on a first run about three minutes on two cores. Naming an example
# in the second run keeps the features of the first, else it would be another three.
lint: tools
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings $(TESTS_MAY)
	$(CARGO) clippy --locked --workspace --lib --bins --example judge -- -D warnings

bench: tools
	$(CARGO) run --locked --release -p benches

# Needs Java 17 and Maven, and keeps nothing outside target/kafka.
NODES ?= 1
kafka:
	@deploy/kafka/kafka.sh start $(NODES)

kafka-stop:
	@deploy/kafka/kafka.sh stop

clean:
	$(CARGO) clean
