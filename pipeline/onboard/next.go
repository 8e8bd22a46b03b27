package onboard

import (
	"time"

	"github.com/purser-onboard/purser/pipeline"
)

// next returns the action that the record requires in its stage, for a new row and after a restart. foreign: the key of
// its operation was derived for an earlier API key id; its effect is looked up first.
func next(r pipeline.Record, now time.Time, l Limits, foreign bool) Action {
	switch r.Stage {
	case pipeline.Planned:
		switch {
		case r.CustomerID != "":
			return DoRead
		case r.CreateKey.IsZero():
			return DoCreate
		case foreign:
			return DoLookUp
		case r.CreateKey.Outcome != pipeline.KeyOpen && r.CreateKey.Outcome != pipeline.KeyHeard:
			return DoRekey // an earlier import got an answer under that key
		case l.keyIsFresh(r.CreateKey.FirstSent, now):
			return DoCreate
		}
		return DoLookUp
	case pipeline.Creating:
		if r.CreateKey.Outcome == pipeline.KeyAnswered {
			return DoLookUp // the stored answer would be repeated: look the customer up instead
		}
		if !foreign && !r.CreateKey.IsZero() && l.keyIsFresh(r.CreateKey.FirstSent, now) {
			return DoCreate
		}
		return DoLookUp // rule "Old keys are not trusted"
	case pipeline.Challenged:
		if r.Challenge == "" || !l.challengeIsFresh(r.ChallengeAt, now) {
			return DoFetch
		}
		return DoCheck
	case pipeline.Signing:
		return DoSign
	case pipeline.Submitting:
		if foreign || r.SubmitKey.Outcome != pipeline.KeyOpen || !l.keyIsFresh(r.SubmitKey.FirstSent, now) {
			return DoRead // what was answered is not sent again before the customer was read
		}
		return DoSubmit
	}
	return DoSettle
}
