package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/micropod/micropod/pkg/state"
)

const (
	indexVersion = 1
	maxIndex     = 32 << 20
	maxOthers    = 8
)

// record is one line of the index: an image and what points to it.
type record struct {
	ID       string    `json:"id"`
	Manifest string    `json:"manifest,omitempty"`
	Others   []string  `json:"others,omitempty"`
	Names    []string  `json:"names,omitempty"`
	Digests  []string  `json:"digests,omitempty"`
	Added    time.Time `json:"added"`
}

// check keeps a record that somebody damaged or forged from becoming a path.
func (r *record) check() error {
	if err := checkDigest(r.ID); err != nil {
		return fmt.Errorf("id: %w", err)
	}
	for _, d := range r.manifests() {
		if err := checkDigest(d); err != nil {
			return fmt.Errorf("manifest: %w", err)
		}
	}
	for _, n := range slices.Concat(r.Names, r.Digests) {
		t, err := parseTarget(n)
		if err != nil {
			return err
		}
		if t.String() != n {
			return fmt.Errorf("name %q is not in its normal form %q", clip(n), clip(t.String()))
		}
	}
	return nil
}

// manifests are the digests of the manifests that are kept, the last pulled one
// first: each says in which form some registry has the layers.
func (r *record) manifests() []string {
	if r.Manifest == "" {
		return r.Others
	}
	return append([]string{r.Manifest}, r.Others...)
}

// remember keeps a manifest beside the pulled one; the oldest goes.
func (r *record) remember(manifest string) {
	if manifest == "" || slices.Contains(r.manifests(), manifest) {
		return
	}
	r.Others = append(r.Others, manifest)
	r.Others = r.Others[max(0, len(r.Others)-maxOthers):]
}

// label is how errors name the image.
func (r *record) label() string {
	switch {
	case len(r.Names) > 0:
		return r.Names[0]
	case len(r.Digests) > 0:
		return r.Digests[0]
	}
	return shortID(r.ID)
}

// index is the decoded index file: one JSON object a line, so that a damaged
// line costs one image and not all of them.
type index struct {
	records []*record
	// damaged lines are kept as they are until Repair drops them.
	damaged []damagedLine
}

type damagedLine struct {
	number int
	raw    []byte
	err    error
}

// errs describes the damaged lines.
func (x *index) errs() []error {
	var errs []error
	for _, d := range x.damaged {
		errs = append(errs, fmt.Errorf("%w: line %d of the image index: %w", ErrDamaged, d.number, d.err))
	}
	return errs
}

// decodeRecords decodes an index file. Only a file of a newer MicroPod is an
// error; damage is collected line by line.
func decodeRecords(raw []byte) (*index, error) {
	x := &index{}
	named := map[string]bool{}
	for i, line := range bytes.Split(raw, []byte("\n")) {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if i == 0 {
			ours, err := decodeHeader(line)
			if err != nil {
				return nil, err
			}
			if ours {
				continue
			}
		}
		r, err := decodeRecord(line)
		if err == nil && slices.ContainsFunc(x.records, func(o *record) bool { return o.ID == r.ID }) {
			err = fmt.Errorf("image %s is there twice", shortID(r.ID))
		}
		if err != nil {
			x.damaged = append(x.damaged, damagedLine{i + 1, bytes.Clone(line), err})
			continue
		}
		// A name belongs to one image: the first claim counts.
		r.Names = slices.DeleteFunc(r.Names, func(n string) bool { return named[n] })
		for _, n := range r.Names {
			named[n] = true
		}
		x.records = append(x.records, r)
	}
	return x, nil
}

// decodeHeader reports whether the first line is a header of ours.
func decodeHeader(line []byte) (bool, error) {
	var head struct {
		Version int `json:"version"`
	}
	if json.Unmarshal(line, &head) != nil || head.Version < 1 {
		return false, nil // a damaged header; the lines speak for themselves
	}
	if head.Version > indexVersion {
		return false, fmt.Errorf("image index, version %d: %w", head.Version, state.ErrNewer)
	}
	return true, nil
}

func decodeRecord(line []byte) (*record, error) {
	r := &record{}
	if err := json.Unmarshal(line, r); err != nil {
		return nil, err
	}
	return r, r.check()
}

func (x *index) encode() ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "{\"version\":%d}\n", indexVersion)
	for _, r := range x.records {
		line, err := json.Marshal(r)
		if err != nil {
			return nil, fmt.Errorf("encode image index: %w", err)
		}
		b.Write(line)
		b.WriteByte('\n')
	}
	for _, d := range x.damaged {
		b.Write(d.raw)
		b.WriteByte('\n')
	}
	return b.Bytes(), nil
}

// readIndex needs no lock: the file is replaced in one piece.
func (s *Store) readIndex() (*index, error) {
	f, err := os.Open(filepath.Join(s.dir, fileIndex))
	if errors.Is(err, fs.ErrNotExist) {
		return &index{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read image index: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxIndex+1))
	if err != nil {
		return nil, fmt.Errorf("read image index: %w", err)
	}
	if len(raw) > maxIndex {
		return nil, fmt.Errorf("%w: image index is larger than %d bytes", ErrDamaged, maxIndex)
	}
	return decodeRecords(raw)
}

// update runs change on the index under the store's lock and writes the result.
func (s *Store) update(change func(*index) error) error {
	l, err := s.lock()
	if err != nil {
		return err
	}
	defer l.Unlock()
	return s.updateLocked(change)
}

// updateLocked is update under the store's lock.
func (s *Store) updateLocked(change func(*index) error) error {
	x, err := s.readIndex()
	if err != nil {
		return err
	}
	if err := change(x); err != nil {
		return err
	}
	return s.writeIndex(x)
}

func (s *Store) writeIndex(x *index) error {
	raw, err := x.encode()
	if err != nil {
		return err
	}
	if len(raw) > maxIndex {
		return fmt.Errorf("image index would grow beyond %d bytes: remove images first", maxIndex)
	}
	return state.ReplaceFile(filepath.Join(s.dir, fileIndex), raw)
}

// byID returns the record of an image, nil when there is none.
func (x *index) byID(id string) *record {
	for _, r := range x.records {
		if r.ID == id {
			return r
		}
	}
	return nil
}

// setName moves a name to r, away from whichever image had it.
func (x *index) setName(r *record, name string) {
	for _, o := range x.records {
		if o != r {
			o.Names = slices.DeleteFunc(o.Names, func(n string) bool { return n == name })
		}
	}
	if !slices.Contains(r.Names, name) {
		r.Names = append(r.Names, name)
	}
}

// Repair drops the damaged lines of the index, after it has saved them in a
// file beside it, and returns that file's path, "" when nothing was damaged.
func (s *Store) Repair() (saved string, err error) {
	err = s.update(func(x *index) error {
		if len(x.damaged) == 0 {
			return nil
		}
		var b bytes.Buffer
		for _, d := range x.damaged {
			b.Write(append(d.raw, '\n'))
		}
		saved = filepath.Join(s.dir, fmt.Sprintf("damaged-%d.jsonl", time.Now().UnixNano()))
		x.damaged = nil
		return state.WriteFile(saved, b.Bytes())
	})
	return saved, err
}
