package nameserver

import (
	"golang.org/x/net/dns/dnsmessage"
)

// A name server may do more than answer for those who ask from the host's
// loopback, as it seems to be asked from here: nothing but questions is passed
// on, and none for a whole zone.

// verdict is what becomes of a message.
type verdict int

const (
	drop   verdict = iota // not even an answer
	refuse                // an answer that says why not
	passOn                // a question
)

// question is a decoded message of a guest.
type question struct {
	raw     []byte
	verdict verdict
	rcode   dnsmessage.RCode // of refuse
	header  dnsmessage.Header
	dnsmessage.Question
	// room is the largest datagram that the guest takes, in bytes.
	room int
	edns bool // the answer must have an OPT record too: RFC 6891 section 6.1.1
}

const (
	headerSize = 12
	// smallRoom is what everybody takes; largeRoom more than anybody should ask
	// for, and what fits in every IPv4 datagram.
	smallRoom = 512
	largeRoom = 65507
	// ourRoom is the largest question that is taken, as answers say.
	ourRoom = maxQuestion
)

// typeIXFR asks for the changes of a zone: RFC 1995.
const typeIXFR = dnsmessage.Type(251)

// decode reads a message of a guest. Pure.
func decode(b []byte) question {
	q := question{raw: b, room: smallRoom, rcode: dnsmessage.RCodeFormatError}
	if len(b) < headerSize {
		return q
	}
	var p dnsmessage.Parser
	var err error
	if q.header, err = p.Start(b); err != nil || q.header.Response {
		return q // to answer an answer may go on for ever
	}
	q.verdict = refuse
	if q.header.OpCode != 0 {
		q.rcode = dnsmessage.RCodeNotImplemented
		return q
	}
	if q.Question, err = p.Question(); err != nil {
		return q
	}
	if _, err = p.Question(); err != dnsmessage.ErrSectionDone {
		return q
	}
	if q.Type == typeIXFR || q.Type == dnsmessage.TypeAXFR {
		q.rcode = dnsmessage.RCodeRefused
		return q
	}
	if q.options(&p) != nil {
		return q
	}
	q.verdict = passOn
	return q
}

// options reads what the guest says of itself, RFC 6891, behind all else.
func (q *question) options(p *dnsmessage.Parser) error {
	if err := p.SkipAllAnswers(); err != nil {
		return err
	}
	if err := p.SkipAllAuthorities(); err != nil {
		return err
	}
	for {
		h, err := p.AdditionalHeader()
		if err == dnsmessage.ErrSectionDone {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Type == dnsmessage.TypeOPT {
			q.edns, q.room = true, max(smallRoom, min(int(h.Class), largeRoom))
		}
		if err := p.SkipAdditional(); err != nil {
			return err
		}
	}
}

// fit cuts an answer that the guest could not take by UDP, so that it asks by
// TCP: RFC 2181 section 9.
func fit(reply []byte, room int) []byte {
	if len(reply) <= room {
		return reply
	}
	var p dnsmessage.Parser
	h, err := p.Start(reply)
	if err != nil {
		return nil
	}
	q, err := p.AllQuestions()
	if err != nil {
		return nil
	}
	h.Truncated = true
	b, err := (&dnsmessage.Message{Header: h, Questions: q}).Pack()
	if err != nil || len(b) > room {
		return nil
	}
	return b
}

// failure turns a question into an answer that has nothing but a reason, and the
// question if that could be read: RFC 1035 section 4.1.1.
func (q question) failure(code dnsmessage.RCode) []byte {
	m := dnsmessage.Message{Header: q.answerHeader(code)}
	if q.verdict == passOn {
		m.Questions = []dnsmessage.Question{q.Question}
	}
	return q.pack(m)
}

func (q question) answerHeader(code dnsmessage.RCode) dnsmessage.Header {
	return dnsmessage.Header{
		ID: q.header.ID, Response: true, OpCode: q.header.OpCode, RCode: code,
		RecursionDesired: q.header.RecursionDesired, RecursionAvailable: true,
	}
}

// pack encodes an answer; nil for one that has no encoding.
func (q question) pack(m dnsmessage.Message) []byte {
	if q.edns {
		var h dnsmessage.ResourceHeader
		if err := h.SetEDNS0(ourRoom, dnsmessage.RCodeSuccess, false); err == nil {
			m.Additionals = append(m.Additionals, dnsmessage.Resource{Header: h, Body: &dnsmessage.OPTResource{}})
		}
	}
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}
