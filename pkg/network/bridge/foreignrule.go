package bridge

import (
	"bytes"
	"iter"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// foreignRule is a rule of somebody else, as the kernel sends it: its expressions
// (linux/netfilter/nf_tables.h, NFTA_RULE_EXPRESSIONS). All of its functions are pure.
type foreignRule []byte

// expressions are the names and the attributes of all, those too that nobody here
// has heard of.
func (r foreignRule) expressions() iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for _, e := range attributes(r) {
			if !yield(text(e, unix.NFTA_EXPR_NAME), attribute(e, unix.NFTA_EXPR_DATA)) {
				return
			}
		}
	}
}

// verdictOf is what an expression "immediate" does with a packet; nil for one that
// writes into another register.
func verdictOf(immediate []byte) []byte {
	if to, _ := number(immediate, unix.NFTA_IMMEDIATE_DREG); to != unix.NFT_REG_VERDICT {
		return nil
	}
	return attribute(attribute(immediate, unix.NFTA_IMMEDIATE_DATA), unix.NFTA_DATA_VERDICT)
}

// refusesAll reports whether a rule drops or rejects every packet.
func (r foreignRule) refusesAll() bool {
	for name, e := range r.expressions() {
		switch name {
		case "counter", "log", "last":
			continue
		case "match": // of iptables, as target
			if text(e, unix.NFTA_MATCH_NAME) == "comment" {
				continue
			}
			return false
		case "target":
			return text(e, unix.NFTA_TARGET_NAME) == "REJECT"
		case "immediate":
			code, there := number(verdictOf(e), unix.NFTA_VERDICT_CODE)
			return there && int32(code) == int32(expr.VerdictDrop)
		}
		return name == "reject"
	}
	return false
}

// leadsTo are the chains to which a rule sends packets by name.
func (r foreignRule) leadsTo() []string {
	var all []string
	for name, e := range r.expressions() {
		if name != "immediate" {
			continue
		}
		if chain := text(verdictOf(e), unix.NFTA_VERDICT_CHAIN); chain != "" {
			all = append(all, chain)
		}
	}
	return all
}

// asksForUs reports whether a rule looks at the name of the device that a packet
// comes by, and compares it with those of our bridges.
func (r foreignRule) asksForUs() bool {
	if !bytes.Contains(r, []byte(bridgePrefix)) {
		return false // as most do not
	}
	var register uint32 // has the name, unless 0
	for name, e := range r.expressions() {
		switch name {
		case "meta":
			key, _ := number(e, unix.NFTA_META_KEY)
			to, _ := number(e, unix.NFTA_META_DREG)
			if key == unix.NFT_META_IIFNAME {
				register = to
			} else if to == register {
				register = 0
			}
		case "cmp":
			from, _ := number(e, unix.NFTA_CMP_SREG)
			how, there := number(e, unix.NFTA_CMP_OP)
			with := attribute(attribute(e, unix.NFTA_CMP_DATA), unix.NFTA_DATA_VALUE)
			if register != 0 && from == register && there && how == unix.NFT_CMP_EQ && bytes.HasPrefix(with, []byte(bridgePrefix)) {
				return true
			}
		}
	}
	return false
}
