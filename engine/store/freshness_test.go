package store

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nsready/nsready/engine/registry"
)

// fleet is an estate in which devices are reached through others:
//
//	hub <- mast <- far, near; quiet (sends nothing of its own) <- behind; alone
func fleet(t *testing.T) *registry.Snapshot {
	t.Helper()
	project := registry.NewAddress(registry.KindProject, "acme", "mill")
	north, south := project.Child(registry.KindSite, "north"), project.Child(registry.KindSite, "south")
	parameter := func(name string, interval, stale time.Duration) *registry.Parameter {
		return &registry.Parameter{Addr: project.Child(registry.KindParameter, name), Name: name, Type: registry.TypeFloat, OnViolation: registry.Flag,
			Unit: "V", Precision: registry.BoundOf(1), Interval: interval, StaleAfter: stale}
	}
	device := func(site registry.Address, name string, gateway registry.Address, parameters ...string) *registry.Device {
		return &registry.Device{Addr: site.Child(registry.KindDevice, name), Type: "meter", State: "active", Interval: 10 * time.Second, Gateway: gateway, Parameters: parameters}
	}
	hub, mast, quiet := north.Child(registry.KindDevice, "hub"), north.Child(registry.KindDevice, "mast"), north.Child(registry.KindDevice, "quiet")
	near := device(south, "near", mast, "fast", "slow")
	near.Overrides = []registry.Override{{Parameter: "fast", StaleAfter: time.Hour}, {Parameter: "slow", Interval: 2 * time.Minute}}
	workshop := device(south, "workshop", hub, "fast")
	workshop.State = "maintenance"
	odd := device(south, "odd", registry.Address{}, "free")
	odd.Interval = 0
	return registry.Declare([]registry.Object{
		&registry.Customer{Addr: registry.NewAddress(registry.KindCustomer, "acme")}, &registry.Project{Addr: project},
		&registry.Site{Addr: north}, &registry.Site{Addr: south},
		parameter("fast", time.Second, 0), parameter("slow", time.Minute, 0), parameter("own", time.Second, 20*time.Minute), parameter("free", 0, 0),
		device(north, "hub", registry.Address{}, "fast"), device(north, "mast", hub, "slow"), device(south, "far", mast, "fast"), near,
		device(north, "quiet", registry.Address{}), device(south, "behind", quiet, "fast"), device(south, "alone", registry.Address{}, "fast", "own"), workshop, odd,
	})
}

// sends lets the newest values of a device, under keys of its project, be of some time ago.
func sends(t *testing.T, s *Store, device, parameter string, ago time.Duration) {
	t.Helper()
	exec(t, s, `INSERT INTO telemetry_latest (device_ref, set_id, time, vals)
		SELECT d.ref, parameter_set_id(ARRAY[t.key]), now() - make_interval(secs => $3), ARRAY[230.46] FROM devices d, parameter_templates t WHERE d.name = $1 AND t.name = $2
		ON CONFLICT (device_ref, set_id) DO UPDATE SET time = excluded.time`, device, parameter, ago.Seconds())
}

// freshness lists the view: device, parameter, stale_after, stale, silent, and the gateway's name.
func freshness(t *testing.T, s *Store) []string {
	t.Helper()
	var list []string
	rows, err := s.pool.Query(testContext(t), `SELECT concat_ws(' ', f.device, f.parameter, coalesce(extract(epoch FROM f.stale_after)::integer::text, '-'),
		CASE WHEN f.stale THEN 'stale' WHEN NOT f.stale THEN 'fresh' ELSE 'unknown' END, CASE WHEN f.silent THEN 'silent' END, 'via ' || g.name)
		FROM v_scada_freshness f LEFT JOIN devices g ON g.id = f.unreachable_via ORDER BY f.device, f.parameter`)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		list = append(list, line)
	}
	if rows.Err() != nil {
		t.Fatal(rows.Err())
	}
	return list
}

