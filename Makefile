# `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# Where programs are built; not in the repository.
export KUBEPKI_BUILD ?= $(CURDIR)/.build

GOLANGCI_LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULNCHECK   := golang.org/x/vuln/cmd/govulncheck@v1.9.0
FUZZTIME      ?= 30s
# Tests that write as users do wait for the disk (fsync) more than they compute.
PARALLEL      := -parallel 8

.PHONY: help picture graphviz build kms lab quickstart unit test test-root test-kms test-lab test-long test-older reload findings bench bench-kubeadm bench-sa bench-mtls bench-agent bench-csr lint fuzz deps clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# The tracing of gRPC calls for /debug/requests is of no use here, and with it the
# linker keeps every method of every type: 30 MB.
TAGS := grpcnotrace

build: ## build kubepki into .build
	@CGO_ENABLED=0 go build -tags $(TAGS) -o $(KUBEPKI_BUILD)/kubepki ./cmd/kubepki

kms: ## build kubepki-kms into .build (cgo, for PKCS#11)
	@cd kms && CGO_ENABLED=1 go build -o $(KUBEPKI_BUILD)/kubepki-kms .

lab: ## build kubepki-lab and the real components into .build
	lab/build.sh

quickstart: build ## create and prove the credentials of a cluster in ./quickstart
	@hack/quickstart.sh

unit: ## the quick inner loop: tests without real components
	go vet ./...
	go test $(PARALLEL) ./...

test: export KUBEPKI_DEPS = 1
test: deps ## all tests, those on real components too
	go vet ./...
	$(MAKE) -k test-root test-kms test-lab

test-root: ## the tests of the root module, with the race detector
	CGO_ENABLED=1 go test -race $(PARALLEL) -timeout $(if $(KUBEPKI_LAB_LONG),120m,40m) ./...

test-kms: deps ## the tests of kubepki-kms, on SoftHSM
	cd kms && go vet ./... && CGO_ENABLED=1 go test -timeout 5m -count=1 ./...

# How many tests of package lab run at once, each in a process with namespaces of its own.
test-lab: export KUBEPKI_LAB_PROCESSES ?= $(if $(KUBEPKI_LAB_LONG),1,3)
test-lab: ## the tests on real components alone
	lab/build.sh
	cd lab/certmanager && go vet ./...
	cd lab && go vet ./... && go test -p 2 -timeout 120m -count=1 ./...

test-long: export KUBEPKI_LAB_LONG = 1
test-long: test reload test-older fuzz ## what takes long: all tests, 5,000 mixtures of faults, ten quiet minutes of load, the reload matrix on two versions, each fuzz target for FUZZTIME

test-older: ## tokens, joins, certificates of nodes and pods on Kubernetes 1.35
	lab/build.sh 1.35
	cd lab && KUBEPKI_BUILD=$(KUBEPKI_BUILD)/1.35 go test -count=1 -timeout 20m \
		-run 'TestPodCertificates|TestControllerAsItsOwnServiceAccount|TestBootstrapTokens|TestNodesJoinByKubepki' .

reload: ## measure the reload matrix on two versions of Kubernetes, for docs/reload.md
	lab/build.sh
	lab/build.sh 1.35
	for build in $(KUBEPKI_BUILD)/1.35 $(KUBEPKI_BUILD); do \
		(cd lab && KUBEPKI_BUILD=$$build KUBEPKI_LAB_LONG=1 KUBEPKI_LAB_FIGURES=$(CURDIR)/internal/catalog/testdata \
			go test -v -timeout 20m -count=1 -run 'TestComponentsTakeUpFiles' .) || exit 1; \
	done
	go test ./internal/catalog -run TestReloadPage -update

findings: ## write docs/findings.md from the pages of kubepki explain
	go test ./internal/explain -run TestFindingsPage -update

bench: build bench-kubeadm ## the figures of docs/benchmarks.md, in pairs with kubeadm and Kubernetes' code
	lab/build.sh
	cd lab && go run ./cmd/bench -build $(KUBEPKI_BUILD) -pairs 20 -folders 1000
	$(MAKE) bench-sa bench-mtls

bench-kubeadm: ## kubeadm alone, for bench: the lab's is one program with all other components, and starts three times as slowly
	cd lab && CGO_ENABLED=0 go build -buildvcs=false -o $(KUBEPKI_BUILD)/kubeadm-alone k8s.io/kubernetes/cmd/kubeadm

bench-sa: ## how fast tokens of service accounts are verified and issued, in pairs with Kubernetes' code (2 minutes)
	cd lab && go run ./cmd/bench-sa

bench-mtls: ## how fast handshakes of package mtls are, in pairs with a fixed tls.Config (3 minutes)
	cd lab && go run ./cmd/bench-mtls

bench-agent: build ## what kubepki agent takes of a quiet machine: memory, processor time (7 minutes)
	cd lab && go run ./cmd/bench-agent -kubepki $(KUBEPKI_BUILD)/kubepki

bench-csr: ## how fast nodes get certificates, beside kube-controller-manager (15 minutes)
	lab/build.sh
	cd lab && go run ./cmd/bench-csr -build $(KUBEPKI_BUILD)

picture: build ## look at what kubepki draws in Chromium: contrast, names, keyboard, overlaps; by Mermaid's own parser too (needs npm, chromium)
	cd hack/picture && npm install --no-audit --no-fund --silent
	hack/picture/look.sh

graphviz: ## take Graphviz, compiled to WebAssembly, out of its package again (needs npm)
	cd hack/picture && npm install --no-audit --no-fund --silent
	node hack/picture/graphviz.mjs internal/graphviz/graphviz.wasm.gz

lint: ## formatting, vet, linters, known vulnerabilities
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	go run $(GOLANGCI_LINT) run ./...
	cd kms && go run $(GOLANGCI_LINT) run -c ../.golangci.yml ./...
	cd lab && go run $(GOLANGCI_LINT) run -c ../.golangci.yml ./...
	go run $(GOVULNCHECK) ./...

fuzz: ## each fuzz target for FUZZTIME
	@hack/fuzz.sh $(FUZZTIME)

deps: ## install what tests need of the system (openssl, curl, gRPC for Python, SoftHSM, a C compiler, nft, systemd-analyze)
	@hack/deps.sh

clean: ## remove what was built and the quickstart
	rm -rf $(KUBEPKI_BUILD) quickstart
