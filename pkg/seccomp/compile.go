package seccomp

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// struct seccomp_data, in bytes. Each argument has its low half first.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

// maxInstructions is BPF_MAXINSNS, the kernel's bound of a program.
const maxInstructions = 4096

// code is a piece of a program that ends with a return on every way through it,
// so that pieces can be put one behind the other without labels.
type code []bpf.Instruction

func returns(action uint32) code { return code{bpf.RetConstant{Val: action}} }

// program compiles the policy.
func (p *policy) program() ([]byte, error) {
	c := code{bpf.LoadAbsolute{Off: offArch, Size: 4}}
	for _, audit := range p.audits() {
		block := append(code{bpf.LoadAbsolute{Off: offNumber, Size: 4}}, tree(p.spans(audit))...)
		c = append(c, bpf.JumpIf{Cond: bpf.JumpEqual, Val: audit, SkipTrue: 1}, bpf.Jump{Skip: uint32(len(block))})
		c = append(c, block...)
	}
	c = append(c, returns(actKillProcess)...)
	if len(c) > maxInstructions {
		return nil, fmt.Errorf("the profile needs %d instructions: the kernel takes %d", len(c), maxInstructions)
	}
	raw, err := bpf.Assemble(c)
	if err != nil {
		return nil, fmt.Errorf("assemble: %w", err)
	}
	var out []byte
	for _, r := range raw {
		out = binary.LittleEndian.AppendUint16(out, r.Op)
		out = append(out, r.Jt, r.Jf)
		out = binary.LittleEndian.AppendUint32(out, r.K)
	}
	return out, nil
}

// audits are the values of seccomp_data.arch that have rules, each once.
func (p *policy) audits() []uint32 {
	var out []uint32
	for _, a := range p.abis {
		if !slices.Contains(out, a.audit) {
			out = append(out, a.audit)
		}
	}
	return out
}

// span is what happens to the numbers from from on, up to the next span's.
type span struct {
	from     uint32
	action   uint32
	decision code // in place of action, if there are conditions
}

func (s span) code() code {
	if s.decision != nil {
		return s.decision
	}
	return returns(s.action)
}

// x32Bit separates the numbers of x32 from those of x86-64.
const x32Bit = 0x40000000

// spans cover all numbers of an audit value. The native ABI is the first.
func (p *policy) spans(audit uint32) []span {
	var out []span
	for _, a := range p.abis {
		if a.audit == audit {
			out = append(out, p.table(a)...)
		}
	}
	if audit == p.abis[0].audit && !slices.ContainsFunc(p.abis, isX32) {
		out = append(out, span{from: x32Bit, action: actKillProcess})
	}
	return joined(out)
}

func isX32(a abi) bool { return a.arch == specs.ArchX32 }

// joined merges neighbours that do the same.
func joined(spans []span) []span {
	var out []span
	for _, s := range spans {
		if n := len(out); n > 0 && s.decision == nil && out[n-1].decision == nil && s.action == out[n-1].action {
			continue
		}
		out = append(out, s)
	}
	return out
}

// table is what happens to each number of one ABI.
func (p *policy) table(a abi) []span {
	rules := p.byNumber(a)
	out := []span{{from: a.bit, action: p.fallback}}
	for _, n := range slices.Sorted(maps.Keys(rules)) {
		s := p.decide(a, rules[n])
		s.from = a.bit + uint32(n)
		if out[len(out)-1].from == s.from {
			out = out[:len(out)-1]
		}
		out = append(out, s, span{from: s.from + 1, action: p.fallback})
	}
	if p.nosys && len(rules) > 0 {
		out[len(out)-1].action = actErrno | uint32(unix.ENOSYS)
	}
	return out
}

// byNumber sorts the rules by the calls of one ABI, in the profile's order.
// Names that the ABI does not have are left out, as runc does.
func (p *policy) byNumber(a abi) map[int][]rule {
	out := map[int][]rule{}
	for _, r := range p.rules {
		for _, name := range r.names {
			if n, ok := a.number[name]; ok {
				out[n] = append(out[n], r)
			}
			if m, ok := a.multiplexed[name]; ok {
				// The real arguments are behind a pointer, which no filter can follow.
				which := specs.LinuxSeccompArg{Value: m.index, Op: specs.OpEqualTo}
				n := a.number[m.call]
				out[n] = append(out[n], rule{action: r.action, args: []specs.LinuxSeccompArg{which}})
			}
		}
	}
	return out
}

