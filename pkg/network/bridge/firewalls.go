package bridge

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Drops are chains of others, as "FAMILY TABLE CHAIN", by which the host drops what
// they do not name. A packet passes only if all chains at its hook let it: what ours
// accept, these drop.
type Drops struct {
	// Forwarded is what guests send to others, and get.
	Forwarded []string
	// Received is what guests send to the host: to its services, and questions for
	// names, which go to the supervisor of the guest's VM.
	Received []string
}

// FindDrops looks for them: chains that drop by their policy or their last rule, and
// have no rule for our devices, nor does a chain that they lead to. Who wrote one has
// decided about guests himself. The iptables of old are not seen.
func FindDrops() (Drops, error) {
	var d Drops
	conn, err := nftables.New()
	if err != nil {
		return d, fmt.Errorf("nftables: %w", err)
	}
	all, err := conn.ListChains()
	if err != nil {
		return d, fmt.Errorf("list chains: %w", err)
	}
	for _, c := range all {
		into := d.at(c)
		if into == nil {
			continue
		}
		drops, err := refusesTheRest(conn, c)
		if err == nil && drops {
			var named bool
			named, err = namesUs(conn, c)
			drops = !named
		}
		if err != nil {
			return d, err
		}
		if drops {
			*into = append(*into, familyName(c.Table.Family)+" "+c.Table.Name+" "+c.Name)
		}
	}
	slices.Sort(d.Forwarded)
	slices.Sort(d.Received)
	return d, nil
}

// at is where a chain belongs, by its hook; nil for nowhere.
func (d *Drops) at(c *nftables.Chain) *[]string {
	switch {
	case c.Hooknum == nil || familyName(c.Table.Family) == "":
		return nil
	case *c.Hooknum == unix.NF_INET_FORWARD:
		return &d.Forwarded
	case *c.Hooknum == unix.NF_INET_LOCAL_IN:
		return &d.Received
	}
	return nil
}

// familyName is "" for those in which nothing is forwarded that we route.
func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	case nftables.TableFamilyINet:
		return "inet"
	}
	return ""
}

// refusesTheRest is that a chain drops what none of its rules is about: by its policy,
// as ufw and docker have it, or by a last rule that asks nothing, as firewalld has it.
func refusesTheRest(conn *nftables.Conn, c *nftables.Chain) (bool, error) {
	if c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
		return true, nil
	}
	rules, err := rulesOf(conn, c)
	return len(rules) > 0 && refusesAll(rules[len(rules)-1].Exprs), err
}

// rulesOf are a chain's; none of one that is gone by now.
func rulesOf(conn *nftables.Conn, c *nftables.Chain) ([]*nftables.Rule, error) {
	rules, err := conn.GetRules(c.Table, c)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list rules of chain %s: %w", c.Name, err)
	}
	return rules, nil
}

// refusesAll reports whether a rule drops or rejects every packet. Pure.
func refusesAll(rule []expr.Any) bool {
	for _, e := range rule {
		switch e := e.(type) {
		case *expr.Counter, *expr.Log:
		case *expr.Reject:
			return true
		case *expr.Verdict:
			return e.Kind == expr.VerdictDrop
		case *expr.Match: // of iptables, as the next
			if e.Name != "comment" {
				return false
			}
		case *expr.Target:
			return e.Name == "REJECT"
		default:
			return false
		}
	}
	return false
}

// namesUs is that a chain, or one that it leads to, has a rule for what comes from our
// devices.
func namesUs(conn *nftables.Conn, base *nftables.Chain) (bool, error) {
	chains := []string{base.Name}
	for i := 0; i < len(chains); i++ { // more are found on the way
		rules, err := rulesOf(conn, &nftables.Chain{Table: base.Table, Name: chains[i]})
		if err != nil {
			return false, err
		}
		for _, r := range rules {
			if asksForUs(r.Exprs) {
				return true, nil
			}
			for _, next := range leadsTo(r.Exprs) {
				if !slices.Contains(chains, next) {
					chains = append(chains, next)
				}
			}
		}
	}
	return false, nil
}

// leadsTo are the chains to which a rule sends packets by name. Pure.
func leadsTo(rule []expr.Any) []string {
	var all []string
	for _, e := range rule {
		if v, ok := e.(*expr.Verdict); ok && v.Chain != "" {
			all = append(all, v.Chain)
		}
	}
	return all
}

// asksForUs reports whether a rule looks at the name of the device that a packet
// comes by, and compares it with those of our bridges. Pure.
func asksForUs(rule []expr.Any) bool {
	var name uint32 // the register that has it
	for _, e := range rule {
		switch e := e.(type) {
		case *expr.Meta:
			if e.Key == expr.MetaKeyIIFNAME {
				name = e.Register
			}
		case *expr.Cmp:
			if name != 0 && e.Register == name && e.Op == expr.CmpOpEq && bytes.HasPrefix(e.Data, []byte(bridgePrefix)) {
				return true
			}
		}
	}
	return false
}
