package firecracker

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// FuzzFaultMessage: whatever an error body holds, what is kept of it is short,
// valid, one line, and the same when read again.
func FuzzFaultMessage(f *testing.F) {
	for _, s := range []string{
		`{"fault_message":"The kernel file cannot be opened: No such file or directory (os error 2)"}`,
		"{ \"error\": \"Invalid HTTP Method: Unsupported HTTP method.\nAll previous unanswered requests will be dropped.\" }",
		`{"fault_message":""}`, `{"fault_message":1}`, `{"fault_message":{"a":[]}}`, `[]`, `null`, "", "\x00\xff\x1b[2J",
		`{"fault_message":"\u001b[2J\u2028\ud800"}`, strings.Repeat("{\"a\":", 500), strings.Repeat("é", 3000),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got := faultMessage(body)
		if len(got) > maxErrorText || !utf8.ValidString(got) {
			t.Errorf("%d bytes, valid %v", len(got), utf8.ValidString(got))
		}
		if i := strings.IndexFunc(got, unicode.IsControl); i >= 0 {
			t.Errorf("control character at %d of %q", i, got)
		}
		if again := oneLine(got, maxErrorText); again != got {
			t.Errorf("%q becomes %q", got, again)
		}
	})
}

// FuzzAnswer gives the client any bytes as the server's answer: no panic, no
// endless wait, no long error.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 \r\nContent-Length: 32\r\n\r\n{\"firecracker_version\":\"1.12.1\"}",
		"HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n",
		"HTTP/1.1 400 \r\nContent-Length: 20\r\n\r\n{\"fault_message\":\"\"}",
		"HTTP/1.1 100 \r\n\r\nHTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
		"HTTP/1.1 101 \r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "HTTP/1.1 200 \r\nContent-Length: -1\r\n\r\n", "",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		c := newClient(func(context.Context) (net.Conn, error) {
			here, there := net.Pipe()
			go func() {
				defer there.Close()
				go func() { _, _ = io.Copy(io.Discard, there) }()
				_, _ = there.Write(answer)
			}()
			return here, nil
		})
		defer c.Close()
		v, err := c.Version(context.Background())
		if err == nil && v == (Version{}) && !strings.Contains(string(answer), "0.0.0") {
			t.Errorf("no error and no version for %q", answer)
		}
		if e := (*Error)(nil); errors.As(err, &e) && len(e.Message) > maxErrorText {
			t.Errorf("message of %d bytes", len(e.Message))
		}
	})
}

// FuzzParseVersion: what is accepted is written back the same.
func FuzzParseVersion(f *testing.F) {
	for _, s := range []string{"1.16.1", "v1.17.0-dev", "Firecracker v1.12.1\nx", "01.2.3", "1.2.3-", "-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParseVersion(s)
		if err != nil {
			return
		}
		if again, err := ParseVersion(v.String()); err != nil || again != v {
			t.Errorf("%q: %v, then %v, %v", s, v, again, err)
		}
	})
}
