# `make` lists the targets. Tools are installed by `go install` at the versions below, into bin/tools, unless the
# same version is there already.

GOLANGCI_LINT_VERSION := v2.15.0
GOVULNCHECK_VERSION   := v1.8.0

FUZZTIME   ?= 10s # for each fuzz target
FUZZ_TOTAL ?= 0   # seconds that all of them share; 0: no bound
BENCHTIME  ?= 1s
BENCH      ?= .
COUNT      ?= 1   # runs of each benchmark

SHELL := bash
.SHELLFLAGS := -euo pipefail -c

# Each puts the path of a tool into the shell variable $$tool, or ends the recipe.
golangci_lint = tool=$$(.ci/tool github.com/golangci/golangci-lint/v2/cmd/golangci-lint $(GOLANGCI_LINT_VERSION))
govulncheck   = tool=$$(.ci/tool golang.org/x/vuln/cmd/govulncheck $(GOVULNCHECK_VERSION))

# With each load and store of Go's arithmetic on curves watched by the race detector, a run that onboards takes nearly
# twice the processor time (TestDefaultsOnboard: 10.6 s and 5.6 s). Its numbers belong to one goroutine, so these two
# packages are not watched. `make vet` does what go test would repeat.
race_flags := -race -vet=off -gcflags=crypto/internal/fips140/nistec/...=-race=false \
	-gcflags=crypto/internal/fips140/bigmod=-race=false

# Otherwise each command that ends well sleeps for a second more, in which the detector looks at goroutines that would
# have ended with the process; the tests run hundreds of commands.
race_env := GORACE=atexit_sleep_ms=0

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / {printf "%-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/purser, and bin/importer, bin/consumer and bin/sandbox
	@.ci/need cc:gcc
	go build -o bin/ ./cmd/purser ./cmd/importer ./cmd/consumer ./cmd/sandbox

.PHONY: snapshot
snapshot: ## build a release of this commit into dist/: tar.gz, deb, rpm, SBOM and checksums for amd64 and arm64
	@.ci/need cc:gcc aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu \
		/usr/aarch64-linux-gnu/include/stdint.h:libc6-dev-arm64-cross
	packaging/snapshot

# Apart from snapshot, because it needs podman, apt-get and Debian's archive.
.PHONY: image
image: snapshot ## build OCI images from that release's debs into dist/ (installs podman)
	@.ci/need podman:podman runc:runc
	packaging/image

.PHONY: site
site: ## build the documentation site into bin/site/html (installs Python and npm)
	@docs/site/build

.PHONY: run-sandbox
run-sandbox: ## onboard testdata/customers.csv with the sandbox, nothing else needed
	go run ./cmd/sandbox run testdata/customers.csv

.PHONY: test
test: ## run the tests, the crash, fleet and stop suites in a short form
	go test ./...

.PHONY: race
race: ## run the tests under the race detector
	@.ci/need cc:gcc
	$(race_env) go test $(race_flags) -timeout 14m -parallel 4 ./...

.PHONY: test-full
test-full: ## run the crash, fleet and stop suites at full length
	@.ci/full

.PHONY: test-external
test-external: ## run the tests against implementations we did not write (installs Node.js and its packages)
	@.ci/external

.PHONY: test-helm
test-helm: ## render the Helm chart, decode it into the types of Kubernetes, and run a night as it says
	@.ci/helm

.PHONY: test-hsm
test-hsm: ## run the tests on a PKCS#11 token, SoftHSM2 (installs it)
	@$(race_env) RACE_FLAGS='$(race_flags)' .ci/hsm

.PHONY: test-kafka
test-kafka: ## run the tests on Apache Kafka 4 and 3.9 (fetches them; installs a JDK and Maven)
	@.ci/kafka

.PHONY: test-observability
test-observability: ## run the tests with Prometheus, node_exporter and Alertmanager (installs them)
	@.ci/observability

.PHONY: test-packages
test-packages: ## build, check and install packages, run images (installs a cross compiler, lintian, podman, rpm, …)
	@.ci/packages

.PHONY: test-page
test-page: ## open the page of a night in Chromium (installs it, and Node.js with axe-core and html-validate)
	@.ci/page

.PHONY: test-shell
test-shell: ## complete commands in bash, zsh and fish, and lint the manual pages (installs the shells and mandoc)
	@.ci/shell

.PHONY: test-site
test-site: ## build the documentation site strictly, and look at it in Chromium (installs it, Python and Node.js)
	@.ci/site

.PHONY: test-traces
test-traces: ## run the tests that export to an OpenTelemetry Collector (builds it from Go modules)
	@.ci/traces

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (10s)
	@.ci/fuzz $(FUZZTIME) $(FUZZ_TOTAL)

.PHONY: bench
bench: ## run the benchmarks, those matching BENCH (.), COUNT times (1) for BENCHTIME (1s); PURSER_BIG=1: 10M rows, too
	@.ci/bench '$(BENCH)' '$(BENCHTIME)' $(COUNT)

.PHONY: bench-peers
bench-peers: ## compare purser with a Python and a Node.js script on the same sandbox (installs their packages)
	@.ci/bench-peers

.PHONY: cover
cover: ## say how much of each function the tests reach, in total last (bin/cover.out)
	@mkdir -p bin
	go test -coverpkg ./... -coverprofile bin/cover.out ./...
	go tool cover -func bin/cover.out

.PHONY: fmt
fmt: ## format the code as lint wants it
	@$(golangci_lint); "$$tool" fmt ./...

.PHONY: schemas
schemas: ## write schemas/ from the code, after a change of a report, event, message or setting
	go test ./cmd/contracts -run 'TestSchemas$$' -update

.PHONY: manifests
manifests: ## write packaging/kubernetes from the Helm chart, after a change of the chart
	@.ci/helm update

.PHONY: gofmt
gofmt: ## fail if gofmt would change a file
	@files=$$(git ls-files -co --exclude-standard '*.go' | xargs -r gofmt -l); \
	if [ -n "$$files" ]; then printf 'gofmt would change:\n%s\n' "$$files" >&2; exit 1; fi

.PHONY: vet
vet: ## go vet, the tagged tests included
	go vet -tags external,full,hsm,kafka,observability,packages,page,shell,traces ./...

.PHONY: lint
lint: ## golangci-lint, the directions of imports among its rules, and no test that sleeps
	@$(golangci_lint); "$$tool" run ./...
	@.ci/sleepless

.PHONY: vuln
vuln: ## look for known vulnerabilities that our code reaches (skipped where the database is out of reach)
	@$(govulncheck); .ci/vuln "$$tool"

.PHONY: tools
tools: ## install the linter and the vulnerability checker at their versions
	@$(golangci_lint); echo "$$tool"
	@$(govulncheck); echo "$$tool"

.PHONY: ci
ci: ## everything above that has to hold, as the continuous integration runs it
	.ci/run

.PHONY: clean
clean: ## remove what was built and what the runs of the sandbox left here
	rm -rf bin dist sandbox-data
	find . -name node_modules -prune -exec rm -rf {} +
