package firecracker

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// The API as tables of facts, kept apart from the code that they judge: what
// each endpoint takes, of which type, within which limits, since which release.

type kind string

const (
	aString kind = "string"
	aBool   kind = "bool"
	anInt   kind = "int"
	anObj   kind = "object"
	anArray kind = "array" // of fields.fields when they are given, else of strings
	aMap    kind = "map"   // of strings
)

type fact struct {
	kind     kind
	required bool
	min, max int64 // of an int; both 0: none
	enum     []string
	since    string            // release of the field, "" for 1.12
	values   map[string]string // releases of values
	fields   map[string]fact   // of an object or of an array's objects
}

type endpoint struct {
	since  string
	fields map[string]fact // nil: no body; empty: any JSON
	post   bool            // after the start only
	both   bool            // before and after
}

const (
	u32 = 1<<32 - 1
	u16 = 1<<16 - 1
)

func req(f fact) fact         { f.required = true; return f }
func str() fact               { return fact{kind: aString} }
func boolean() fact           { return fact{kind: aBool} }
func enum(v ...string) fact   { return fact{kind: aString, enum: v} }
func num(min, max int64) fact { return fact{kind: anInt, min: min, max: max} }
func since(r string, f fact) fact {
	f.since = r
	return f
}

func bucketFacts() fact {
	return fact{kind: anObj, fields: map[string]fact{
		"size": req(fact{kind: anInt}), "refill_time": req(fact{kind: anInt}), "one_time_burst": {kind: anInt}}}
}

func limiterFacts() fact {
	return fact{kind: anObj, fields: map[string]fact{"bandwidth": bucketFacts(), "ops": bucketFacts()}}
}

func machineFacts(required bool) map[string]fact {
	pages := enum("None", "Transparent", "2M")
	pages.values = map[string]string{"Transparent": "1.17.0"}
	f := map[string]fact{
		"vcpu_count": num(1, 32), "mem_size_mib": {kind: anInt, min: 1, max: 1 << 40}, "smt": boolean(),
		"track_dirty_pages": boolean(), "huge_pages": pages, "cpu_template": str(),
	}
	if required {
		f["vcpu_count"], f["mem_size_mib"] = req(f["vcpu_count"]), req(f["mem_size_mib"])
	}
	return f
}

func balloonFacts() map[string]fact {
	return map[string]fact{
		"amount_mib": req(num(0, u32)), "deflate_on_oom": req(boolean()), "stats_polling_interval_s": num(0, u16),
		"free_page_hinting": since("1.14.0", boolean()), "free_page_reporting": since("1.14.0", boolean()),
	}
}

func cpuFacts() map[string]fact {
	reg := fact{kind: anArray, fields: map[string]fact{"addr": req(str()), "bitmap": req(str())}}
	return map[string]fact{
		"kvm_capabilities": {kind: anArray},
		"cpuid_modifiers": {kind: anArray, fields: map[string]fact{
			"leaf": req(str()), "subleaf": req(str()), "flags": req(num(-1<<31, 1<<31-1)),
			"modifiers": req(fact{kind: anArray, fields: map[string]fact{
				"register": req(enum("eax", "ebx", "ecx", "edx")), "bitmap": req(str())}}),
		}},
		"msr_modifiers": reg, "reg_modifiers": reg,
		"vcpu_features": {kind: anArray, fields: map[string]fact{"index": req(num(-1<<31, 1<<31-1)), "bitmap": req(str())}},
	}
}

func snapshotLoadFacts() map[string]fact {
	return map[string]fact{
		"snapshot_path": req(str()),
		"mem_backend": req(fact{kind: anObj, fields: map[string]fact{
			"backend_type": req(enum("File", "Uffd")), "backend_path": req(str())}}),
		"track_dirty_pages": since("1.13.0", boolean()), "resume_vm": boolean(),
		"network_overrides": {kind: anArray, fields: map[string]fact{"iface_id": req(str()), "host_dev_name": req(str())}},
		"vsock_override":    since("1.16.0", fact{kind: anObj, fields: map[string]fact{"uds_path": req(str())}}),
		"clock_realtime":    since("1.14.4", boolean()),
		"huge_pages":        since("1.17.0", enum("Snapshot", "None", "Transparent", "2M")),
	}
}

