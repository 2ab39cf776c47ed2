package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestCreateWritable(t *testing.T) {
	const mib, gib = 1 << 20, 1 << 30
	for _, size := range []int64{
		minWritable, 17*mib + 4097, 64 * mib, 127 * mib, 128 * mib, 129 * mib, 130*mib + 123, 131 * mib, 256 * mib,
		1000 * mib, gib, 10 * gib, 10*gib + 2*mib, 10*gib + 300*4096, 100 * gib, 2048 * gib,
	} {
		for _, journal := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d/journal=%v", size, journal), func(t *testing.T) {
				disk := filepath.Join(t.TempDir(), "rw.img")
				if err := CreateWritable(disk, size, journal); err != nil {
					t.Fatal(err)
				}
				st, err := os.Stat(disk)
				if err != nil {
					t.Fatal(err)
				}
				if st.Size() != size&^4095 || st.Mode().Perm() != 0o600 {
					t.Errorf("size %d mode %v, want %d and 0600", st.Size(), st.Mode(), size&^4095)
				}
				limit := int64(256<<10) + size/ext4GroupBlocks/blockSize*ext4DescSize
				if used := st.Sys().(*syscall.Stat_t).Blocks * 512; used > limit {
					t.Errorf("takes %d bytes on disk, want at most %d", used, limit)
				}
				out := run(t, "e2fsck", "-fn", disk)
				if !strings.Contains(out, WritableLabel) || strings.Contains(out, "? no") {
					t.Errorf("e2fsck: %s", out)
				}
			})
		}
	}
}

// Without this mark on every group the kernel writes all inode tables as zeros
// after the first mount: the sparse file would grow by megabytes.
func TestWritableTablesAreZeroed(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "rw.img")
	if err := CreateWritable(disk, 10<<30, true); err != nil {
		t.Fatal(err)
	}
	out := run(t, "dumpe2fs", disk)
	if groups, zeroed := strings.Count(out, "\nGroup "), strings.Count(out, "ITABLE_ZEROED"); groups != 80 || zeroed != groups {
		t.Errorf("%d of %d groups are marked as zeroed", zeroed, groups)
	}
}

func TestCreateWritableRefuses(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "rw.img")
	for _, size := range []int64{-1, 0, minWritable - 1, 16<<40 + 1} {
		if err := CreateWritable(disk, size, true); err == nil {
			t.Errorf("size %d: no error", size)
		}
	}
	if err := os.WriteFile(disk, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := CreateWritable(disk, minWritable, true); !errors.Is(err, fs.ErrExist) {
		t.Errorf("existing file: %v, want %v", err, fs.ErrExist)
	}
	if b, _ := os.ReadFile(disk); string(b) != "mine" {
		t.Error("existing file was changed")
	}
}

// The kernel fills the disk, its journal is replayed by nobody, and e2fsck
// finds it whole: the uninitialised groups are what the kernel expects.
func TestWritableFilled(t *testing.T) {
	for _, journal := range []bool{false, true} {
		t.Run(fmt.Sprintf("journal=%v", journal), func(t *testing.T) {
			disk := filepath.Join(t.TempDir(), "rw.img")
			if err := CreateWritable(disk, 300<<20, journal); err != nil {
				t.Fatal(err)
			}
			mnt := mount(t, "ext4", "rw", disk)
			for i := range 300 {
				d := filepath.Join(mnt, fmt.Sprintf("d%d", i))
				if err := os.Mkdir(d, 0o755); err != nil {
					t.Fatal(err)
				}
				for j := range 30 {
					if err := os.WriteFile(filepath.Join(d, fmt.Sprint(j)), make([]byte, i*j), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			big, err := os.Create(filepath.Join(mnt, "big"))
			if err != nil {
				t.Fatal(err)
			}
			defer big.Close()
			var written int64
			for b := make([]byte, 1<<20); ; {
				n, err := big.Write(b)
				written += int64(n)
				if errors.Is(err, syscall.ENOSPC) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
			}
			if written < 200<<20 {
				t.Errorf("%d bytes fit into 300 MiB", written)
			}
			big.Close()
			if out, err := exec.Command("umount", mnt).CombinedOutput(); err != nil {
				t.Fatalf("umount: %s", out)
			}
			if out := run(t, "e2fsck", "-fn", disk); strings.Contains(out, "? no") {
				t.Errorf("e2fsck: %s", out)
			}
		})
	}
}

func TestSetBits(t *testing.T) {
	for _, r := range [][2]int64{{0, 0}, {0, 1}, {0, 8}, {1, 8}, {7, 9}, {3, 30}, {8, 64}, {5, 64}, {16, 63}, {9, 9}} {
		got := make([]byte, 8)
		setBits(got, r[0], r[1])
		for i := range int64(64) {
			if set := got[i/8]>>(i%8)&1 == 1; set != (i >= r[0] && i < r[1]) {
				t.Errorf("%v: bit %d is %v", r, i, set)
			}
		}
	}
}
