package bridge

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
)

const (
	// socketBuffer holds a transaction with many published ports, and its
	// acknowledgements, in bytes.
	socketBuffer = 16 << 20
	// answerTime is how long the kernel may take for a transaction.
	answerTime = 30 * time.Second
	// maxElements is how many elements one message has: a netlink attribute is at
	// most 64 KiB.
	maxElements = 256
)

// tables are those of a Host in the kernel.
type tables struct {
	conn *nftables.Conn
	name string
	policy
}

// policy is what all tables have but for their elements.
type policy struct {
	chains []chain
	// version names the policy: tables of another one are made anew.
	version string
}

// thePolicy is put together once: a process changes the tables several times while its
// VM starts. It is only read.
var thePolicy = sync.OnceValues(func() (policy, error) {
	all := chains()
	version, err := policyVersion(all)
	return policy{all, version}, err
})

func openTables(table string) (*tables, error) {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(setBuffers))
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	p, err := thePolicy()
	if err != nil {
		return nil, errors.Join(err, conn.CloseLasting())
	}
	return &tables{conn, table, p}, nil
}

// socket is what is asked of nftables' own.
type socket interface {
	SetWriteBuffer(bytes int) error
	SetReadBuffer(bytes int) error
	SetDeadline(t time.Time) error
}

func setBuffers[S socket](c S) error {
	return errors.Join(c.SetWriteBuffer(socketBuffer), c.SetReadBuffer(socketBuffer), c.SetDeadline(time.Now().Add(answerTime)))
}

func (t *tables) close() error { return t.conn.CloseLasting() }

func families() []nftables.TableFamily {
	return []nftables.TableFamily{nftables.TableFamilyBridge, nftables.TableFamilyINet}
}

func (t *tables) table(family nftables.TableFamily) *nftables.Table {
	return &nftables.Table{Family: family, Name: t.name}
}

// policyVersion is a name made of chains and all sets.
func policyVersion(chains []chain) (string, error) {
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

// read is what the tables have. Whole is false when there is a part of the
// policy that they lack; what they have counts all the same.
func (t *tables) read() (have contents, whole bool, err error) {
	have, whole = contents{}, true
	for _, family := range families() {
		there, err := t.exists(family)
		if err != nil {
			return nil, false, err
		}
		if !there {
			whole = false
			continue
		}
		ok, err := t.readSets(family, have)
		if err != nil {
			return nil, false, err
		}
		whole = whole && ok
	}
	if whole {
		whole, err = t.rulesThere()
	}
	return have, whole, err
}

func (t *tables) exists(family nftables.TableFamily) (bool, error) {
	_, err := t.conn.ListTableOfFamily(t.name, family)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for nftables table %s: %w", t.name, err)
	}
	return true, nil
}

// readSets is true if all sets of the family are there, and the version's.
func (t *tables) readSets(family nftables.TableFamily, into contents) (bool, error) {
	table := t.table(family)
	there, err := t.conn.GetSets(table)
	if err != nil {
		return false, fmt.Errorf("list sets of table %s: %w", t.name, err)
	}
	has := func(name string) bool {
		return slices.ContainsFunc(there, func(o *nftables.Set) bool { return o.Name == name })
	}
	whole := has(t.version)
	for _, s := range sets() {
		if s.family != family {
			continue
		}
		if !has(s.name) {
			whole = false
			continue
		}
		if err := t.readSet(s, into); err != nil {
			return false, err
		}
	}
	return whole, nil
}

func (t *tables) readSet(s set, into contents) error {
	if s.ranges != nil {
		return nil
	}
	described, err := s.in(t.table(s.family))
	if err != nil {
		return err
	}
	elements, err := t.conn.GetSetElements(described)
	if err != nil {
		return fmt.Errorf("list set %s of table %s: %w", s.name, t.name, err)
	}
	for _, el := range elements {
		if len(el.Key) != int(described.KeyType.Bytes) || len(el.Val) != int(described.DataType.Bytes) {
			continue // of another version of the policy
		}
		into.put(s.name, el.Key, el.Val, el.Comment)
	}
	return nil
}

