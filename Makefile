# Every target runs from a clean checkout; `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo
TARGET_DIR := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
# For `make run`: options of `tollgate serve`, such as ARGS="--config conf/minimal.yaml".
ARGS ?=

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-zA-Z0-9_-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 36

.PHONY: bootstrap
bootstrap: ## Install what building needs
	@scripts/bootstrap.sh build

.PHONY: build
build: bootstrap ## Build the optimized binary, for use and for measuring
	$(CARGO) build --locked --release

# The build that `make test` makes anyway: the optimized one takes several times as long, and a first look needs none of it.
.PHONY: run
run: test-binaries ## Start the gateway with its embedded default and a demo MCP server (not optimized; see build)
	$(TARGET_DIR)/debug/tollgate serve $(ARGS)

.PHONY: test-tools
test-tools:
	@scripts/bootstrap.sh test
	@tests/tools/install.sh clients
	@tests/tools/install.sh deploy

.PHONY: test-binaries
test-binaries: bootstrap
	$(CARGO) build --locked --workspace --bins

.PHONY: test
test: test-tools test-binaries ## Run all tests, and a short form of each acceptance run
	$(CARGO) test --locked --workspace
	"$$(tests/tools/node.sh)" --test tests/conformance/*.test.mjs
	tests/conformance/gateway.sh
	tests/clients/gateway.sh --smoke
	tests/hostile/run.py --smoke
	TOLLGATE=$(TARGET_DIR)/debug/tollgate .tools/deploy/bin/python tests/deploy/check.py
	TOLLGATE=$(TARGET_DIR)/debug/tollgate .tools/deploy/bin/python tests/deploy/topology.py
	TOLLGATE=$(TARGET_DIR)/debug/tollgate .tools/deploy/bin/python tests/deploy/release.py
	for promise in streams reload restart kill shared-limits takeover control-canary control-publish control-outage control-spool-full control-restore control-embedded control-whatif; do $(TARGET_DIR)/debug/tollgate-load prove $$promise --smoke; done
	$(TARGET_DIR)/debug/tollgate-load bench --smoke

.PHONY: lint
lint: ## Check format and lints
	@scripts/bootstrap.sh test
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@for script in $$(git ls-files '*.sh' .ci/run); do bash -n "$$script"; done
	tests/mutants/run.py --check

.PHONY: docs
docs: bootstrap ## Build the API documentation; broken links are errors
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --locked --workspace --no-deps

.PHONY: coverage
coverage: ## Line coverage of the Rust tests (needs cargo-llvm-cov)
	@$(CARGO) llvm-cov --version >/dev/null 2>&1 || { echo "coverage: cargo install cargo-llvm-cov && rustup component add llvm-tools" >&2; exit 1; }
	$(CARGO) llvm-cov --locked --workspace --summary-only

.PHONY: deny
deny: ## Check licences, sources and banned crates (needs cargo-deny)
	@$(CARGO) deny --version >/dev/null 2>&1 || { echo "deny: cargo install cargo-deny --locked" >&2; exit 1; }
	$(CARGO) deny --locked check bans licenses sources

.PHONY: conformance
conformance: test-tools test-binaries ## The official conformance suite, directly and through the gateway, check by check
	tests/conformance/gateway.sh

# The gateway and what measures it, as one build: the same dependencies with the same features.
LOAD := $(TARGET_DIR)/release/tollgate-load

.PHONY: build-load
build-load: bootstrap
	$(CARGO) build --locked --release -p tollgate -p tollgate-load

.PHONY: bench
bench: build-load ## Compare with a bare Pingora pass-through: CPU, latency, memory (15 min; docs/measuring.md)
	$(LOAD) bench $(ARGS)

.PHONY: bench-engines
bench-engines: bootstrap ## Time the engines one by one (criterion)
	$(CARGO) bench --locked $(ARGS)

.PHONY: prove-control-writes
prove-control-writes: bootstrap ## kill -9 of a process that writes to SQLite, 100 times: nothing acknowledged is lost
	TOLLGATE_KILLS=100 $(CARGO) test --locked --test it store::kill -- --nocapture

.PHONY: prove-control-queries
prove-control-queries: bootstrap ## A million rows on PostgreSQL: every query has an index, and a median under 10 ms
	TOLLGATE_ROWS=1000000 $(CARGO) test --locked --test it store::plans -- --nocapture

.PHONY: prove-dataplane-cpu
prove-dataplane-cpu: build-load ## The same as bench, and fail when a figure misses its target
	$(LOAD) bench --enforce $(ARGS)

.PHONY: prove-dataplane-streams
prove-dataplane-streams: build-load ## 9,500 streams through one process, 19,000 through two, held for 2 minutes
	$(LOAD) prove streams $(ARGS)

.PHONY: prove-dataplane-reload
prove-dataplane-reload: build-load ## 100 reloads in a minute while 64 sessions call: nothing fails
	$(LOAD) prove reload $(ARGS)

.PHONY: prove-dataplane-restart
prove-dataplane-restart: build-load ## Zero-downtime restarts while 64 sessions call: nothing fails
	$(LOAD) prove restart $(ARGS)

.PHONY: prove-dataplane-kill
prove-dataplane-kill: build-load ## kill -9 of one of two servers: only what was in flight fails
	$(LOAD) prove kill $(ARGS)

.PHONY: prove-control-canary
prove-control-canary: test-tools build-load ## A canary that fails under load is rolled back by itself; a rollback by hand fails no call
	$(LOAD) prove control-canary $(ARGS)

.PHONY: prove-control-publish
prove-control-publish: test-tools build-load ## 200 publications in 2 minutes under load: no call fails, replicas follow within 1 s
	$(LOAD) prove control-publish $(ARGS)

.PHONY: prove-control-outage
prove-control-outage: test-tools build-load ## kill -9 of PostgreSQL for a minute, then of a gateway: no call fails, no audit event is lost
	$(LOAD) prove control-outage $(ARGS)

.PHONY: prove-control-spool-full
prove-control-spool-full: test-tools build-load ## A full disk for the audit spool: refuse or drop, as configured
	$(LOAD) prove control-spool-full $(ARGS)

.PHONY: prove-control-restore
prove-control-restore: test-tools build-load ## A used store from SQLite into PostgreSQL and back: equal row by row, and it serves
	$(LOAD) prove control-restore $(ARGS)

.PHONY: prove-control-embedded
prove-control-embedded: build-load ## The embedded default: first call within 5 s, 100 times kill -9
	$(LOAD) prove control-embedded $(ARGS)

.PHONY: prove-control-audit
prove-control-audit: bootstrap ## 2,000 random tamperings are all found; 10⁶ events are verified in under 10 s
	$(CARGO) test --locked --lib audit:: -- --nocapture
	$(CARGO) test --locked --test it audit
	$(CARGO) bench --locked --bench audit

.PHONY: fuzz
FUZZ_SECONDS ?= 600
fuzz: bootstrap ## Run every fuzz target for FUZZ_SECONDS (default 600); needs `cargo install cargo-fuzz`
	@command -v cargo-fuzz >/dev/null || $(CARGO) install --locked cargo-fuzz
	@# fuzz/seeds keeps what runs of ten minutes and more found worth trying; a run begins with it.
	@for target in header rewrite scan seal sse yaml; do \
		echo "fuzz: $$target for $(FUZZ_SECONDS) s"; \
		mkdir -p fuzz/corpus/$$target; \
		tar -C fuzz/corpus/$$target -xf fuzz/seeds/$$target.tar.gz; \
		RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048; \
	done

# Long acceptance runs. Each writes its figures to a file in bench-results/.

.PHONY: prove-control-limits
prove-control-limits: build-load ## Two gateways share 1,000/min for 5 minutes: never more, hardly less
	$(LOAD) prove shared-limits $(ARGS)

.PHONY: prove-control-takeover
prove-control-takeover: build-load ## kill -9 of one of two gateways behind a balancer: its sessions go on at the other
	$(LOAD) prove takeover $(ARGS)

.PHONY: prove-dataplane-conformance
prove-dataplane-conformance: conformance ## The same as `conformance`

.PHONY: prove-control-whatif
prove-control-whatif: build-load ## Replay 100,000 recorded requests against a candidate in under 5 s
	$(LOAD) prove control-whatif $(ARGS)

# The tests print what they tried; a line that is missing is a test that did not run.
.PHONY: prove-control-tenants
prove-control-tenants: test-tools ## One tenant at another's data: every operation of the API, raw SQL on every table, row-level security alone
	@mkdir -p bench-results
	$(CARGO) test --locked --test it -- --nocapture --test-threads 1 store::isolation control::attack tenants:: | tee bench-results/prove-control-tenants.txt
	@grep '^tenants: ' bench-results/prove-control-tenants.txt
	@test "$$(grep -c '^tenants: ' bench-results/prove-control-tenants.txt)" = 4

.PHONY: prove-dataplane-clients
prove-dataplane-clients: test-tools test-binaries ## Real clients against real servers, through the gateway
	tests/clients/gateway.sh

.PHONY: prove-dataplane-hostile
prove-dataplane-hostile: test-tools build ## Hostile input against the release binary
	TOLLGATE=$(TARGET_DIR)/release/tollgate tests/hostile/run.py

.PHONY: prove-dataplane-rules
prove-dataplane-rules: test-binaries ## Break each rule once: a test must notice
	CARGO="$(CARGO)" tests/mutants/run.py $(ARGS)
