package pipeline

// Tally counts the rows and messages of a run.
type Tally struct {
	Received         int64 // messages taken
	Acked            int64 // … that are settled: dead letters, and those whose row is terminal
	Skipped          int64 // … whose row was terminal already, or is another message's
	Onboarded        int64 // rows
	AlreadyOnboarded int64 // the part of Onboarded found past initiating
	Conflict         int64
	Refused          int64
	Rejected         int64
	Failed           int64
	DeadLettered     int64 // messages
	BadRows          int64 // rows that ended badly, here or earlier, and are neither onboarded since nor dismissed
	Waiting          int64 // rows left to the custodian: the next run asks what became of them
	Open             int64 // rows under way
	Dropped          int64 // rows taken and returned unsettled, since the latest assignment
	Returned         int64 // messages taken and returned unsettled, the waiting rows' too: they come again
	Retried          int64 // requests sent again under the same key
	Signatures       int64 // signatures made
}

// Bad reports whether the exit code is 3: rows ended badly, wait for a custodian, or messages are dead letters.
func (t Tally) Bad() bool {
	return t.BadRows+t.DeadLettered+t.Waiting > 0
}

// ImportTally counts the messages of an import in a run.
type ImportTally struct {
	Received int64 // messages taken
	Earlier  int64 // … whose row an earlier import had settled: it stays that import's
	// EarlierStages are the stages of the rows of Earlier, each row once.
	EarlierStages map[Stage]int64
}
