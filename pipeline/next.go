package pipeline

import "time"

// Next says what the record asks for in its stage: where a row begins, and where it goes on after a restart.
// foreign: the key of its operation was derived for an earlier API key id; whether it did anything is looked up first.
func Next(r Record, now time.Time, l Limits, foreign bool) Action {
	switch r.Stage {
	case Planned:
		switch {
		case r.CustomerID != "":
			return DoRead
		case r.CreateKey.IsZero():
			return DoCreate
		case foreign:
			return DoLookUp
		case r.CreateKey.Outcome != KeyOpen && r.CreateKey.Outcome != KeyHeard:
			return DoRekey // an earlier import got an answer under that key
		case l.KeyIsFresh(r.CreateKey.FirstSent, now):
			return DoCreate
		}
		return DoLookUp
	case Creating:
		if r.CreateKey.Outcome == KeyAnswered {
			return DoLookUp // the key says nothing else: what an earlier run heard is not asked again
		}
		if !foreign && !r.CreateKey.IsZero() && l.KeyIsFresh(r.CreateKey.FirstSent, now) {
			return DoCreate
		}
		return DoLookUp // rule 4
	case Challenged:
		if r.Challenge == "" || !l.ChallengeIsFresh(r.ChallengeAt, now) {
			return DoFetch
		}
		return DoCheck
	case Signing:
		return DoSign
	case Submitting:
		if foreign || r.SubmitKey.Outcome != KeyOpen || !l.KeyIsFresh(r.SubmitKey.FirstSent, now) {
			return DoRead // what was answered is not sent again before the customer was read
		}
		return DoSubmit
	}
	return DoSettle
}
