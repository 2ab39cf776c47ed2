// Package peer carries connections between guests in user mode that are in one
// network. Each guest has a network stack of its own at the other end of its link,
// in the process of its supervisor; peer is a socket of that process, at which the
// other supervisors ask for connections to the guest.
//
// What it is not: a switch. No frame and no packet goes between VMs, but the bytes
// of TCP connections and the datagrams of UDP flows. It is not a decision who is in
// a network either: its callers know that.
//
// Who asks is a process of the same user, of whatever version or state. The
// protocol is request.go's and conn.go's.
//
// Lifecycle: Listen, then Serve once the guests can be reached; Close frees all.
// Methods are safe for concurrent use.
package peer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/micropod/micropod/pkg/network/relay"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"
)

// Guest is the way to a guest. from is the address that it is to see. ctx bounds the
// call only.
type Guest interface {
	DialTCP(ctx context.Context, from netip.AddrPort, port uint16) (relay.Stream, error)
	DialUDP(ctx context.Context, from netip.AddrPort, port uint16) (relay.Socket, error)
	DialPing(ctx context.Context, from netip.Addr) (relay.Socket, error)
}

// Member is the place of a guest in a network.
type Member struct {
	Network string       // id
	Address netip.Prefix // with the length of the network's prefix
	Gateway netip.Addr
	// Address6 and Gateway6 are the same of IPv6; invalid without.
	Address6 netip.Prefix
	Gateway6 netip.Addr
	Guest    Guest
}

// has reports whether a guest may be asked for at an address by another one.
func (m Member) has(to, from netip.Addr) bool {
	at, gateway := m.Address, m.Gateway
	if to.Is6() {
		at, gateway = m.Address6, m.Gateway6
	}
	return to == at.Addr() && at.Contains(from) && from != to && from != gateway
}

const (
	// requestTime is how long somebody may take to say what is wanted.
	requestTime = 5 * time.Second
	// dialTimeout bounds the wait for a guest.
	dialTimeout = 30 * time.Second
	// acceptPause is how long a socket that fails, of too many descriptors most
	// likely, is left alone.
	acceptPause = 100 * time.Millisecond
)

// Server is the socket of a supervisor.
type Server struct {
	listener *net.UnixListener
	log      *slog.Logger

	all, streams *semaphore.Weighted
	flows        *relay.Flows

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	members []Member // nil before Serve
}

// Listen makes the socket, in the place of one that a lost process left. Nobody is
// answered before Serve.
func Listen(path string, l Limits, log *slog.Logger) (*Server, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove stale socket for peers: %w", err)
	}
	listener, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("listen for peers: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		return nil, fmt.Errorf("protect socket for peers: %w", err)
	}
	s := &Server{
		listener: listener, log: log, flows: relay.NewFlows(l.Flows),
		all: semaphore.NewWeighted(int64(l.Streams + l.Flows)), streams: semaphore.NewWeighted(int64(l.Streams)),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Become replaces the members. Connections to one that has gone end with its guest.
func (s *Server) Become(members []Member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members = append([]Member{}, members...)
}

// Serve lets the others in, and returns at once. It works once.
func (s *Server) Serve(members []Member) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.members != nil || s.ctx.Err() != nil {
		return errors.New("socket for peers: served or closed already")
	}
	s.members = append([]Member{}, members...)
	s.wg.Go(s.accept)
	return nil
}

// Close ends all connections, removes the socket and waits until nothing is left.
// Idempotent.
func (s *Server) Close() {
	s.mu.Lock()
	s.cancel()
	s.listener.Close()
	s.mu.Unlock()
	s.wg.Wait()
}

func (s *Server) accept() {
	failing := false
	for {
		c, err := s.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if !failing { // once for all that fail in a row
				s.log.Warn("accept connection of a peer", "err", err)
			}
			failing = true
			if !relay.Wait(s.ctx, acceptPause) {
				return
			}
			continue
		}
		failing = false
		if !sameUser(c) || !s.all.TryAcquire(1) {
			c.Close() // without an answer, which would have to wait for the request
			continue
		}
		s.wg.Go(func() {
			defer s.all.Release(1)
			s.serve(channel{c})
		})
	}
}

// sameUser reports whether who asks is a process of ours, or root's: whatever the
// modes of the directories above have become.
func sameUser(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	var who *unix.Ucred
	var werr error
	err = raw.Control(func(fd uintptr) { who, werr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return err == nil && werr == nil && (who.Uid == 0 || int(who.Uid) == os.Geteuid())
}

// serve is one connection, from its request to its end.
func (s *Server) serve(c channel) {
	defer c.Close()
	stop := context.AfterFunc(s.ctx, func() { c.Close() })
	defer stop()
	c.SetDeadline(time.Now().Add(requestTime))
	b := make([]byte, requestSize+1) // longer ones are no requests
	n, err := c.Read(b)
	if err != nil {
		return
	}
	r, err := decodeRequest(b[:n])
	if err != nil {
		s.log.Debug("request of a peer", "err", err)
		c.Write(unknown.encode())
		return
	}
	c.SetDeadline(time.Time{})
	m, ok := s.member(r)
	switch {
	case !ok:
		c.Write(stranger.encode())
	case r.Protocol == UDP:
		s.serveFlow(c, r, func(ctx context.Context) (relay.Socket, error) { return m.Guest.DialUDP(ctx, r.From, r.To.Port()) })
	case r.Protocol == ICMP:
		s.serveFlow(c, r, func(ctx context.Context) (relay.Socket, error) { return m.Guest.DialPing(ctx, r.From.Addr()) })
	case !s.streams.TryAcquire(1):
		c.Write(busy.encode())
	default:
		defer s.streams.Release(1)
		s.serveTCP(c, m, r)
	}
}

// member is the guest that a request is for, if it may be.
func (s *Server) member(r Request) (Member, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.members {
		if m.Network == r.Network {
			return m, m.has(r.To.Addr(), r.From.Addr())
		}
	}
	return Member{}, false
}

func (s *Server) serveTCP(c channel, m Member, r Request) {
	ctx, cancel := context.WithTimeout(s.ctx, dialTimeout)
	defer cancel()
	guest, err := m.Guest.DialTCP(ctx, r.From, r.To.Port())
	if err != nil {
		s.refuse(c, r, err)
		return
	}
	if _, err := c.Write(accepted.encode()); err != nil {
		guest.Reset()
		return
	}
	relay.Streams(s.ctx, guest, newStream(c))
}

// serveFlow is a connection whose messages are datagrams.
func (s *Server) serveFlow(c channel, r Request, dial func(context.Context) (relay.Socket, error)) {
	ctx, cancel := context.WithTimeout(s.ctx, dialTimeout)
	defer cancel()
	guest, err := dial(ctx)
	if err != nil {
		s.refuse(c, r, err)
		return
	}
	f := s.flows.Open(r.To.Port(), func() {
		guest.Close()
		c.Close()
	})
	defer f.Close()
	if _, err := c.Write(accepted.encode()); err != nil {
		return
	}
	other := newDatagrams(c)
	var wg sync.WaitGroup
	wg.Go(func() { f.Copy(s.ctx, guest, other, false) })
	wg.Go(func() { f.Copy(s.ctx, other, guest, true) })
	wg.Wait()
}

// refuse tells why there is no connection.
func (s *Server) refuse(c channel, r Request, err error) {
	s.log.Debug("connection of a peer", "from", r.From, "to", r.To, "err", err)
	v := refused
	if errors.Is(err, context.DeadlineExceeded) {
		v = silent
	}
	c.Write(v.encode())
}
