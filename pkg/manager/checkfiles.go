package manager

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/micropod/micropod/pkg/ledger"
	"github.com/micropod/micropod/pkg/state"
)

// checkInitramfs looks for what commands that died have left of an initramfs.
func (m *Manager) checkInitramfs() ([]ledger.Finding, error) {
	dir := filepath.Join(m.state.Root(), dirInitramfs)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("check initramfs directory: %w", err)
	}
	var found []ledger.Finding
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if held, err := state.Held(path); !strings.HasPrefix(e.Name(), initramfsTemp) || held || err != nil {
			continue
		}
		found = append(found, ledger.Finding{
			Kind: ledger.File, Subject: path, Problem: "its writer has died", Remedy: "remove it",
			Repair: func(context.Context) error { return state.RemoveUnlocked(path) },
		})
	}
	return found, nil
}

// kindOf is what a path leads to.
func kindOf(path string) ledger.Kind {
	info, err := os.Lstat(path)
	switch {
	case err == nil && info.IsDir():
		return ledger.Directory
	case err == nil && info.Mode().Type() == fs.ModeSocket:
		return ledger.Socket
	}
	return ledger.File
}