// decide is what happens to one call: an unconditional rule wins, then the
// first whose conditions hold. A rule for the default action adds nothing.
func (p *policy) decide(a abi, rules []rule) span {
	var conditional []rule
	for _, r := range rules {
		switch {
		case r.action == p.fallback:
		case len(r.args) == 0:
			return span{action: r.action}
		default:
			conditional = append(conditional, r)
		}
	}
	if len(conditional) == 0 {
		return span{action: p.fallback}
	}
	var c code
	for _, r := range conditional {
		c = append(c, r.code(a.narrow)...)
	}
	return span{decision: append(c, returns(p.fallback)...)}
}

// tree finds the span of the number that is loaded, by halves.
func tree(spans []span) code {
	if len(spans) == 1 {
		return spans[0].code()
	}
	mid := len(spans) / 2
	left, right := tree(spans[:mid]), tree(spans[mid:])
	above := bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: spans[mid].from}
	var c code
	if len(left) <= 255 {
		above.SkipTrue = uint8(len(left))
		c = code{above}
	} else {
		above.SkipFalse = 1
		c = code{above, bpf.Jump{Skip: uint32(len(left))}}
	}
	return append(append(c, left...), right...)
}

// code returns the rule's action if all its conditions hold, and else goes on
// behind itself. It is short: six conditions of six instructions.
func (r rule) code(narrow bool) code {
	c := returns(r.action)
	for _, arg := range slices.Backward(r.args) {
		c = append(condition(arg, narrow, uint8(len(c))), c...)
	}
	return c
}

func knownOp(op specs.LinuxSeccompOperator) bool {
	return condition(specs.LinuxSeccompArg{Op: op}, false, 0) != nil
}

// condition goes on behind itself if it holds, and else skips rest more
// instructions. An argument is compared by halves; in 32-bit calls it has one.
func condition(a specs.LinuxSeccompArg, narrow bool, rest uint8) code {
	low := bpf.LoadAbsolute{Off: offArgs + 8*uint32(a.Index), Size: 4}
	high := bpf.LoadAbsolute{Off: low.Off + 4, Size: 4}
	vl, vh := uint32(a.Value), uint32(a.Value>>32)
	wide := func(c ...bpf.Instruction) code {
		if narrow {
			return nil
		}
		return c
	}
	switch a.Op {
	case specs.OpEqualTo:
		return append(wide(high, bpf.JumpIf{Cond: bpf.JumpEqual, Val: vh, SkipFalse: 2 + rest}),
			low, bpf.JumpIf{Cond: bpf.JumpEqual, Val: vl, SkipFalse: rest})
	case specs.OpNotEqual:
		return append(wide(high, bpf.JumpIf{Cond: bpf.JumpEqual, Val: vh, SkipFalse: 2}),
			low, bpf.JumpIf{Cond: bpf.JumpEqual, Val: vl, SkipTrue: rest})
	case specs.OpGreaterThan, specs.OpGreaterEqual:
		cond := bpf.JumpGreaterThan
		if a.Op == specs.OpGreaterEqual {
			cond = bpf.JumpGreaterOrEqual
		}
		return append(wide(high, bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: vh, SkipTrue: 3}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: vh, SkipFalse: 2 + rest}),
			low, bpf.JumpIf{Cond: cond, Val: vl, SkipFalse: rest})
	case specs.OpLessThan, specs.OpLessEqual:
		cond := bpf.JumpGreaterThan
		if a.Op == specs.OpLessThan {
			cond = bpf.JumpGreaterOrEqual
		}
		return append(wide(high, bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: vh, SkipTrue: 3 + rest}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: vh, SkipFalse: 2}),
			low, bpf.JumpIf{Cond: cond, Val: vl, SkipTrue: rest})
	case specs.OpMaskedEqual:
		dl, dh := uint32(a.ValueTwo), uint32(a.ValueTwo>>32)
		return append(wide(high, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: vh}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: dh, SkipFalse: 3 + rest}),
			low, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: vl}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: dl, SkipFalse: rest})
	}
	return nil
}
