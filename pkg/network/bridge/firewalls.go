package bridge

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// maxRules is how many rules of others are looked at: those of more take longer than a
// VM may wait for them.
const maxRules = 8192

// Drops are chains of others, as "FAMILY TABLE CHAIN", by which the host drops what
// they do not name. A packet passes only if all chains at its hook let it: what ours
// accept, these drop.
type Drops struct {
	// Forwarded is what guests send to others, and get.
	Forwarded []string
	// Received is what guests send to the host: to its services, and questions for
	// names, which go to the supervisor of the guest's VM.
	Received []string
	// TooMany says that there are more rules than are looked at: what else is dropped
	// is not known.
	TooMany bool
}

// FindDrops looks for them: chains that drop by their policy or their last rule, and
// have no rule for our devices, nor does a chain that they lead to. Who wrote one has
// decided about guests himself. The iptables of old are not seen. It is done anew
// while others change the rules, and looks at a bounded number of them.
func FindDrops() (Drops, error) {
	var d Drops
	all, err := consistent(filters)
	if err != nil {
		return d, fmt.Errorf("list chains: %w", err)
	}
	left := maxRules
	tables := map[tableKey]ruleset{}
	for _, c := range all {
		rules, known := tables[c.of]
		if !known {
			rules, err = consistent(func() (ruleset, error) { return readRules(c.of, left) })
			if err != nil {
				return d, fmt.Errorf("list rules of table %s: %w", c.of, err)
			}
			if !rules.whole {
				d.TooMany = true
				break
			}
			tables[c.of] = rules
			left -= rules.size
		}
		if c.refusesTheRest(rules) && !rules.namesUs(c.name) {
			into := &d.Forwarded
			if c.hook == unix.NF_INET_LOCAL_IN {
				into = &d.Received
			}
			*into = append(*into, c.of.String()+" "+c.name)
		}
	}
	slices.Sort(d.Forwarded)
	slices.Sort(d.Received)
	return d, nil
}

// tableKey names a table.
type tableKey struct {
	family nftables.TableFamily
	name   string
}

func (t tableKey) String() string { return familyName(t.family) + " " + t.name }

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

// filter is a chain at a hook that packets of guests come by.
type filter struct {
	of   tableKey
	name string
	hook uint32
	// drops is its policy.
	drops bool
}

// filters are all of the host's, ours too.
func filters() ([]filter, error) {
	var all []filter
	err := dump(allChains, nftables.TableFamilyUnspecified, "", func(family nftables.TableFamily, c []byte) bool {
		hook, base := number(attribute(c, unix.NFTA_CHAIN_HOOK), unix.NFTA_HOOK_HOOKNUM)
		if base && familyName(family) != "" && (hook == unix.NF_INET_FORWARD || hook == unix.NF_INET_LOCAL_IN) {
			policy, stated := number(c, unix.NFTA_CHAIN_POLICY)
			of := tableKey{family, text(c, unix.NFTA_CHAIN_TABLE)}
			all = append(all, filter{of, text(c, unix.NFTA_CHAIN_NAME), hook, stated && policy == uint32(nftables.ChainPolicyDrop)})
		}
		return true
	})
	return all, err
}

// refusesTheRest is that a chain drops what none of its rules is about: by its policy,
// as ufw and docker have it, or by a last rule that asks nothing, as firewalld has it.
func (c filter) refusesTheRest(r ruleset) bool {
	rules := r.chains[c.name]
	return c.drops || len(rules) > 0 && rules[len(rules)-1].refusesAll()
}

// ruleset is what a table has.
type ruleset struct {
	chains map[string][]foreignRule
	size   int
	// whole is false when there are more rules.
	whole bool
}

// readRules reads at most limit rules of a table. One that is gone by now has none.
func readRules(t tableKey, limit int) (ruleset, error) {
	r := ruleset{chains: map[string][]foreignRule{}, whole: true}
	err := dump(allRules, t.family, t.name, func(_ nftables.TableFamily, attributes []byte) bool {
		if r.size == limit {
			r.whole = false
			return false
		}
		r.size++
		chain := text(attributes, unix.NFTA_RULE_CHAIN)
		r.chains[chain] = append(r.chains[chain], foreignRule(attribute(attributes, unix.NFTA_RULE_EXPRESSIONS)))
		return true
	})
	return r, err
}

// namesUs is that a chain, or one that it leads to, has a rule for what comes from our
// devices.
func (r ruleset) namesUs(chain string) bool {
	chains, found := []string{chain}, map[string]bool{chain: true}
	for i := 0; i < len(chains); i++ { // more are found on the way
		for _, of := range r.chains[chains[i]] {
			if of.asksForUs() {
				return true
			}
			for _, next := range of.leadsTo() {
				if !found[next] {
					found[next] = true
					chains = append(chains, next)
				}
			}
		}
	}
	return false
}
