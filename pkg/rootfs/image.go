package rootfs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Format is a file system for the read-only disks of an image.
type Format string

const (
	// EROFS is one small metadata disk per image that points into the data
	// blobs of the layers, which images share. Mounted with
	// mount -t erofs -o ro,device=DISK1,device=DISK2... DISK0; Linux 5.16.
	EROFS Format = "erofs"
	// Ext4 is one self-contained disk per image, for kernels without EROFS.
	Ext4 Format = "ext4"
)

// Image is the read-only disks of an image.
type Image struct {
	Format Format
	Key    string   // names content and format; equal keys mean equal bytes
	Disks  []string // Disks[0] is mounted; the rest are its EROFS devices, in order
	Size   int64    // bytes on disk of what is not shared with other images
}

const (
	// formatVersion goes into every key: raise it when the bytes of an image
	// change for the same layers.
	formatVersion = "1"
	// A layer gets a disk of its own, which other images and the page cache of
	// the host share, when its data is worth one. Firecracker has room for 17
	// virtio devices in all; 8 leave enough for networks and volumes.
	deviceMinData = 8 << 20
	maxDevices    = 8
)

// imageInfo is info.json of an image.
type imageInfo struct {
	Format  Format   `json:"format"`
	DiffIDs []string `json:"diffIDs"`
	Devices []string `json:"devices"` // diffIDs of the layers that are devices
}

