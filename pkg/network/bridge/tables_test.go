package bridge

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
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
			tab.queue.DelTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "nobody-has-it"})
		}
		err = tab.flush()
		return tab.close()
	})
	if !errors.Is(err, unix.ENOENT) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
}

// TestPolicyVersion is that another policy has another name.
func TestPolicyVersion(t *testing.T) {
	want, err := versionOf(chains())
	if err != nil {
		t.Fatal(err)
	}
	if policyVersion != want {
		t.Errorf("the policy has changed: policyVersion is to be %q", want)
	}
}

// versionOf is a name made of chains and all sets.
func versionOf(chains []chain) (string, error) {
	sum := sha256.New()
	for _, s := range sets() {
		fmt.Fprintln(sum, s.family, s.name, s.key, s.data, s.ofNetwork, s.ranges)
	}
	for _, c := range chains {
		fmt.Fprintln(sum, c.family, c.name, c.kind, c.hook, c.priority)
		for _, r := range c.rules {
			for _, e := range slices.Concat(r.parts...) {
				b, err := expr.Marshal(byte(c.family), e)
				if err != nil {
					return "", fmt.Errorf("rule %q: %w", r.comment, err)
				}
				sum.Write(b)
			}
		}
	}
	return "version_" + hex.EncodeToString(sum.Sum(nil)[:8]), nil
}

// TestChainsDocumented is that the path of a packet has all chains.
func TestChainsDocumented(t *testing.T) {
	b, err := os.ReadFile("../../../docs/bridge.md")
	if err != nil {
		t.Fatal(err)
	}
	_, path, _ := strings.Cut(string(b), "## The path of a packet\n")
	drawing, table, found := strings.Cut(path, "\n```\n")
	if !found {
		t.Fatal("docs/bridge.md has no drawing")
	}
	for _, c := range chains() {
		if !strings.Contains(drawing, " "+c.name+" ") || !strings.Contains(table, "| `"+c.name+"`") && !strings.Contains(table, ", `"+c.name+"`") {
			t.Errorf("docs/bridge.md does not tell of chain %s, or does not draw it", c.name)
		}
	}
}
