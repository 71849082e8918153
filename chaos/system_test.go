package chaos

import (
	"os/exec"
	"testing"
)

func TestAFrozenServiceRunsNoCode(t *testing.T) {
	c := exec.Command("sh", "-c", "echo runs; while :; do :; done")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Wait()
	defer c.Process.Kill()
	if _, err := out.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if is, err := frozen(c.Process.Pid); is || err != nil {
		t.Errorf("a process that runs is frozen: %t, %v", is, err)
	}
	s := &System{process: c}
	if err := s.freeze(); err != nil {
		t.Fatal(err)
	}
	if is, err := frozen(c.Process.Pid); !is || err != nil {
		t.Errorf("a process that is stopped is frozen: %t, %v", is, err)
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.Wait()
	if err := s.freeze(); err != nil {
		t.Errorf("a process that is gone: %v", err)
	}
}
