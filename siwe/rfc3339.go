package siwe

import (
	"strings"
	"time"
)

// parseDateTime parses date-time of RFC 3339 section 5.6 and returns the instant in UTC. time.Parse is not used because
// it accepts a comma before the fraction, and neither leap seconds nor lower-case t and z.
func parseDateTime(s string) (t time.Time, problem string) {
	const shape = "0000-00-00T00:00:00"
	if len(s) < len(shape)+1 {
		return t, "too short"
	}
	for i := range len(shape) {
		switch want, c := shape[i], s[i]; {
		case want == '0' && !isDigit(rune(c)), want == 'T' && c != 'T' && c != 't', (want == '-' || want == ':') && c != want:
			return t, "want the form 2006-01-02T15:04:05Z"
		}
	}
	year, month, day := number(s[0:4]), number(s[5:7]), number(s[8:10])
	hour, minute, second := number(s[11:13]), number(s[14:16]), number(s[17:19])
	if hour > 23 || minute > 59 || second > 60 {
		return t, "no such time of day"
	}
	// time.Date normalises 30 February to a day in March, so a date that it changes does not exist.
	date := time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC)
	if date.Year() != year || int(date.Month()) != month || date.Day() != day {
		return t, "no such day"
	}

	zone := s[len(shape):]
	nanoseconds := 0
	if after, ok := strings.CutPrefix(zone, "."); ok {
		zone = strings.TrimLeft(after, "0123456789")
		digits := after[:len(after)-len(zone)]
		if digits == "" {
			return t, "no digits after the decimal point"
		}
		nanoseconds = number((digits + "000000000")[:9])
	}
	offset, ok := zoneOffset(zone)
	if !ok {
		return t, "want Z or an offset such as +01:00 at its end"
	}
	t = time.Date(year, time.Month(month), day, hour, minute, second, nanoseconds, time.UTC).Add(-offset)
	// time.Date has turned second 60 into second 0 of the next minute, which must be the first minute of a month.
	if second == 60 && (t.Day() != 1 || t.Hour() != 0 || t.Minute() != 0) {
		return t, "second 60 is not at the end of a month"
	}
	return t, ""
}

// zoneOffset parses time-offset: 0 for Z, otherwise local time minus UTC.
func zoneOffset(s string) (time.Duration, bool) {
	if s == "Z" || s == "z" {
		return 0, true
	}
	if len(s) != len("+00:00") || (s[0] != '+' && s[0] != '-') || s[3] != ':' || notIn(s[1:3]+s[4:6], isDigit) >= 0 {
		return 0, false
	}
	hours, minutes := number(s[1:3]), number(s[4:6])
	if hours > 23 || minutes > 59 {
		return 0, false
	}
	offset := time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute
	if s[0] == '-' {
		offset = -offset
	}
	return offset, true
}

// number converts decimal digits, which the caller has checked.
func number(s string) int {
	n := 0
	for i := range len(s) {
		n = 10*n + int(s[i]-'0')
	}
	return n
}
