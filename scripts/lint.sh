#!/bin/sh
# Format, vet and lint: no VM, no package, no test.
set -eu
cd "$(dirname "$0")/.."
export CGO_ENABLED=0

bad=$(gofmt -l cmd internal pkg test)
[ -z "$bad" ] || {
	printf 'not formatted (run gofmt -w):\n%s\n' "$bad" >&2
	exit 1
}
go mod tidy -diff
go vet ./...
# The tools are in go.mod: the same versions for everybody.
go tool staticcheck ./...
if command -v shellcheck >/dev/null 2>&1; then
	shellcheck scripts/*.sh .ci/run
fi
