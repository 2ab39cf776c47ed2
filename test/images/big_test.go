package main

import (
	"bytes"
	"compress/gzip"
	"testing"
)

// Each layer of big brings packages, and none brings one that a lower one has.
func TestBigLayersShareNoPackage(t *testing.T) {
	made(t)
	closures, err := bigClosures()
	if err != nil {
		t.Fatal(err)
	}
	if len(closures) != len(bigParts()) {
		t.Errorf("%d layers of packages, want %d", len(closures), len(bigParts()))
	}
	seen := map[string]bool{}
	for i, specs := range closures {
		if len(specs) == 0 {
			t.Errorf("layer %d has no package", i)
		}
		for _, s := range specs {
			if seen[s] {
				t.Errorf("layer %d has %s again", i, s)
			}
			seen[s] = true
		}
	}
}

func TestBigNoiseDoesNotCompress(t *testing.T) {
	content := noiseTree()["srv/noise"].content
	if len(content) != bigNoise {
		t.Fatalf("%d bytes, want %d", len(content), bigNoise)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	sample := content[:1<<20]
	if _, err := z.Write(sample); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if packed.Len() < len(sample) {
		t.Errorf("%d bytes become %d", len(sample), packed.Len())
	}
}
