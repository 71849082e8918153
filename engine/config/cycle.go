package config

import "slices"

// findCycle follows a chain to its end, which is the zero value, or to what was passed before, and returns the cycle that it finds.
func findCycle[K comparable](from K, next func(K) K, passed map[K]bool) []K {
	var end K
	var chain []K
	at := from
	for ; at != end && !passed[at]; at = next(at) {
		passed[at] = true
		chain = append(chain, at)
	}
	if i := slices.Index(chain, at); i >= 0 {
		return chain[i:]
	}
	return nil
}
