package relay

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"
)

// sizes collects how much is written at a time.
type sizes []int

func (s *sizes) Write(b []byte) (int, error) {
	*s = append(*s, len(b))
	return len(b), nil
}

// Who has much to say has it carried in full segments, and in no small ones between
// them.
func TestCarryInFullSegments(t *testing.T) {
	var got sizes
	if err := carry(&got, bytes.NewReader(make([]byte, firstBuffer+3*fullBuffer+1))); err != nil {
		t.Fatal(err)
	}
	if want := []int{firstBuffer, fullBuffer, fullBuffer, fullBuffer, 1}; !slices.Equal(got, want) {
		t.Errorf("carried %v, want %v", got, want)
	}
}

func TestCarryAtOnce(t *testing.T) {
	var got bytes.Buffer
	text := "0123456789"
	if err := carry(&got, iotest.DataErrReader(iotest.OneByteReader(bytes.NewReader([]byte(text))))); err != nil {
		t.Fatal(err)
	}
	if got.String() != text {
		t.Errorf("carried %q, want %q", got.String(), text)
	}
}

func TestCarryFails(t *testing.T) {
	broken := errors.New("broken")
	if err := carry(io.Discard, iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("a source that breaks: %v", err)
	}
	r, w := io.Pipe()
	r.CloseWithError(broken)
	if err := carry(w, bytes.NewReader([]byte("x"))); !errors.Is(err, broken) {
		t.Errorf("a target that breaks: %v", err)
	}
}