// deviceFacts are the endpoints with an id in the path.
func deviceFacts() map[string]endpoint {
	nic := map[string]fact{
		"iface_id": req(str()), "host_dev_name": req(str()), "guest_mac": str(), "mtu": since("1.16.0", num(68, 65535)),
		"rx_rate_limiter": limiterFacts(), "tx_rate_limiter": limiterFacts()}
	return map[string]endpoint{
		"PUT /drives/{id}": {fields: map[string]fact{
			"drive_id": req(str()), "is_root_device": req(boolean()), "path_on_host": str(), "is_read_only": boolean(),
			"partuuid": str(), "cache_type": enum("Unsafe", "Writeback"), "io_engine": enum("Sync", "Async"),
			"rate_limiter": limiterFacts(), "socket": str()}},
		"PATCH /drives/{id}": {post: true, fields: map[string]fact{
			"drive_id": req(str()), "path_on_host": str(), "rate_limiter": limiterFacts()}},
		"DELETE /drives/{id}": {post: true, since: "1.16.0"},
		"PUT /pmem/{id}": {since: "1.14.0", fields: map[string]fact{
			"id": req(str()), "path_on_host": req(str()), "root_device": boolean(), "read_only": boolean(),
			"rate_limiter": since("1.16.0", limiterFacts())}},
		"PATCH /pmem/{id}": {post: true, since: "1.16.0", fields: map[string]fact{
			"id": req(str()), "rate_limiter": limiterFacts()}},
		"DELETE /pmem/{id}":            {post: true, since: "1.16.0"},
		"PUT /network-interfaces/{id}": {fields: nic},
		"PATCH /network-interfaces/{id}": {post: true, fields: map[string]fact{
			"iface_id": req(str()), "rx_rate_limiter": limiterFacts(), "tx_rate_limiter": limiterFacts()}},
		"DELETE /network-interfaces/{id}": {post: true, since: "1.16.0"},
	}
}

func facts() map[string]endpoint {
	e := map[string]endpoint{
		"GET /": {both: true}, "GET /version": {both: true}, "GET /vm/config": {both: true},
		"GET /machine-config": {both: true}, "GET /mmds": {both: true}, "GET /balloon": {both: true},
		"GET /balloon/statistics": {post: true}, "GET /balloon/hinting/status": {post: true, since: "1.14.0"},
		"GET /hotplug/memory":       {post: true, since: "1.14.0"},
		"PATCH /vm":                 {post: true, fields: map[string]fact{"state": req(enum("Paused", "Resumed"))}},
		"PUT /actions":              {both: true, fields: map[string]fact{"action_type": req(enum("InstanceStart", "FlushMetrics", "SendCtrlAltDel"))}},
		"PUT /boot-source":          {fields: map[string]fact{"kernel_image_path": req(str()), "initrd_path": str(), "boot_args": str()}},
		"PUT /machine-config":       {fields: machineFacts(true)},
		"PATCH /machine-config":     {fields: machineFacts(false)},
		"PUT /cpu-config":           {fields: cpuFacts()},
		"PUT /vsock":                {fields: map[string]fact{"guest_cid": req(num(3, u32)), "uds_path": req(str())}},
		"PUT /entropy":              {fields: map[string]fact{"rate_limiter": limiterFacts()}},
		"PUT /serial":               {since: "1.14.0", fields: map[string]fact{"serial_out_path": str(), "rate_limiter": since("1.16.0", bucketFacts())}},
		"PUT /mmds":                 {both: true, fields: map[string]fact{}},
		"PATCH /mmds":               {both: true, fields: map[string]fact{}},
		"PUT /balloon":              {fields: balloonFacts()},
		"PATCH /balloon":            {post: true, fields: map[string]fact{"amount_mib": req(num(0, u32))}},
		"PATCH /balloon/statistics": {post: true, fields: map[string]fact{"stats_polling_interval_s": req(num(0, u16))}},
		"PATCH /balloon/hinting/start": {post: true, since: "1.14.0", fields: map[string]fact{
			"acknowledge_on_stop": boolean()}},
		"PATCH /balloon/hinting/stop": {post: true, since: "1.14.0"},
		"PUT /hotplug/memory": {since: "1.14.0", fields: map[string]fact{
			"total_size_mib": req(num(1, u32)), "block_size_mib": num(2, u32), "slot_size_mib": num(128, u32)}},
		"PATCH /hotplug/memory": {post: true, since: "1.14.0", fields: map[string]fact{"requested_size_mib": req(num(0, u32))}},
		"PUT /logger": {fields: map[string]fact{
			"log_path": str(), "level": enum("Off", "Trace", "Debug", "Info", "Warn", "Warning", "Error"), "show_level": boolean(),
			"show_log_origin": boolean(), "module": str()}},
		"PUT /metrics": {fields: map[string]fact{
			"metrics_path": req(str()), "emit_id": since("1.17.0", boolean()), "properties": since("1.17.0", fact{kind: aMap})}},
		"PUT /mmds/config": {fields: map[string]fact{
			"network_interfaces": req(fact{kind: anArray}), "version": enum("V1", "V2"), "ipv4_address": str(),
			"imds_compat": since("1.13.0", boolean())}},
		"PUT /snapshot/create": {post: true, fields: map[string]fact{
			"snapshot_path": req(str()), "mem_file_path": req(str()), "snapshot_type": enum("Full", "Diff")}},
		"PUT /snapshot/load": {fields: snapshotLoadFacts()},
	}
	for name, d := range deviceFacts() {
		e[name] = d
	}
	return e
}

