package bridge

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// TestFlushTellsTheFirst: of a change that the kernel refuses as a whole, one line
// says why.
func TestFlushTellsTheFirst(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	var err error
	newSpace(t).do(func() error {
		tab, openErr := openTables("micropod-none")
		if openErr != nil {
			return openErr
		}
		for range 3 {
			tab.conn.DelTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "nobody-has-it"})
		}
		err = tab.flush()
		return tab.close()
	})
	if !errors.Is(err, unix.ENOENT) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
}
