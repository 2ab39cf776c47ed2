# make quickstart   install what is missing, build, run a command in a real microVM
# make test         everything, real microVMs included
# make test-firecracker  of that the part on the real Firecracker
# make kvm-shell    a shell on a machine with KVM, emulated where there is none
# See README.md.

GO     ?= go
export CGO_ENABLED = 0

EMBEDDED = cmd/micropod/embedded/micropod-agent
LDFLAGS  = -s -w

.PHONY: build agent quickstart setup check test test-firecracker kvm-shell bench docs clean

# One static binary with the guest agent inside.
build: agent
	$(GO) build -trimpath -tags embedagent -ldflags '$(LDFLAGS)' -o micropod ./cmd/micropod

agent:
	$(GO) build -trimpath -ldflags '-s -w' -o $(EMBEDDED) ./cmd/micropod-agent

quickstart:
	./scripts/quickstart.sh

# What the tests need: packages of the distribution, a guest kernel, images.
setup:
	./scripts/test-setup.sh

# Format, vet, lint, unit tests: no VM, no package to install.
check:
	./scripts/check.sh

test:
	./scripts/test.sh

test-firecracker:
	./scripts/test-firecracker.sh

kvm-shell:
	./scripts/kvm-shell.sh

bench: build
	./scripts/bench.sh

# The pages that are written from code: docs/flags.md, docs/fidelity.md.
docs:
	MICROPOD_UPDATE=1 $(GO) test -count=1 -run 'Page$$' ./cmd/micropod ./test/fidelity

clean:
	rm -rf micropod micropod-agent $(EMBEDDED) .cache
