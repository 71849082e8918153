package ingest

import "github.com/nsready/nsready/engine/telemetry"

// lastMicros is 9999-12-31T23:59:59.999999Z, the last instant that every reader of RFC 3339 can write.
const lastMicros telemetry.Micros = 253402300799999999

// parseTime reads an RFC 3339 time from 1970 to 9999 with its zone; a space or a small t may stand for the T. Digits
// below a microsecond are cut off, so that a repeated event gets the same key. The code is empty when the time is valid.
func parseTime(s []byte) (t telemetry.Micros, code string) {
	if len(s) < len("2006-01-02T15:04:05") {
		return 0, CodeTimestampInvalid
	}
	century, year := pair(s[0], s[1]), pair(s[2], s[3])
	month, day := pair(s[5], s[6]), pair(s[8], s[9])
	hour, minute, second := pair(s[11], s[12]), pair(s[14], s[15]), pair(s[17], s[18])
	if s[4] != '-' || s[7] != '-' || s[10]|0x20 != 't' && s[10] != ' ' || s[13] != ':' || s[16] != ':' ||
		century > 99 || year > 99 || month < 1 || month > 12 || day < 1 || hour > 23 || minute > 59 || second > 59 {
		return 0, CodeTimestampInvalid
	}
	year += 100 * century
	if day > daysIn(year, month) {
		return 0, CodeTimestampInvalid
	}
	s = s[19:]
	micros := int64(0)
	if len(s) > 0 && s[0] == '.' {
		s = s[1:]
		n, unit := 0, int64(100_000)
		for n < len(s) && s[n]-'0' <= 9 {
			micros += int64(s[n]-'0') * unit
			unit /= 10
			n++
		}
		if n == 0 {
			return 0, CodeTimestampInvalid
		}
		s = s[n:]
	}
	offset := 0
	switch {
	case len(s) == 0:
		return 0, CodeTimestampZoneMissing
	case len(s) == 1 && s[0]|0x20 == 'z':
	case len(s) == len("+07:00") && (s[0] == '+' || s[0] == '-') && s[3] == ':':
		hours, minutes := pair(s[1], s[2]), pair(s[4], s[5])
		if minutes > 59 || 60*hours+minutes > 14*60 {
			return 0, CodeTimestampInvalid
		}
		offset = 3600*hours + 60*minutes
		if s[0] == '-' {
			offset = -offset
		}
	default:
		return 0, CodeTimestampInvalid
	}
	seconds := int64(daysSinceEpoch(year, month, day))*86400 + int64(3600*hour+60*minute+second-offset)
	t = telemetry.Micros(seconds*1_000_000 + micros)
	if t < 0 || t > lastMicros {
		return 0, CodeTimestampInvalid
	}
	return t, ""
}

// pair is the number that two digits write, or more than 99 when they are not digits.
func pair(tens, ones byte) int {
	tens, ones = tens-'0', ones-'0'
	if tens > 9 || ones > 9 {
		return 1000
	}
	return 10*int(tens) + int(ones)
}

func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// daysSinceEpoch counts days from 1970-01-01. The year is taken to begin in March, so that the leap day is its last.
func daysSinceEpoch(year, month, day int) int {
	if month <= 2 {
		year--
		month += 12
	}
	dayOfYear := (153*(month-3)+2)/5 + day - 1
	return 365*year + floor(year, 4) - floor(year, 100) + floor(year, 400) + dayOfYear - 719468
}

// floor is n/d rounded down: the year before year 0 is -1.
func floor(n, d int) int {
	if n < 0 {
		return -1
	}
	return n / d
}
