package night

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/purser-onboard/purser/printable"
)

func count(n int64) string { return printable.Thousands(n) }

// decimal is a number with as many places as it needs, at most two.
func decimal(n float64) string {
	if n >= 100 {
		return count(int64(math.Round(n)))
	}
	return strconv.FormatFloat(math.Round(n*100)/100, 'f', -1, 64)
}

// percent is a part of a whole. It is 0 % or 100 % only if nothing or all is meant.
func percent(n, of int64) string {
	if of <= 0 {
		return ""
	}
	switch p := 100 * float64(n) / float64(of); {
	case n > 0 && p < 0.1:
		return "<0.1 %"
	case n < of && p > 99.9:
		return ">99.9 %"
	default:
		return strconv.FormatFloat(math.Round(p*10)/10, 'f', -1, 64) + " %"
	}
}

// counted is a number and what it counts: "1 row", "1,240 rows".
func counted(n int64, one, more string) string {
	return count(n) + " " + printable.Plural(n, one, more)
}

// list joins parts by commas and "and".
func list(parts []string) string {
	if len(parts) < 2 {
		return strings.Join(parts, "")
	}
	return strings.Join(parts[:len(parts)-1], ", ") + " and " + parts[len(parts)-1]
}

// clock is a time to the minute, in UTC.
func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }

// span is a duration in its two greatest units: "3 h 12 min".
func span(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Round(100*time.Millisecond).Seconds(), 'f', -1, 64) + " s"
	case d < time.Minute:
		return strconv.Itoa(int(d.Round(time.Second).Seconds())) + " s"
	case d < time.Hour:
		d = d.Round(time.Second)
		return units(int(d/time.Minute), "min", int(d%time.Minute/time.Second), "s")
	case d < 48*time.Hour:
		d = d.Round(time.Minute)
		return units(int(d/time.Hour), "h", int(d%time.Hour/time.Minute), "min")
	}
	d = d.Round(time.Hour)
	return units(int(d/(24*time.Hour)), "d", int(d%(24*time.Hour)/time.Hour), "h")
}

func units(great int, unit string, small int, smaller string) string {
	s := strconv.Itoa(great) + " " + unit
	if small > 0 {
		s += " " + strconv.Itoa(small) + " " + smaller
	}
	return s
}

// latency is a duration of a request: 42 ms, 1.2 s.
func latency(s float64) string {
	switch {
	case s < 0.0005:
		return "<1 ms"
	case s < 1:
		return strconv.Itoa(int(math.Round(s*1000))) + " ms"
	}
	return decimal(math.Round(s*10)/10) + " s"
}
