package registry

import (
	"math"
	"testing"
	"time"
)

func TestRateIsValid(t *testing.T) {
	for _, tt := range []struct {
		rate Rate
		want bool
	}{
		{Rate{200, 100_000}, true}, {Rate{MinPerSecond, 1}, true}, {Rate{MaxPerSecond, MaxBurst}, true}, {Rate{1, 31_622_400}, true},
		{Rate{}, false}, {Rate{1, 0}, false}, {Rate{0, 1}, false}, {Rate{-1, 1}, false}, {Rate{1, -1}, false}, {Rate{math.NaN(), 1}, false},
		{Rate{math.Inf(1), 1}, false}, {Rate{2e9, 1}, false}, {Rate{1, 2e9}, false}, {Rate{0.0001, 1}, false}, {Rate{1, 31_622_401}, false},
		{Rate{MinPerSecond, MaxBurst}, false},
	} {
		if got := tt.rate.Valid(); got != tt.want {
			t.Errorf("%+v: valid is %v", tt.rate, got)
		}
	}
	if got := (Rate{2, 3}).Refill(); got != 1500*time.Millisecond {
		t.Errorf("the refill takes %v", got)
	}
}

func TestTheInnermostLimitHolds(t *testing.T) {
	a, b, c := Rate{1, 1}, Rate{2, 2}, Rate{3, 3}
	none := NewSnapshot(nil).EffectiveLimits()
	if none != DefaultLimits {
		t.Errorf("without a declaration: %+v", none)
	}
	l := NewSnapshot([]Object{&Limits{Addr: LimitsAddress, ConnectionsPerAddress: 7, Device: a, Customer: Rate{PerSecond: -1}}}).EffectiveLimits()
	if l.Device != a || l.Customer != DefaultLimits.Customer || l.ConnectionsPerAddress != 7 || l.Connections != DefaultLimits.Connections {
		t.Errorf("declared in part: %+v", l)
	}
	if all, device := l.Of(&Customer{}); all != l.Customer || device != a {
		t.Errorf("a customer without rates has %v and %v", all, device)
	}
	all, device := l.Of(&Customer{Rate: b, DeviceRate: c})
	if all != b || device != c {
		t.Errorf("a customer with rates has %v and %v", all, device)
	}
	if got := (&Device{}).Own(device); got != c {
		t.Errorf("a device without a rate has %v", got)
	}
	if got := (&Device{Rate: a}).Own(device); got != a {
		t.Errorf("a device with a rate has %v", got)
	}
}
