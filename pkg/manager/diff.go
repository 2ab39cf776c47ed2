package manager

import (
	"context"
	"errors"
	"io"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/events"
)

// Change is one difference between a container's files and its image's.
type Change = api.Change

// Changes calls each for every difference between the container's files and its
// image's, a directory before what is in it.
func (m *Manager) Changes(ctx context.Context, ref string, each func(Change) error) (err error) {
	f, err := m.OpenFiles(ctx, ref)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r, err := f.open(ctx, api.FilesRequest{Op: api.FileChanges})
	if err != nil {
		return err
	}
	defer r.Close()
	return r.Changes(each)
}

// Export writes a container's root file system as a tar, without what is mounted
// in it.
func (m *Manager) Export(ctx context.Context, ref string, w io.Writer) (err error) {
	f, err := m.OpenFiles(ctx, ref)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r, err := f.open(ctx, api.FilesRequest{Op: api.FileExport})
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err = io.Copy(w, r); err == nil {
		m.tellContainer(events.ActionExport, f.vm)
	}
	return err
}
