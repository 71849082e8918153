package store

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/registry"
)

func TestLoadRegistryReadsForeignRows(t *testing.T) {
	s := migrated(t)
	const project = "8212caa2-b928-4213-b64e-9f5b86f4cad1"
	exec(t, s, `INSERT INTO customers (name, metadata) VALUES ('Zoë/100%', NULL)`)
	exec(t, s, `INSERT INTO customers (name, metadata, parent_customer_id) SELECT 'child', '[]', id FROM customers`)
	exec(t, s, `INSERT INTO projects (id, customer_id, name) SELECT $1, id, 'p' FROM customers WHERE name = 'child'`, project)
	exec(t, s, `INSERT INTO sites (project_id, name, location) VALUES ($1, 's', 'null')`, project)
	exec(t, s, `INSERT INTO devices (site_id, name, device_type, parameters, reporting_interval_seconds)
		SELECT id, 'd', 'sensor', '{{b,NULL},{a,"c d"}}', 'NaN' FROM sites`)
	exec(t, s, `INSERT INTO parameter_templates (key, name, unit, metadata) VALUES
		('project:`+project+`:voltage', 'Voltage', 'V', '{"min": "1.5", "max": 240, "required": "t", "dtype": "string", "default_quality": 192, "interval_seconds": 90, "stale_after_seconds": "7.5", "precision": 2}'),
		('project:`+project+`:', 'no name', NULL, NULL),
		('project:00000000-0000-0000-0000-000000000000:x', 'orphan', NULL, '{"min": {}, "required": 1, "dtype": "BOOL", "on_violation": "clamp"}'),
		('a/b', 'odd', NULL, '[1]')`)
	exec(t, s, `INSERT INTO thresholds (parameter_key, name, above) VALUES ('a/b', 'high', 1)`)
	got := load(t, s)

	var paths []string
	for o := range got.Objects {
		paths = append(paths, o.Address().String())
	}
	want := []string{
		"customer.Zoë%2F100%25", "customer.child", "project.child/p", "site.child/p/s", "parameter.a%2Fb", "parameter.child/p/voltage",
		"parameter.project:00000000-0000-0000-0000-000000000000:x", "parameter.project:" + project + ":", "threshold.a%2Fb/high", "device.child/p/s/d",
	}
	if !reflect.DeepEqual(paths, want) {
		t.Errorf("addresses\n got %q\nwant %q", paths, want)
	}
	if c := got.Customers[1]; c.Parent != "Zoë/100%" || c.Metadata != "[]" || c.Managed || c.Retired {
		t.Errorf("customer %+v", c)
	}
	if s := got.Sites[0]; s.Location != "" {
		t.Errorf("location %q, want none", s.Location)
	}
	d := got.Devices[0]
	if d.Ref == 0 || d.Type != "sensor" || d.State != "active" || d.Interval != 0 || d.ProjectID != uuid.MustParse(project) ||
		d.SiteID != got.Sites[0].ID || !reflect.DeepEqual(d.Parameters, []string{"a", "b", "c d"}) {
		t.Errorf("device %+v", d)
	}
	voltage := *got.Parameter("project:" + project + ":voltage")
	voltage.Addr, voltage.ID, voltage.Key = registry.Address{}, uuid.UUID{}, ""
	if want := (registry.Parameter{
		Name: "Voltage", Unit: "V", Type: registry.TypeFloat, Min: registry.BoundOf(1.5), Max: registry.BoundOf(240), Required: true,
		Precision: registry.BoundOf(2), Interval: 90 * time.Second, StaleAfter: 7500 * time.Millisecond, OnViolation: registry.Flag, Quality: 192,
	}); voltage != want {
		t.Errorf("parameter\n got %+v\nwant %+v", voltage, want)
	}
	orphan := got.Parameter("project:00000000-0000-0000-0000-000000000000:x")
	if orphan.Type != registry.TypeBool || orphan.Min.Set || !orphan.Required || orphan.OnViolation != registry.Flag || orphan.Quality != 0 {
		t.Errorf("orphan %+v", orphan)
	}
}

func TestLoadRegistryWithoutSchema(t *testing.T) {
	if _, err := openTest(t).LoadRegistry(testContext(t)); !errors.Is(err, ErrNoSchema) {
		t.Errorf("got %v, want ErrNoSchema", err)
	}
}

// Whatever a template's metadata holds, what is read from it comes back when it is written by an apply.
func FuzzParseTemplate(f *testing.F) {
	for _, metadata := range []string{
		``, `null`, `[1]`, `{"min": "1.5", "max": 240, "required": "t", "dtype": "string", "default_quality": 192}`,
		`{"dtype": "INT", "min": 1e999, "required": 1, "description": 7, "on_violation": "reject", "interval_seconds": -0.5}`,
		`{"default_quality": 255.5, "min": {}, "max": "NaN", "description": "\ud800"}`,
	} {
		f.Add([]byte(metadata))
	}
	f.Fuzz(func(t *testing.T, metadata []byte) {
		read := registry.Parameter{Key: "project:x:y"}
		parseTemplate(&read, metadata)
		written, err := templateMetadata(&read)
		if err != nil {
			t.Fatal(err)
		}
		again := registry.Parameter{Key: read.Key}
		parseTemplate(&again, written)
		again.Interval, again.StaleAfter = read.Interval, read.StaleAfter // fractions of seconds of a long one lose nanoseconds, see TestSeconds
		if again != read {
			t.Errorf("%q\nread    %+v\nwritten %s\nread    %+v", metadata, read, written, again)
		}
	})
}

func TestSeconds(t *testing.T) {
	for _, d := range []time.Duration{0, 1, time.Second - 1, 90 * time.Second, 30*24*time.Hour + 1, 400 * 24 * time.Hour, 100 * 365 * 24 * time.Hour} {
		if got := seconds(d.Seconds()); got != d {
			t.Errorf("%v came back as %v", d, got)
		}
	}
	for _, s := range []float64{1e300, -1e300} {
		if got := seconds(s); got != 0 {
			t.Errorf("seconds(%v) is %v, want 0", s, got)
		}
	}
}
