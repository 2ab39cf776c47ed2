package image

// meterStep is how many bytes pass between two reports.
const meterStep = 256 << 10

// meter reports one layer's way to a Progress, which may be nil.
type meter struct {
	p        Progress
	id       string
	total    int64
	reported int64 // by moved
}

func newMeter(p Progress, l *layerBlob) *meter {
	return &meter{p: p, id: l.id(), total: max(l.size, 0)}
}

func (m *meter) event(name string) {
	if m.p == nil {
		return
	}
	current := int64(0)
	if name == "exists" || name == "done" {
		current = m.total
	}
	m.p.Layer(m.id, name, current, m.total)
}

// moved is told how many compressed bytes have been read. Downloading and
// extracting are one stream; the last piece is called extracting.
func (m *meter) moved(n int64) {
	if m.p == nil {
		return
	}
	if n < m.total && n-m.reported < meterStep && m.reported > 0 {
		return
	}
	m.reported = n
	event := "downloading"
	if n == m.total {
		event = "extracting"
	}
	m.p.Layer(m.id, event, n, m.total)
}
