#!/bin/sh
# make check: lint, and the tests that need no VM and no package.
set -eu
cd "$(dirname "$0")/.."
./scripts/lint.sh
exec go test -short ./...
