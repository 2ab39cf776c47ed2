package guest

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/micropod/micropod/pkg/agent/api"
)

const (
	openTimeout = 30 * time.Second // for the first frame of a connection
	maxCalls    = 32               // control calls in progress on one connection
	maxConns    = 512              // connections to AgentPort
)

// control is a control connection: calls come in, replies and events go out.
type control struct {
	conn net.Conn
	mu   sync.Mutex // one frame at a time

	ended bool // nothing may belong to it any more (under agent.mu)
}

func (c *control) send(k api.Kind, v any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return api.WriteMessage(c.conn, k, v)
}

// accept serves connections to AgentPort until the listener fails, which means
// that the channel is gone.
func (a *agent) accept(l net.Listener) {
	slots := make(chan struct{}, maxConns)
	for {
		conn, err := l.Accept()
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
			time.Sleep(10 * time.Millisecond) // nothing announces a free descriptor
			continue
		}
		if err != nil {
			a.log.printf("accept: %v", err)
			a.quit()
			return
		}
		slots <- struct{}{}
		go a.log.contain("connection", func() {
			defer func() { <-slots }()
			defer conn.Close()
			a.serve(conn)
		})
	}
}

// serve handles one connection to AgentPort.
func (a *agent) serve(conn net.Conn) {
	timer := time.AfterFunc(openTimeout, func() { conn.Close() })
	var open api.Open
	err := api.ReadMessage(conn, api.KindOpen, &open)
	timer.Stop()
	if err != nil {
		return
	}
	if err := a.admit(open); err != nil {
		_ = api.WriteMessage(conn, api.KindReply, api.Reply{Error: err})
		return
	}
	switch open.Purpose {
	case api.PurposeControl:
		if err := api.WriteMessage(conn, api.KindHello, hello(nil)); err == nil {
			c := &control{conn: conn}
			_ = a.serveControl(c)
			a.controlEnded(c)
		}
	case api.PurposeStdio:
		if err := a.serveStdio(conn, open.Process); err != nil {
			_ = api.WriteMessage(conn, api.KindReply, api.Reply{Error: invalid("stdio", "%v", err)})
		}
	case api.PurposeFiles:
		a.serveFiles(conn, open.Files)
	case api.PurposeDisk:
		a.serveDisk(conn, open.Disk)
	case api.PurposeNIC:
		a.serveNIC(conn, open.NIC)
	}
}

// admit checks an Open: nobody who does not hold the token gets further.
func (a *agent) admit(o api.Open) *api.Error {
	a.mu.Lock()
	token := a.token
	a.mu.Unlock()
	switch {
	case o.Version != api.Version:
		return invalid("open", "protocol version %d, the agent speaks %d", o.Version, api.Version)
	case token == "" || subtle.ConstantTimeCompare([]byte(token), []byte(o.Token)) != 1:
		return invalid("open", "wrong token")
	case !slices.Contains([]api.Purpose{api.PurposeControl, api.PurposeStdio, api.PurposeFiles, api.PurposeDisk, api.PurposeNIC}, o.Purpose):
		return invalid("open", "unknown purpose")
	}
	return nil
}

// serveControl answers calls until the connection ends, and says why it ended:
// the error is never nil, and io.EOF after an orderly end.
func (a *agent) serveControl(c *control) error {
	calls := make(chan struct{}, maxCalls)
	for {
		k, b, err := api.ReadFrame(c.conn, nil)
		if err != nil {
			return err
		}
		var req api.Request
		if k != api.KindRequest {
			return fmt.Errorf("frame of kind %d where a request belongs: %w", k, api.ErrFrame)
		}
		if err := api.Decode(b, &req); err != nil {
			return err
		}
		calls <- struct{}{}
		go func() {
			defer func() { <-calls }()
			a.answer(c, req)
		}()
	}
}

// answer runs one call and replies, even if it panics.
func (a *agent) answer(c *control, req api.Request) {
	reply := api.Reply{ID: req.ID, Error: &api.Error{Code: api.CodeInternal, Message: "the agent panicked: see the console"}}
	var after func()
	a.log.contain(string(req.Method), func() {
		var result any
		var err error
		result, after, err = a.call(c, req)
		reply.Error = asError(err)
		if err == nil && result != nil {
			reply.Result, err = json.Marshal(result)
			reply.Error = asError(err)
		}
	})
	if err := c.send(api.KindReply, reply); err != nil {
		c.conn.Close()
	}
	if after != nil {
		a.log.contain(string(req.Method), after)
	}
}

// call runs one call. What it returns as after runs once the reply is sent.
func (a *agent) call(c *control, req api.Request) (result any, after func(), err error) {
	switch req.Method {
	case api.MethodSetup:
		return answer(req, a.setup)
	case api.MethodStart:
		return perform(req, func(r api.StartRequest) (any, func(), error) { return a.start(c, r, req.Params) })
	case api.MethodExec:
		return perform(req, func(r api.ExecRequest) (any, func(), error) { return a.exec(c, r) })
	case api.MethodSignal:
		return obey(req, a.signal)
	case api.MethodResize:
		return obey(req, a.resize)
	case api.MethodFreeze:
		return obey(req, a.freeze)
	case api.MethodProcesses:
		return answer(req, a.processes)
	case api.MethodStats:
		return answer(req, a.stats)
	case api.MethodUpdate:
		return obey(req, a.update)
	case api.MethodDetach:
		return obey(req, a.detach)
	case api.MethodNetworks:
		return obey(req, a.networks)
	case api.MethodRoot:
		return answer(req, func(r api.RootRequest) (api.SetupReply, error) { return a.makeRoot(c, r) })
	case api.MethodRelease:
		return obey(req, a.releaseRoot)
	case api.MethodShutdown:
		return nil, a.quit, nil
	}
	return nil, nil, invalid("call", "unknown method %q", api.Clean(string(req.Method), 64))
}

// perform does what a request with parameters of type P asks for.
func perform[P any](req api.Request, do func(P) (any, func(), error)) (result any, after func(), err error) {
	var p P
	if err := decodeParams(req, &p); err != nil {
		return nil, nil, err
	}
	return do(p)
}

// answer is perform with nothing to do afterwards.
func answer[P, R any](req api.Request, do func(P) (R, error)) (any, func(), error) {
	return perform(req, func(p P) (any, func(), error) {
		r, err := do(p)
		return r, nil, err
	})
}

// obey is perform without a result either.
func obey[P any](req api.Request, do func(P) error) (any, func(), error) {
	return perform(req, func(p P) (any, func(), error) { return nil, nil, do(p) })
}

func decodeParams(req api.Request, v any) error {
	if err := json.Unmarshal(req.Params, v); err != nil {
		return invalid(string(req.Method), "parameters: %v", err)
	}
	return nil
}

func invalid(phase, format string, args ...any) *api.Error {
	return &api.Error{Code: api.CodeInvalid, Phase: phase, Message: fmt.Sprintf(format, args...)}
}

func internal(phase string, err error) *api.Error {
	return &api.Error{Code: api.CodeInternal, Phase: phase, Message: err.Error()}
}

// asError turns err into what travels to the host.
func asError(err error) *api.Error {
	if err == nil {
		return nil
	}
	var e *api.Error
	if !errors.As(err, &e) {
		e = &api.Error{Code: api.CodeInternal, Message: err.Error()}
	}
	out := *e
	out.Message = api.Clean(out.Message, api.MaxError)
	return &out
}
