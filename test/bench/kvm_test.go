package main

import (
	"maps"
	"testing"
	"time"
)

const supervisorLog = `time=T level=DEBUG msg=firecracker vm=x step=configure took=2ms
time=T level=DEBUG msg=firecracker vm=x step=boot took=40ms
time=T level=DEBUG msg="phase done" phase=vmm duration=100ms
time=T level=DEBUG msg="guest phase done" phase=init at=300ms
time=T level=DEBUG msg="guest phase done" phase=modules at=340ms
time=T level=DEBUG msg="guest phase done" phase=mounts at=341ms
time=T level=DEBUG msg="guest phase done" phase=connected at=342ms
time=T level=DEBUG msg="phase done" phase=boot duration=400ms
time=T level=DEBUG msg="guest phase done" phase=overlay at=350ms
time=T level=DEBUG msg="guest phase done" phase=stage at=370ms
time=T level=DEBUG msg="guest phase done" phase=exec at=375ms
time=T level=DEBUG msg="guest phase done" phase=started at=380ms
`

func TestSplitLog(t *testing.T) {
	got, err := splitLog(supervisorLog)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]time.Duration{beforeKernel: 98 * time.Millisecond}
	for i, d := range []time.Duration{300, 40, 2, 8, 20, 5} {
		want[phases()[i].name] = d * time.Millisecond
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for _, log := range []string{"", supervisorLog[:len(supervisorLog)/2], supervisorLog[200:]} {
		if got, err := splitLog(log); err == nil {
			t.Errorf("%q: %v", log, got)
		}
	}
}

func TestSlope(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		want   float64
	}{{[]float64{5, 5}, 0}, {[]float64{1, 3, 5}, 2}, {[]float64{4, 2, 3, 1}, -0.8}} {
		if got := slope(tt.values); got != tt.want {
			t.Errorf("%v: %v, want %v", tt.values, got, tt.want)
		}
	}
}

func TestParseStat(t *testing.T) {
	p, err := parseStat([]byte("12 (a ) b) S 7 12 12 0 -1 4 1 2 3 4 10 20 30 40 20 0 1 0 5 6\n"))
	if want := (processInfo{"a ) b", 7, 100}); err != nil || p != want {
		t.Errorf("%v, %v; want %v", p, err, want)
	}
	for _, text := range []string{"", "1 ) a (", "1 (a) S 7", "1 (a) S x 12 12 0 -1 4 1 2 3 4 10 20 30 40 20"} {
		if p, err := parseStat([]byte(text)); err == nil {
			t.Errorf("%q: %v", text, p)
		}
	}
}

func TestReplace(t *testing.T) {
	config := map[string]any{"vsock": map[string]any{"uds_path": "/a"}}
	if err := replace(config, "vsock", "uds_path", "/b"); err != nil || config["vsock"].(map[string]any)["uds_path"] != "/b" {
		t.Errorf("%v, %v", config, err)
	}
	for _, field := range []string{"uds", ""} {
		if err := replace(config, "vsock", field, "/b"); err == nil {
			t.Errorf("%q is replaced", field)
		}
	}
	if err := replace(config, "boot-source", "initrd_path", "/b"); err == nil {
		t.Error("a part that is not there has a field replaced")
	}
}
