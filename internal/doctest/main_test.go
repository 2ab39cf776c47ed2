package doctest

import (
	"log"
	"testing"

	"github.com/micropod/micropod/test/networld"
)

func TestMain(m *testing.M) {
	if err := networld.Isolate(); err != nil {
		log.Fatal(err)
	}
	m.Run()
}
