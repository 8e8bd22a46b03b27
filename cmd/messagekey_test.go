package cmd

import (
	"slices"
	"testing"

	"github.com/purser-onboard/purser/messageauth"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/sandbox"
)

// TestForgedMessage: with --message-key-file, forged messages that bind held wallets to other external ids become dead
// letters, which redrive does not put back, and the importer's rows are onboarded. As a control, without the setting
// the first forged message takes the wallet.
func TestForgedMessage(t *testing.T) {
	t.Parallel()
	k := fakeKafka(t)
	held := exportRows(t)[0]
	held.ExternalID = "attacker"
	forged := func() pipeline.Message {
		return pipeline.Message{Key: []byte(held.Account.String()), Value: pipeline.AppendMessage(nil, held)}
	}
	t.Run("without a key", func(t *testing.T) {
		_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
		env = append(onKafka(env, k.addrs, "open"), "PURSER_CREATE_TOPICS=true", "PURSER_CREATE_PARTITIONS=2")
		mustRun(t, env, "consumer", "check")
		publish(t, k, "open", []pipeline.Message{forged()})
		mustRun(t, env, "importer", customers)
		exitsWith(t, env, 3, []string{"31 received: 30 onboarded", "1 in conflict"}, "consumer", "--drain")
	})
	t.Run("with a key", func(t *testing.T) {
		server, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
		env = append(onKafka(env, k.addrs, "keyed"), "PURSER_CREATE_TOPICS=true", "PURSER_CREATE_PARTITIONS=2")
		env = append(env, "PURSER_MESSAGE_KEY_FILE="+keyFile(t, 1))
		exitsWith(t, env, 0, nil, "consumer", "check")
		attacks := []pipeline.Message{forged(), forged(), forged(), forged()}
		authenticator(t, messageauth.Rows, "keyed", 9).Sign(attacks[1:2])
		authenticator(t, messageauth.Ledgers, "keyed", 1).Sign(attacks[2:3])
		authenticator(t, messageauth.Rows, "another", 1).Sign(attacks[3:])
		publish(t, k, "keyed", attacks)
		exitsWith(t, env, 2, []string{"FAIL  messages", "--message-key-file", "none of the queue's first messages is authentic"},
			"consumer", "check")
		mustRun(t, env, "importer", customers)
		exitsWith(t, env, 0, []string{"warn  messages", "30 of the queue's first 34 messages are authentic"}, "consumer", "check")
		exitsWith(t, env, 3, []string{"34 received: 30 onboarded, 4 dead-lettered", "class=unauthenticated"},
			"consumer", "--drain")
		rows := rowsOf(t, env)
		judgeRows(t, server, rows, 30)
		if slices.ContainsFunc(rows, func(r sandbox.Expected) bool { return r.ExternalID == "attacker" }) {
			t.Error("got a row of the attacker in the ledger, want none")
		}
		exitsWith(t, env, 3, []string{"4 dead letters examined, 0 put back", "it is not authentic"}, "consumer", "redrive")
		// A second key is accepted while the first one is rotated.
		rotated := append(slices.Clone(env), "PURSER_MESSAGE_KEY_FILE="+keyFile(t, 2, 1))
		mustRun(t, env, "importer", customers)
		mustRun(t, rotated, "importer", customers)
		exitsWith(t, rotated, 0, []string{"60 received: 0 onboarded, 60 skipped"}, "consumer", "--drain")
	})
}
