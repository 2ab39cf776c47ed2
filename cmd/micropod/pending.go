package main

import (
	"log/slog"

	"github.com/micropod/micropod/pkg/vmm"
)

func drivers(*slog.Logger) []vmm.Driver { return nil }

func runAsAgent([]string) {}
