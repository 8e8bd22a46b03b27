package pipeline

import "time"

// Import is a run of the importer, as the importer itself recorded it. The field names are a contract.
type Import struct {
	ID        string    `json:"id"` // the importId of its rows, a UUID of version 7
	Program   string    `json:"program"`
	Host      string    `json:"host"`
	StartedAt time.Time `json:"startedAt"`
	EndedAt   time.Time `json:"endedAt,omitzero"` // zero: it is in progress, or its process was killed
	Topic     string    `json:"topic,omitempty"`  // of the rows; empty: not recorded, by an earlier version
	Exit      int       `json:"exit"`             // the exit code; 1 of an import that has not ended
	Reason    string    `json:"reason,omitempty"` // why Exit is not 0
	// Alive says whether the process of an unfinished import is running. It is absent if that is unknown, for example if
	// the import ran on another host.
	Alive *bool `json:"alive,omitempty"`
	// Unaccounted: the import failed because its own counts do not add up, which is a bug in the importer.
	Unaccounted bool `json:"unaccounted,omitempty"`
	ImportCounts
	Files []ImportFile `json:"files"` // in order; those that were not read, too, with counts of 0 and without a digest
}

// Ended reports whether the import has ended.
func (i Import) Ended() bool { return !i.EndedAt.IsZero() }

// Standing says how an import that has not ended stands, as far as the reader knows.
func (i Import) Standing() string { return Standing(i.Alive) }

// Standing says how an import or a run that has not ended stands. alive is whether its process is there; nil: that is
// not known.
func Standing(alive *bool) string {
	switch {
	case alive == nil:
		return "has no end: it is in progress, or its process was killed"
	case *alive:
		return "is in progress"
	}
	return "has no end: its process was killed, or could not record it"
}

// ImportCounts accounts for the lines and rows of an export, or of all exports of an import.
type ImportCounts struct {
	Lines          int64 `json:"lines"`     // physical lines read
	Rows           int64 `json:"rows"`      // rows read; a row may take up several lines
	Published      int64 `json:"published"` // rows that the broker acknowledged
	PublishedLines int64 `json:"publishedLines"`
	Invalid        int64 `json:"invalid"` // rows in the rejects file
	InvalidLines   int64 `json:"invalidLines"`
	Header         int64 `json:"header"`  // lines
	Blank          int64 `json:"blank"`   // lines
	Neither        int64 `json:"neither"` // lines that are neither published nor invalid: Header + Blank
}

// Plus returns the sum of two counts.
func (c ImportCounts) Plus(d ImportCounts) ImportCounts {
	return ImportCounts{
		Lines: c.Lines + d.Lines, Rows: c.Rows + d.Rows,
		Published: c.Published + d.Published, PublishedLines: c.PublishedLines + d.PublishedLines,
		Invalid: c.Invalid + d.Invalid, InvalidLines: c.InvalidLines + d.InvalidLines,
		Header: c.Header + d.Header, Blank: c.Blank + d.Blank, Neither: c.Neither + d.Neither,
	}
}

// Unfinished reports whether rows of the files may be missing: the import has not ended, or could not finish.
func (i Import) Unfinished() bool { return !i.Ended() || i.Exit == 1 || i.Exit == 2 }

// NotFinished is the number of lines that were read but not processed when the import ended early. An import that
// finished must account for each line.
func (i Import) NotFinished() int64 {
	if i.Unaccounted || !i.Unfinished() {
		return 0
	}
	return i.Lines - i.PublishedLines - i.InvalidLines - i.Neither
}

// ImportFile is an export of an import.
type ImportFile struct {
	Name   string `json:"name"`             // base name, with as much of its path as tells it from others; printable
	Path   string `json:"path,omitempty"`   // absolute and printable; empty: standard input, or an earlier version
	Size   int64  `json:"size"`             // bytes read, before decompression
	SHA256 string `json:"sha256,omitempty"` // of these bytes, hex; empty: the file was not read to its end
	ImportCounts
	Reasons []InvalidReason `json:"reasons,omitempty"` // why rows are invalid, the most frequent first
}

// InvalidReason counts the invalid rows of an export with the same field and reason.
type InvalidReason struct {
	Field  string `json:"field"`  // as in the rejects file
	Reason string `json:"reason"` // without what is particular to a row
	Rows   int64  `json:"rows"`
}
