package results

import (
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/pipeline"
)

// Headers of an event: CloudEvents 1.0, binary content mode of the Kafka protocol binding. The value is the event's
// data, and has all of it: a consumer may ignore the headers.
const (
	headerSpecVersion = "ce_specversion"
	headerID          = "ce_id"
	headerSource      = "ce_source"
	headerType        = "ce_type"
	headerTime        = "ce_time"
	headerSubject     = "ce_subject"
	headerRun         = "ce_purserrun" // an extension attribute
	headerContentType = "content-type"
)

// eventType is the beginning of an event's type; the row's stage follows.
const eventType = "com.github.purser-onboard.row."

// Source returns the source (ce_source) of the events of an API: /purser/HOST/PATH, a URI reference. It is the same for
// all consumers of a fleet and does not change with the API key, because source and id together identify an event.
func Source(apiHost, apiPath string) string {
	source := "/purser/" + url.PathEscape(apiHost)
	if path := strings.Trim(apiPath, "/"); path != "" {
		source += "/" + path
	}
	return source
}

// Origin is the origin of events.
type Origin struct {
	Source string // see the function Source
	Run    string // id of the run that publishes them
}

// headersOf returns the headers of the event of a settled row.
func headersOf(r pipeline.Record, e Event, from Origin) []pipeline.Header {
	header := func(key, value string) pipeline.Header { return pipeline.Header{Key: key, Value: []byte(value)} }
	return []pipeline.Header{
		header(headerSpecVersion, "1.0"),
		header(headerID, eventID(r).String()),
		header(headerSource, from.Source),
		header(headerType, eventType+string(r.Stage)),
		header(headerTime, e.SettledAt.Format(time.RFC3339Nano)), // as in the value
		header(headerSubject, e.ChainID),
		header(headerRun, from.Run),
		header(headerContentType, "application/json"),
	}
}

// eventNamespace is the UUIDv5 namespace of all event ids (RFC 9562, section 5.5). It never changes.
func eventNamespace() uuid.UUID {
	return uuid.UUID{
		0x3b, 0x94, 0x6e, 0x0a, 0xd1, 0x5c, 0x4f, 0x28, 0x8a, 0x77, 0x1c, 0x90, 0xe2, 0x4d, 0x63, 0xf5,
	}
}

// eventID identifies the settlement of a row: an event that is published again, by this consumer or by the next owner
// of its partition, has the same id. The version grows with each settlement, the time of acceptance differs after the
// ledger was lost, and both follow the row to its next owner. The time of the last change would not do: `reconcile`
// sets it, too.
func eventID(r pipeline.Record) uuid.UUID {
	name := strings.Join([]string{
		r.Account.String(), r.ExternalID, strconv.FormatInt(r.AcceptedAt.UnixMicro(), 10),
		strconv.FormatInt(r.Version, 10), string(r.Stage),
	}, "\n")
	return uuid.NewSHA1(eventNamespace(), []byte(name))
}
