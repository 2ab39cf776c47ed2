package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// checkSecurityOpt takes KEY=VALUE, docker's old KEY:VALUE, and no-new-privileges.
// What the keys mean, the manager knows.
func checkSecurityOpt(s string) (string, error) {
	if s != "no-new-privileges" && !strings.ContainsAny(s, "=:") {
		return "", fmt.Errorf("invalid --security-opt: %q", s)
	}
	return s, nil
}

// maxProfileFile bounds the file of a seccomp profile.
const maxProfileFile = 1 << 20

// readProfile replaces the name of a seccomp profile's file by its text.
func readProfile(opt string) (string, error) {
	value, ok := strings.CutPrefix(opt, "seccomp=")
	if !ok {
		value, ok = strings.CutPrefix(opt, "seccomp:")
	}
	if !ok || value == "builtin" || value == "unconfined" {
		return opt, nil
	}
	f, err := os.Open(value)
	if err != nil {
		return "", fmt.Errorf("opening seccomp profile (%s) failed: %w", value, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxProfileFile+1))
	if err != nil {
		return "", fmt.Errorf("opening seccomp profile (%s) failed: %w", value, err)
	}
	if len(text) > maxProfileFile {
		return "", fmt.Errorf("seccomp profile (%s) is larger than %d bytes", value, maxProfileFile)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		return "", fmt.Errorf("compacting json for seccomp profile (%s) failed: %w", value, err)
	}
	return "seccomp=" + compact.String(), nil
}