func TestFreshness(t *testing.T) {
	s := migrated(t)
	reconcile(t, s, fleet(t))
	check := func(when string, want ...string) {
		t.Helper()
		if got := freshness(t, s); !slices.Equal(got, want) {
			t.Errorf("%s:\n%s\nwant\n%s", when, join(got), join(want))
		}
	}
	check("nothing was sent",
		"alone fast 30 stale silent", "alone own 1200 stale silent", "behind fast 30 stale silent", "far fast 30 stale silent via hub", "hub fast 30 stale silent",
		"mast slow 180 stale silent via hub", "near fast 3600 stale silent via hub", "near slow 360 stale silent via hub", "odd free - unknown")

	for _, v := range []struct {
		device, parameter string
		ago               time.Duration
	}{{"alone", "fast", 31 * time.Second}, {"alone", "own", 10 * time.Minute}, {"behind", "fast", time.Minute}, {"far", "fast", time.Hour}, {"hub", "fast", 40 * time.Second},
		{"mast", "slow", 4 * time.Minute}, {"near", "fast", 50 * time.Minute}, {"near", "slow", time.Hour}, {"odd", "free", time.Hour}} {
		sends(t, s, v.device, v.parameter, v.ago)
	}
	check("the hub is silent", // near still sends, whatever became of what it is reached through
		"alone fast 30 stale", "alone own 1200 fresh", "behind fast 30 stale silent", "far fast 30 stale silent via hub", "hub fast 30 stale silent",
		"mast slow 180 stale silent via hub", "near fast 3600 fresh", "near slow 360 stale", "odd free - unknown")

	sends(t, s, "hub", "fast", time.Second)
	check("only the mast is silent",
		"alone fast 30 stale", "alone own 1200 fresh", "behind fast 30 stale silent", "far fast 30 stale silent via mast", "hub fast 30 fresh",
		"mast slow 180 stale silent", "near fast 3600 fresh", "near slow 360 stale", "odd free - unknown")

	sends(t, s, "hub", "fast", time.Hour)
	sends(t, s, "mast", "slow", time.Second)
	check("the mast is heard, so that the hub is no reason for what is behind",
		"alone fast 30 stale", "alone own 1200 fresh", "behind fast 30 stale silent", "far fast 30 stale silent", "hub fast 30 stale silent",
		"mast slow 180 fresh", "near fast 3600 fresh", "near slow 360 stale", "odd free - unknown")

	list, err := s.Stale(testContext(t), StaleFilter{Site: "south", Project: "mill"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range list {
		got = append(got, fmt.Sprint(l.Device, " ", l.Parameter, " ", *l.Value, l.Unit, " ", *l.Precision, " ", l.StaleAfter))
	}
	if want := []string{"device.acme/mill/south/alone fast 230.46V 1 30", "device.acme/mill/south/behind fast 230.46V 1 30",
		"device.acme/mill/south/far fast 230.46V 1 30", "device.acme/mill/south/near slow 230.46V 1 360"}; !slices.Equal(got, want) {
		t.Errorf("%s", join(got))
	}
	if list, err := s.Stale(testContext(t), StaleFilter{Customer: "nobody"}); err != nil || len(list) > 0 {
		t.Errorf("%v %v", list, err)
	}
}

// Whatever other programs wrote: the view can be read. A circle of gateways has no end, and so is nobody's reason.
func TestFreshnessOfForeignRows(t *testing.T) {
	s := migrated(t)
	reconcile(t, s, fleet(t))
	for _, sql := range []string{
		`UPDATE parameter_templates SET metadata = '{"stale_after_seconds": 1e999, "interval_seconds": "5.5", "precision": 99}' WHERE name = 'fast'`,
		`UPDATE parameter_templates SET metadata = '[1]' WHERE name = 'slow'`,
		`UPDATE parameter_templates SET metadata = '{"stale_after_seconds": "soon", "interval_seconds": -5}' WHERE name = 'own'`,
		`UPDATE devices SET reporting_interval_seconds = 'NaN'`,
		`UPDATE devices SET overrides = '{"slow": {"stale_after_seconds": {}, "interval_seconds": null}, "fast": 7}' WHERE name = 'near'`,
		`UPDATE devices SET overrides = '[]', parameters = ARRAY['fast', NULL, 'nothing'] WHERE name = 'far'`,
		`UPDATE devices d SET gateway_id = g.id FROM devices g WHERE d.name = 'hub' AND g.name = 'mast'`,
	} {
		exec(t, s, sql)
	}
	want := []string{"alone fast 17 stale silent", "alone own - unknown silent", "behind fast 17 stale silent", "far fast 17 stale silent", "hub fast 17 stale silent",
		"mast slow - unknown", "near fast 17 stale silent", "near slow - unknown silent", "odd free - unknown"}
	if got := freshness(t, s); !slices.Equal(got, want) {
		t.Errorf("%s\nwant\n%s", join(got), join(want))
	}
	if hub := load(t, s).Devices[0]; hub.Gateway.Name() != "mast" {
		t.Errorf("%+v", hub)
	}
	// One that is deleted leaves the others behind.
	exec(t, s, `DELETE FROM devices WHERE name = 'mast'`)
	if n := query1[int](t, s, `SELECT count(*) FROM devices WHERE gateway_id IS NULL`); n != 6 {
		t.Errorf("%d devices are reached directly, want 6", n)
	}
}

func join(lines []string) string {
	text := ""
	for _, l := range lines {
		text += l + "\n"
	}
	return text
}
