//go:build !chaos

package failpoint

// Hit does nothing.
func Hit(string) {}