// route finds the endpoint of a request; ids become {id}.
func route(method, path string) (string, endpoint, bool) {
	for _, prefix := range []string{"/drives/", "/pmem/", "/network-interfaces/"} {
		if id, ok := strings.CutPrefix(path, prefix); ok && checkID("id", id) == nil {
			path = prefix + "{id}"
		}
	}
	name := method + " " + path
	e, ok := facts()[name]
	return name, e, ok
}

// judge holds JSON against facts as Firecracker does: unknown keys, missing
// keys and wrong types are refused.
func judge(data any, fields map[string]fact, at string) error {
	object, ok := data.(map[string]any)
	if !ok {
		return fmt.Errorf("invalid type at %s: expected an object", at)
	}
	for key, value := range object {
		f, ok := fields[key]
		if !ok {
			return fmt.Errorf("unknown field `%s` at %s", key, at)
		}
		if err := f.judge(value, at+"."+key); err != nil {
			return err
		}
	}
	for key, f := range fields {
		if _, ok := object[key]; f.required && !ok {
			return fmt.Errorf("missing field `%s` at %s", key, at)
		}
	}
	return nil
}

func (f fact) judge(value any, at string) error {
	wrong := fmt.Errorf("invalid value %v at %s: expected %s", value, at, f.kind)
	switch v := value.(type) {
	case string:
		if f.kind != aString || (f.enum != nil && !slices.Contains(f.enum, v)) {
			return wrong
		}
	case bool:
		if f.kind != aBool {
			return wrong
		}
	case json.Number:
		n, err := v.Int64()
		if f.kind != anInt || err != nil || ((f.min != 0 || f.max != 0) && (n < f.min || n > f.max)) {
			return wrong
		}
	case map[string]any:
		if f.kind == aMap {
			return nil
		}
		if f.kind != anObj {
			return wrong
		}
		return judge(v, f.fields, at)
	case []any:
		if f.kind != anArray {
			return wrong
		}
		for i, e := range v {
			if err := f.element().judge(e, fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
	default:
		return wrong
	}
	return nil
}

func (f fact) element() fact {
	if f.fields == nil {
		return str()
	}
	return fact{kind: anObj, fields: f.fields}
}

// hasBody reports which methods must carry a body.
func hasBody(method string) bool { return method == http.MethodPut || method == http.MethodPatch }