// rulesThere is that each chain has as many rules as it should.
func (t *tables) rulesThere() (bool, error) {
	for _, family := range families() {
		count, err := countRules(family, t.name)
		if err != nil {
			return false, fmt.Errorf("list rules of table %s: %w", t.name, err)
		}
		for _, c := range t.chains {
			if c.family == family && count[c.name] != len(c.rules) {
				return false, nil
			}
		}
	}
	return true, nil
}

// change makes of the tables what want says, in one transaction: with the
// elements that differ where the policy is whole, else from nothing.
func (t *tables) change(have, want contents, whole bool) error {
	switch {
	case want.empty():
		t.queueDelete()
	case whole:
		if err := errors.Join(t.queueElements(have.minus(want), t.conn.SetDeleteElements),
			t.queueElements(want.minus(have), t.conn.SetAddElements)); err != nil {
			return err
		}
	default:
		t.queueDelete()
		if err := t.queueAll(want); err != nil {
			return err
		}
	}
	if err := t.flush(); err != nil {
		return fmt.Errorf("change nftables table %s: %w", t.name, err)
	}
	return nil
}

// flush sends what is queued. The kernel answers each message that it refuses; the
// first of them says why, and the others follow from it.
func (t *tables) flush() error {
	err := t.conn.Flush()
	for {
		var all interface{ Unwrap() []error }
		if !errors.As(err, &all) || len(all.Unwrap()) == 0 {
			return err
		}
		err = all.Unwrap()[0]
	}
}

// queueDelete deletes the tables, there or not: what is added first can be.
func (t *tables) queueDelete() {
	for _, family := range families() {
		t.conn.AddTable(t.table(family))
		t.conn.DelTable(t.table(family))
	}
}

func (t *tables) queueAll(want contents) error {
	for _, family := range families() {
		table := t.conn.AddTable(t.table(family))
		version := &nftables.Set{Table: table, Name: t.version, KeyType: nftables.TypeMark}
		if err := t.conn.AddSet(version, nil); err != nil {
			return fmt.Errorf("set %s: %w", t.version, err)
		}
	}
	for _, s := range sets() {
		described, err := s.in(t.table(s.family))
		if err == nil {
			err = t.conn.AddSet(described, s.bounds())
		}
		if err != nil {
			return fmt.Errorf("set %s: %w", s.name, err)
		}
	}
	for _, c := range t.chains {
		t.queueChain(c)
	}
	return t.queueElements(want, t.conn.SetAddElements)
}

func (t *tables) queueChain(c chain) {
	out := &nftables.Chain{Table: t.table(c.family), Name: c.name}
	if c.kind != "" {
		accept := nftables.ChainPolicyAccept // others may have another opinion
		out.Type, out.Hooknum, out.Priority, out.Policy = c.kind, &c.hook, &c.priority, &accept
	}
	t.conn.AddChain(out)
	for _, r := range c.rules {
		rule := &nftables.Rule{Table: out.Table, Chain: out, Exprs: slices.Concat(r.parts...)}
		if r.comment != "" {
			rule.UserData = userdata.AppendString(nil, userdata.TypeComment, r.comment)
		}
		t.conn.AddRule(rule)
	}
}

func (t *tables) queueElements(c contents, queue func(*nftables.Set, []nftables.SetElement) error) error {
	for _, s := range sets() {
		described, err := s.in(t.table(s.family))
		if err != nil {
			return fmt.Errorf("set %s: %w", s.name, err)
		}
		var all []nftables.SetElement
		for k, el := range c[s.name] {
			all = append(all, nftables.SetElement{Key: []byte(k), Val: el.value, Comment: el.owner})
		}
		for some := range slices.Chunk(all, maxElements) {
			if err := queue(described, some); err != nil {
				return fmt.Errorf("elements of set %s: %w", s.name, err)
			}
		}
	}
	return nil
}