func imageKey(diffIDs []string, f Format) string {
	h := sha256.New()
	fmt.Fprintf(h, "micropod %s %s\n", f, formatVersion)
	for _, d := range diffIDs {
		fmt.Fprintln(h, d)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// EnsureImage returns the disks of the image with these layers, lowest first,
// building them when they are missing. All layers must be in the store. The
// bytes of the disks are a function of the diffIDs and the format. Safe for
// concurrent use, by processes too: one builds, the others wait for it.
func (s *Store) EnsureImage(ctx context.Context, diffIDs []string, f Format) (Image, error) {
	if f != EROFS && f != Ext4 {
		return Image{}, fmt.Errorf("image format %q: unknown", f)
	}
	if len(diffIDs) == 0 {
		return Image{}, errors.New("image has no layers")
	}
	if n := min(s.limits.Layers, 1<<15); len(diffIDs) > n {
		return Image{}, fmt.Errorf("%w: image of %d layers, at most %d", ErrLimit, len(diffIDs), n)
	}
	for _, d := range diffIDs {
		if _, err := parseDiffID(d); err != nil {
			return Image{}, err
		}
	}
	key := imageKey(diffIDs, f)
	if img, err := s.image(key); err == nil {
		return img, nil
	}
	lock, err := s.lock(ctx, key)
	if err != nil {
		return Image{}, err
	}
	defer lock.Close()
	if img, err := s.image(key); err == nil {
		return img, nil // another process was faster
	}
	if err := s.buildImage(ctx, key, diffIDs, f); err != nil {
		os.Remove(lock.Name()) // while it is held: see lock
		return Image{}, fmt.Errorf("build %s image: %w", f, err)
	}
	return s.image(key)
}

func (s *Store) imageDir(key string) string { return filepath.Join(s.dir, imagesDir, key) }

func diskName(f Format) string { return "root." + string(f) }

// image returns an image that is there and whole.
func (s *Store) image(key string) (Image, error) {
	info, err := s.imageInfo(key)
	if err != nil {
		return Image{}, err
	}
	dir := s.imageDir(key)
	img := Image{Format: info.Format, Key: key, Disks: []string{filepath.Join(dir, diskName(info.Format))}}
	for _, d := range info.Devices {
		h, err := parseDiffID(d)
		if err != nil {
			return Image{}, err
		}
		img.Disks = append(img.Disks, filepath.Join(s.layerDir(h), dataFile))
	}
	for _, disk := range img.Disks {
		st, err := os.Stat(disk)
		if err == nil && !st.Mode().IsRegular() {
			err = fmt.Errorf("%w: %s is not a regular file", ErrCorrupt, disk)
		}
		if err != nil {
			return Image{}, fmt.Errorf("image %s: %w", key, err)
		}
	}
	img.Size, err = diskUsage(dir)
	return img, err
}

func (s *Store) imageInfo(key string) (info imageInfo, err error) {
	b, err := os.ReadFile(filepath.Join(s.imageDir(key), infoFile))
	if err != nil {
		return info, fmt.Errorf("image %s: %w", key, err)
	}
	if err := json.Unmarshal(b, &info); err != nil {
		return info, fmt.Errorf("image %s: %w: %w", key, ErrCorrupt, err)
	}
	if info.Format != EROFS && info.Format != Ext4 || imageKey(info.DiffIDs, info.Format) != key {
		return info, fmt.Errorf("image %s: %w: info.json is of another image", key, ErrCorrupt)
	}
	return info, nil
}

func (s *Store) buildImage(ctx context.Context, key string, diffIDs []string, f Format) error {
	if _, err := s.sweep(); err != nil {
		s.log.Warn("sweep rootfs store", "error", err)
	}
	// Shared locks keep the layers from being pruned while they are read.
	for _, d := range slices.Compact(slices.Sorted(slices.Values(diffIDs))) {
		h, err := parseDiffID(d)
		if err != nil {
			return err
		}
		lock, err := s.lockShared(ctx, h)
		if err != nil {
			return err
		}
		defer lock.Close()
		if !s.HasLayer(d) {
			return fmt.Errorf("layer %s: %w", d, fs.ErrNotExist)
		}
	}
	work, err := s.newWorkDir()
	if err != nil {
		return err
	}
	defer work.discard()
	info := imageInfo{Format: f, DiffIDs: diffIDs}
	if err := s.writeDisk(ctx, work, key, &info); err != nil {
		return err
	}
	if err := s.writeInfo(work, info); err != nil {
		return err
	}
	// What is there was found broken above, under the lock that is still held.
	if err := os.RemoveAll(s.imageDir(key)); err != nil {
		return fmt.Errorf("replace image: %w", err)
	}
	return work.publish(s.imageDir(key), s.sync)
}

func (s *Store) writeInfo(work *workDir, info imageInfo) error {
	b, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(work.file(infoFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write image info: %w", err)
	}
	defer f.Close()
	if _, err := f.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("write image info: %w", err)
	}
	return s.syncFile(f)
}

func (s *Store) syncFile(f *os.File) error {
	if !s.sync {
		return nil
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// writeDisk merges the layers and writes the disk in work.
func (s *Store) writeDisk(ctx context.Context, work *workDir, key string, info *imageInfo) error {
	t, feet, err := s.merge(ctx, info.DiffIDs)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(work.file(diskName(info.Format)), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	defer f.Close()
	if info.Format == Ext4 {
		err = s.writeExt4(ctx, f, t, info.DiffIDs)
	} else {
		info.Devices = chooseDevices(info.DiffIDs, feet)
		err = s.writeErofs(ctx, f, t, key, info, feet)
	}
	if err != nil {
		return err
	}
	return s.syncFile(f)
}

// merge applies the indexes of the layers, lowest first.
func (s *Store) merge(ctx context.Context, diffIDs []string) (*tree, []footer, error) {
	feet := make([]footer, len(diffIDs))
	entries := 0
	for i, d := range diffIDs {
		h, err := parseDiffID(d)
		if err != nil {
			return nil, nil, err
		}
		if feet[i], err = readFooter(filepath.Join(s.layerDir(h), indexFile)); err != nil {
			return nil, nil, err
		}
		entries += min(feet[i].entries, s.limits.Entries)
	}
	t := newTree(&s.limits, min(entries, s.limits.Entries))
	for _, d := range diffIDs {
		if err := s.applyLayer(ctx, t, d); err != nil {
			return nil, nil, fmt.Errorf("layer %s: %w", d, err)
		}
	}
	return t, feet, nil
}

func (s *Store) applyLayer(ctx context.Context, t *tree, diffID string) error {
	h, err := parseDiffID(diffID)
	if err != nil {
		return err
	}
	x, err := readIndex(filepath.Join(s.layerDir(h), indexFile))
	if err != nil {
		return err
	}
	return t.apply(ctx, x)
}

// chooseDevices returns the layers that become devices, lowest first.
func chooseDevices(diffIDs []string, feet []footer) []string {
	size := map[string]int64{}
	var big []string
	for i, d := range diffIDs {
		if _, seen := size[d]; !seen && feet[i].dataSize >= deviceMinData {
			big = append(big, d)
		}
		size[d] = feet[i].dataSize
	}
	if len(big) <= maxDevices {
		return big
	}
	bySize := slices.Clone(big)
	slices.SortStableFunc(bySize, func(a, b string) int {
		return int(min(max(size[b]-size[a], -1), 1))
	})
	chosen := bySize[:maxDevices]
	return slices.DeleteFunc(big, func(d string) bool { return !slices.Contains(chosen, d) })
}

func (s *Store) writeErofs(ctx context.Context, f *os.File, t *tree, key string, info *imageInfo, feet []footer) error {
	w := &erofsWriter{t: t, out: f}
	super := erofsSuper{inodes: t.seal()}
	uuid, err := hex.DecodeString(key[:32])
	if err != nil {
		return err
	}
	copy(super.uuid[:], uuid)
	super.uuid[6] = super.uuid[6]&0x0f | 0x80 // RFC 9562 version 8: by own rules
	super.uuid[8] = super.uuid[8]&0x3f | 0x80
	for _, d := range info.Devices {
		h, _ := parseDiffID(d)
		n := feet[slices.Index(info.DiffIDs, d)].dataSize / blockSize
		super.devices = append(super.devices, erofsDevice{tag: h, blocks: uint32(n)})
	}
	for i, d := range info.DiffIDs {
		h, _ := parseDiffID(d)
		l := imageLayer{size: feet[i].dataSize, data: filepath.Join(s.layerDir(h), dataFile)}
		l.device = uint16(slices.Index(info.Devices, d) + 1)
		small, err := os.Open(filepath.Join(s.layerDir(h), smallFile))
		if err != nil {
			return fmt.Errorf("read layer: %w", err)
		}
		defer small.Close()
		l.small = newRunReader(small)
		w.layers = append(w.layers, l)
	}
	_, err = w.write(ctx, super)
	return err
}
