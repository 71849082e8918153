package store

import (
	"testing"

	"github.com/nsready/nsready/engine/registry"
)

// A registry that is as the last version left it is known by its fingerprint. One that no trigger saw changed is not, and the next
// apply finds what was done.
func TestUntouched(t *testing.T) {
	s := migrated(t)
	const unseen = `SET session_replication_role = replica; `
	untouched := func(when string, want bool) {
		t.Helper()
		if is, err := s.Untouched(testContext(t)); is != want || err != nil {
			t.Errorf("%s: untouched is %t, %v", when, is, err)
		}
	}
	devices := func(list string) *registry.Snapshot {
		const north = "device.acme/mill/north/"
		text := mill
		for _, name := range list {
			text += north + string(name) + " "
		}
		return estate(t, text)
	}
	untouched("before anything was applied", false)
	reconcile(t, s, devices("ab"))
	untouched("after an apply", true)
	exec(t, s, `INSERT INTO customers (name) VALUES ('nobody''s')`)
	untouched("after something that nobody manages was made", true)
	reconcile(t, s, devices("abc"))
	untouched("after another apply", true)

	for name, harm := range map[string]string{
		"a row is changed": `UPDATE devices SET status = 'maintenance' WHERE name = 'a'`,
		"a row is gone":    `DELETE FROM devices WHERE name = 'b'`,
	} {
		exec(t, s, unseen+harm+`; SET session_replication_role = origin`)
		untouched(name, false)
		after := reconcile(t, s, devices("abc"))
		untouched(name+", and put right", true)
		if got, want := contents(stateOf(t, s, after.Version)), contents(after.Managed()); got != want {
			t.Errorf("%s: the version is\n%s\nand the registry\n%s", name, got, want)
		}
	}

	// What was done unseen and is declared, too, is recorded beside what the plan does.
	exec(t, s, unseen+`DELETE FROM devices WHERE name = 'b'; SET session_replication_role = origin`)
	after := reconcile(t, s, devices("acd"))
	untouched("after an apply that agrees", true)
	if got, want := contents(stateOf(t, s, after.Version)), contents(after.Managed()); got != want {
		t.Errorf("the version is\n%s\nand the registry\n%s", got, want)
	}
}
