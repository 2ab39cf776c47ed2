package bridge

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// rulePriority is directly behind that of the host's own addresses.
const rulePriority = 1

// routeRules forbid to forward what comes from the bridge and has passed the table
// of bridges only. A rule for what has no mark would be in the way of the answers
// to guests: see gate.go.
func routeRules(bridge string) []*netlink.Rule {
	var all []*netlink.Rule
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		r := netlink.NewRule()
		bit := uint32(seen)
		r.Family, r.Priority, r.IifName, r.Mark, r.Mask, r.Type = family, rulePriority, bridge, bit, &bit, unix.RTN_PROHIBIT
		all = append(all, r)
	}
	return all
}

func addRules(bridge string) error {
	return changeRules(bridge, "add", netlink.RuleAdd, fs.ErrExist)
}

func deleteRules(bridge string) error {
	return changeRules(bridge, "delete", netlink.RuleDel, fs.ErrNotExist)
}

// changeRules does the same with each rule of a bridge; done is the error of one that
// is so already.
func changeRules(bridge, what string, change func(*netlink.Rule) error, done error) error {
	for _, r := range routeRules(bridge) {
		err := change(r)
		if noIPv6(r.Family, err) || errors.Is(err, done) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s routing rule for %s: %w", what, bridge, err)
		}
	}
	return nil
}

// noIPv6 is that a host without IPv6 said so.
func noIPv6(family int, err error) bool {
	return family == unix.AF_INET6 && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP))
}

// ruledBridges are the devices that have such a rule, there or not.
func ruledBridges() ([]string, error) {
	all, err := consistent(func() ([]netlink.Rule, error) { return netlink.RuleList(unix.AF_INET) })
	if err != nil {
		return nil, fmt.Errorf("list routing rules: %w", err)
	}
	var names []string
	for _, r := range all {
		ours := r.Priority == rulePriority && r.Mask != nil && *r.Mask == seen
		if ours && len(r.IifName) == bridgeNameSize && strings.HasPrefix(r.IifName, bridgePrefix) {
			names = append(names, r.IifName)
		}
	}
	return names, nil
}
