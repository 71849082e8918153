.DEFAULT_GOAL := help
SHELL := /bin/sh

GO ?= go
# A Go older than go.mod asks for fetches the one it needs, unless you forbid it.
export GOTOOLCHAIN ?= auto
FUZZTIME ?= 30s

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: postgres build ## Run a demo: everything in one process, with simulated devices
	bin/nsready up -config nsready.hcl -simulate

test: go postgres ## Run all tests with the race detector, against real PostgreSQL and JetStream
	@race=-race; .ci/setup gcc || { race=; echo "WARNING: testing WITHOUT the race detector" >&2; }; \
	[ "$$(id -u)" = 0 ] && [ -e /dev/loop-control ] || echo "WARNING: power cuts are NOT TESTED: that takes root and loop devices" >&2; \
	docker version >/dev/null 2>&1 && { docker compose version || docker-compose version; } >/dev/null 2>&1 || \
		echo "WARNING: containers are NOT TESTED: that takes a Docker daemon and docker-compose" >&2; \
	set -x; $(GO) test $$race -timeout 18m ./...

bench: postgres build ## Measure the service beside what the machine can do at best; writes bench.json and bench.svg
	$(GO) run ./loadgen/bench $(BENCHFLAGS)

bench-plan: postgres build ## Measure validate, plan and apply over 10,000 to 1,000,000 devices; writes bench-plan.json
	$(GO) run ./loadgen/planbench $(BENCHFLAGS)

fuzz: go postgres ## Fuzz each target for FUZZTIME (30s)
	@grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u | while read -r dir; do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' $$dir/*_test.go); do \
			echo "$$dir $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$dir </dev/null || exit 1; \
		done; \
	done

fmt: build ## Format the Go and HCL files
	gofmt -w $$(git ls-files -co --exclude-standard '*.go')
	bin/nsready fmt nsready.hcl testdata

check: build ## Check formatting, go vet, go.mod, the import rules, nsready.hcl with its tests
	@unformatted=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); [ -z "$$unformatted" ] || { echo "make fmt would change:"; echo "$$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) mod tidy -diff
	$(GO) test -run Import ./engine
	bin/nsready fmt -check nsready.hcl testdata
	bin/nsready lint -fail-on=warning nsready.hcl
	bin/nsready test testdata
	@if command -v golangci-lint >/dev/null; then set -x; golangci-lint run; else echo "golangci-lint is not installed: left out"; fi

# The version is in the binary when git can be asked, which it refuses in another user's checkout.
build: go ## Build bin/nsready
	$(GO) build -trimpath -buildvcs=$$(git rev-parse HEAD >/dev/null 2>&1 && echo auto || echo false) -o bin/nsready ./cmd/nsready

clean: ## Remove what was built; data in .nsready stays
	rm -rf bin

go:
	@command -v $(GO) >/dev/null || { echo "make: Go is missing: https://go.dev/dl has 1.26; 1.21 or newer fetches it by itself" >&2; exit 1; }
	@version=$$(cd / && GOTOOLCHAIN=local $(GO) version); case "$$version" in \
		*' go1.'[0-9][' .']* | *' go1.1'[0-9][' .']* | *' go1.20'[' .']*) \
			echo "make: $$version is too old: https://go.dev/dl has 1.26; 1.21 or newer fetches it by itself" >&2; exit 1 ;; \
	esac

postgres:
	@.ci/setup postgres

.PHONY: help run test bench bench-plan fuzz fmt check build clean go postgres
