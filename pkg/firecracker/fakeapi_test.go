package firecracker

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// fakeAPI is a small server that behaves as Firecracker's: one request at a
// time, ten connections, no chunked bodies, an empty reason phrase, a raw
// newline in the errors of its HTTP layer, nothing read over 51200 bytes.
type fakeAPI struct {
	version string
	// on is called for every request that the facts allow; a text refuses it.
	on func(method, path string, body []byte) (fault string)

	one      sync.Mutex // one request at a time
	mu       sync.Mutex
	open     int
	accepted int
	dropped  int // answers lost to a half-closed connection
	started  bool
	seen     []string // "PUT /drives/vda {…}"
	headers  []string // of the last request
}

const maxFakeConns = 10

// serve runs until the listener is closed.
func (s *fakeAPI) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.accepted++
		full := s.open >= maxFakeConns
		if !full {
			s.open++
		}
		s.mu.Unlock()
		if full {
			answer(c, 503, `{ "error": "Too many open connections." }`)
			c.Close()
			continue
		}
		go s.connection(c.(*net.UnixConn))
	}
}

func (s *fakeAPI) connection(c *net.UnixConn) {
	defer func() {
		c.Close()
		s.mu.Lock()
		s.open--
		s.mu.Unlock()
	}()
	r := bufio.NewReaderSize(c, 1024)
	for {
		method, path, body, err := s.read(r)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			// As micro-http does: no JSON because of the newline.
			answer(c, 400, `{ "error": "`+err.Error()+"\nAll previous unanswered requests will be dropped.\" }")
			return
		}
		s.one.Lock()
		status, text := s.handle(method, path, body)
		s.one.Unlock()
		if halfClosed(c) {
			s.mu.Lock()
			s.dropped++
			s.mu.Unlock()
			return
		}
		answer(c, status, text)
	}
}

// read takes one request off the connection.
func (s *fakeAPI) read(r *bufio.Reader) (method, path string, body []byte, err error) {
	line, err := readLine(r)
	if err != nil {
		return "", "", nil, err
	}
	parts := strings.Split(line, " ")
	if len(parts) != 3 || (parts[2] != "HTTP/1.1" && parts[2] != "HTTP/1.0") {
		return "", "", nil, errors.New("Invalid request line.")
	}
	if !strings.Contains(" GET PUT PATCH DELETE ", " "+parts[0]+" ") {
		return "", "", nil, errors.New("Invalid HTTP Method: Unsupported HTTP method.")
	}
	length := 0
	var headers []string
	for {
		line, err := readLine(r)
		if err != nil {
			return "", "", nil, err
		}
		if line == "" {
			break
		}
		headers = append(headers, line)
		key, value, _ := strings.Cut(line, ":")
		if strings.EqualFold(key, "Content-Length") {
			if length, err = strconv.Atoi(strings.TrimSpace(value)); err != nil || length < 0 {
				return "", "", nil, errors.New("Invalid content length.")
			}
		}
	}
	s.mu.Lock()
	s.headers = headers
	s.mu.Unlock()
	if length > maxRequestBody {
		return "", "", nil, fmt.Errorf("Request payload with size %d is larger than the limit of %d allowed by server.", length, maxRequestBody)
	}
	body = make([]byte, length)
	_, err = io.ReadFull(r, body)
	return parts[0], parts[1], body, err
}

func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return "", errors.New("Request line or header is too long.")
	}
	return strings.TrimRight(string(line), "\r\n"), err
}

// handle decides as the API does, by the facts.
func (s *fakeAPI) handle(method, path string, body []byte) (int, string) {
	s.mu.Lock()
	s.seen = append(s.seen, strings.TrimSpace(method+" "+path+" "+string(body)))
	started := s.started
	s.mu.Unlock()
	name, e, ok := route(method, path)
	if !ok {
		return fault("Invalid request method and/or path: %s %s.", method, strings.TrimPrefix(path, "/"))
	}
	hinting := strings.HasPrefix(path, "/balloon/hinting/")
	switch {
	case hasBody(method) && len(body) == 0 && !hinting:
		return fault("Empty %s request.", method)
	case !hasBody(method) && len(body) > 0:
		return fault("%s request cannot have a body.", method)
	case !e.both && e.post != started:
		return fault("The requested operation is not supported %s starting the microVM.", map[bool]string{true: "before", false: "after"}[e.post])
	}
	if len(e.fields) > 0 && len(body) > 0 {
		var data any
		d := json.NewDecoder(bytes.NewReader(body))
		d.UseNumber()
		err := d.Decode(&data)
		if err == nil {
			err = judge(data, e.fields, name)
		}
		if err != nil {
			return fault("An error occurred when deserializing the json body of a request: %v.", err)
		}
	}
	if s.on != nil {
		if text := s.on(method, path, body); text != "" {
			return fault("%s", text)
		}
	}
	if method == "GET" {
		return s.get(path)
	}
	if path == "/actions" && strings.Contains(string(body), "InstanceStart") {
		s.mu.Lock()
		s.started = true
		s.mu.Unlock()
	}
	return 204, ""
}

func (s *fakeAPI) get(path string) (int, string) {
	switch path {
	case "/version":
		return 200, fmt.Sprintf(`{"firecracker_version":%q}`, s.version)
	case "/":
		return 200, fmt.Sprintf(`{"id":"abc","state":"Not started","vmm_version":%q,"app_name":"Firecracker"}`, s.version)
	case "/machine-config":
		return 200, `{"vcpu_count":1,"mem_size_mib":128,"smt":false,"track_dirty_pages":false,"huge_pages":"None"}`
	}
	return 200, `{}`
}

func fault(format string, args ...any) (int, string) {
	text, err := json.Marshal(map[string]string{"fault_message": fmt.Sprintf(format, args...)})
	if err != nil {
		panic(err)
	}
	return 400, string(text)
}

// answer writes a response with an empty reason phrase.
func answer(w io.Writer, status int, body string) {
	out := fmt.Sprintf("HTTP/1.1 %d \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n", status)
	if body != "" {
		out += fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	_, _ = io.WriteString(w, out+"\r\n"+body)
}

// halfClosed reports that the peer will write no more.
func halfClosed(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	var gone bool
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, _ := unix.Poll(p, 0)
		gone = n > 0 && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP) != 0
	})
	return gone || err != nil
}
