package bridge

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"
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
	reader *reader
	queue  *queue
	name   string
}

// policyVersion names the policy, which is chains and all sets: tables of another one
// are made anew. To work it out takes longer than all else that a process does with
// tables that are there; a test does.
const policyVersion = "version_22c3a871bc53283f"

func openTables(table string) (*tables, error) {
	q, err := newQueue()
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	r, err := newReader()
	if err != nil {
		return nil, err
	}
	return &tables{r, q, table}, nil
}

func (t *tables) close() error { return t.reader.close() }

func families() []nftables.TableFamily {
	return []nftables.TableFamily{nftables.TableFamilyBridge, nftables.TableFamilyINet}
}

func (t *tables) table(family nftables.TableFamily) *nftables.Table {
	return &nftables.Table{Family: family, Name: t.name}
}

// read is what the tables have. Whole is false when there is a part of the
// policy that they lack; what they have counts all the same.
func (t *tables) read() (have contents, whole bool, err error) {
	have, whole = contents{}, true
	for _, family := range families() {
		names, there, err := t.reader.names(family, t.name)
		if err != nil {
			return nil, false, fmt.Errorf("list sets of table %s: %w", t.name, err)
		}
		if !there {
			whole = false
			continue
		}
		ok, err := t.readSets(family, names, have)
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

// readSets is true if all sets of the family are there, and the version's.
func (t *tables) readSets(family nftables.TableFamily, names []string, into contents) (bool, error) {
	whole := slices.Contains(names, policyVersion)
	for _, s := range sets() {
		if s.family != family {
			continue
		}
		if !slices.Contains(names, s.name) {
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
	elements, err := t.reader.elements(s.family, t.name, s.name)
	if err != nil {
		return fmt.Errorf("list set %s of table %s: %w", s.name, t.name, err)
	}
	for k, el := range elements {
		if len(k) != int(described.KeyType.Bytes) || len(el.value) != int(described.DataType.Bytes) {
			continue // of another version of the policy
		}
		into.put(s.name, []byte(k), el.value, el.owner)
	}
	return nil
}

// rulesThere is that each chain has as many rules as it should.
func (t *tables) rulesThere() (bool, error) {
	all := chains()
	for _, family := range families() {
		count, err := t.reader.countRules(family, t.name)
		if err != nil {
			return false, fmt.Errorf("list rules of table %s: %w", t.name, err)
		}
		for _, c := range all {
			if c.family == family && count[c.name] != len(c.rules) {
				return false, nil
			}
		}
	}
	return true, nil
}

// change makes of the tables what want says, in one transaction: with the
// elements that differ where the policy is whole, else from nothing. Nothing that
// differs is no transaction: changed is false.
func (t *tables) change(have, want contents, whole bool) (changed bool, err error) {
	switch {
	case want.empty():
		t.queueDelete()
	case whole:
		old, added := have.minus(want), want.minus(have)
		if len(old) == 0 && len(added) == 0 {
			return false, nil
		}
		err = errors.Join(t.queueElements(old, t.queue.SetDeleteElements), t.queueElements(added, t.queue.SetAddElements))
	default:
		t.queueDelete()
		err = t.queueAll(want)
	}
	if err != nil {
		return false, err
	}
	if err := t.flush(); err != nil {
		return false, fmt.Errorf("change nftables table %s: %w", t.name, err)
	}
	return true, nil
}

// flush makes the changes that are queued, or none.
func (t *tables) flush() error {
	batch, err := t.queue.take()
	if err != nil {
		return err
	}
	return transact(batch)
}

// queueDelete deletes the tables, there or not: what is added first can be.
func (t *tables) queueDelete() {
	for _, family := range families() {
		t.queue.AddTable(t.table(family))
		t.queue.DelTable(t.table(family))
	}
}

func (t *tables) queueAll(want contents) error {
	for _, family := range families() {
		table := t.queue.AddTable(t.table(family))
		version := &nftables.Set{Table: table, Name: policyVersion, KeyType: nftables.TypeMark}
		if err := t.queue.AddSet(version, nil); err != nil {
			return fmt.Errorf("set %s: %w", policyVersion, err)
		}
	}
	for _, s := range sets() {
		described, err := s.in(t.table(s.family))
		if err == nil {
			err = t.queue.AddSet(described, s.bounds())
		}
		if err != nil {
			return fmt.Errorf("set %s: %w", s.name, err)
		}
	}
	for _, c := range chains() {
		t.queueChain(c)
	}
	return t.queueElements(want, t.queue.SetAddElements)
}

func (t *tables) queueChain(c chain) {
	out := &nftables.Chain{Table: t.table(c.family), Name: c.name}
	if c.kind != "" {
		accept := nftables.ChainPolicyAccept // others may have another opinion
		out.Type, out.Hooknum, out.Priority, out.Policy = c.kind, &c.hook, &c.priority, &accept
	}
	t.queue.AddChain(out)
	for _, r := range c.rules {
		rule := &nftables.Rule{Table: out.Table, Chain: out, Exprs: slices.Concat(r.parts...)}
		if r.comment != "" {
			rule.UserData = userdata.AppendString(nil, userdata.TypeComment, r.comment)
		}
		t.queue.AddRule(rule)
	}
}

func (t *tables) queueElements(c contents, queue func(*nftables.Set, []nftables.SetElement) error) error {
	for _, s := range sets() {
		if len(c[s.name]) == 0 {
			continue
		}
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
