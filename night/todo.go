package night

import (
	"fmt"
	"slices"
	"strings"

	"github.com/purser-onboard/purser/pipeline/results"
	"github.com/purser-onboard/purser/printable"
)

// importAgain is the command that imports the files of imports again; empty if there is none: standard input.
func importAgain(c Commands, imports []results.ReportImport) []string {
	var names []string
	for _, i := range imports {
		if i.Importer == nil {
			continue
		}
		for _, f := range i.Importer.Files {
			if name := fileWord(f.Name); f.Name != "-" && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []string{c.Import + c.Importer + " " + strings.Join(names, " ")}
}

// fileWord is a file name as a shell reads it, and the command that is given it.
func fileWord(name string) string {
	if strings.HasPrefix(name, "-") {
		name = "./" + name
	}
	return printable.ShellWord(name)
}

// steps are what to do now, as they are found.
type steps struct {
	*Account
	with  Commands
	list  []Step
	again []string // what running again is good for
}

func (s *steps) add(text string, commands ...string) { s.list = append(s.list, Step{text, commands}) }

// runAgain adds what running again is good for, once.
func (s *steps) runAgain(because string) {
	if !slices.Contains(s.again, because) {
		s.again = append(s.again, because)
	}
}

// todo is what to do now, in this order. While the latest run may be in progress, what can be imported again or put
// back is not known for certain: the next report has it.
func (a *Account) todo(c Commands) []Step {
	s := &steps{Account: a, with: c}
	if len(a.Runs) == 0 {
		s.add("Import an export and run the consumer; the README lists the settings that they need.",
			c.Consume+" runs"+c.Ledger)
		return s.list
	}
	latest := a.Runs[0]
	s.ofRun(latest)
	s.ofImports()
	s.ofRows(latest)
	s.ofQueue(latest)
	if len(s.again) > 0 && !latest.alive() {
		first := "Run again."
		if !latest.over() {
			first = "If its process was killed, run again."
		}
		s.add(first+" The run "+list(s.again)+".", c.Consume+" run"+c.Queue+" --drain")
	}
	return s.list
}

// ofRun adds what the end of the latest run asks for.
func (s *steps) ofRun(latest Run) {
	if latest.Report.Export != "" {
		s.add("Put the export at the path that the run was given, readable by its user, and import it.",
			s.with.Import+s.with.Importer+s.with.Export)
		s.runAgain("onboards the export's rows")
	}
	switch {
	case latest.alive():
		s.add("Wait until the run has ended, or stop it with SIGTERM: until then no other run can start.",
			s.with.Consume+" status"+s.with.Ledger+" --watch")
	case latest.over() && !latest.Ended():
		s.runAgain("continues where this run was killed")
	case !latest.Ended():
		s.add("If the run is in progress, wait until it has ended, or stop it with SIGTERM: until then no other run can "+
			"start.", s.with.Consume+" runs"+s.with.Ledger+" --last 5")
		s.runAgain("continues where this run was killed")
	case latest.Report.Cause == results.CauseInterrupted:
		s.runAgain("onboards the unsettled rows in the queue")
	case latest.Report.Cause == results.CauseImport && latest.Report.Export != "": // its step is there
	case latest.Report.Cause == results.CauseImport:
		s.add("Fix the cause given in the reason, and import the export again; onboarded rows are skipped.")
		s.runAgain("onboards the export's rows")
	case latest.Report.Exit == 2:
		s.add("Correct the setting that the reason names, and test the set-up; the test touches no customer. The runbook "+
			"explains each halt: docs/runbook.md#runs-that-halted.",
			s.with.Consume+" check"+s.with.Queue)
		s.runAgain("onboards the unsettled rows in the queue")
	case latest.Report.Exit == 1:
		s.add("Fix the cause given in the reason. The runbook explains each halt: docs/runbook.md#runs-that-halted.")
		s.runAgain("onboards the unsettled rows in the queue")
	}
}

// ofImports adds what is to be imported again, because it did not reach the queue or no run has seen it.
func (s *steps) ofImports() {
	var running, again []results.ReportImport
	first := "Fix the cause given under “Incidents”."
	for _, i := range s.unfinished() {
		switch m := i.Importer; {
		case m.Alive != nil && *m.Alive:
			running = append(running, i)
			continue
		case !m.Ended() && m.Alive == nil:
			first = "Make sure that it is not in progress, and fix the cause given under “Incidents”."
		}
		again = append(again, i)
	}
	if len(running) > 0 {
		s.add(fmt.Sprintf("Wait until the import of %s has ended.", namesOf(running)))
		s.runAgain("onboards the rows that are imported meanwhile")
	}
	if len(again) > 0 {
		s.add(fmt.Sprintf("Import %s again, from the directory of the export: its import did not finish. %s Onboarded "+
			"rows are skipped.", namesOf(again), first), importAgain(s.with, again)...)
		s.runAgain("onboards the rows that were imported again")
	}
	if s.lost() {
		s.add("Keep a copy of the data directory, and report the difference in the balance as a bug. Importing the file "+
			"again is safe.", s.with.Consume+" status"+s.with.Ledger)
	}
	list, n := s.notSeen()
	if n == 0 {
		return
	}
	if s.lost() {
		s.add(fmt.Sprintf("Import %s again, from the directory of the export: the queue is drained, but no run has received "+
			"all of its rows. Was the broker's directory replaced, or another queue used?", namesOf(list)),
			importAgain(s.with, list)...)
	}
	s.runAgain("onboards the rows in the queue that no run has received")
}

// ofRows adds what the rows ask for that ended badly or are invalid.
func (s *steps) ofRows(latest Run) {
	if s.retryable() > 0 && latest.over() {
		s.add("Fix the causes listed under “Why rows failed”. Then import the rows that ended badly again; onboarded rows "+
			"are skipped.", s.with.Consume+" failures"+s.with.Ledger+" > again.csv",
			s.with.Import+s.with.Importer+" again.csv")
		s.runAgain("onboards the rows that were imported again")
	}
	if rejected := s.bad() - s.retryable(); rejected > 0 {
		s.add(fmt.Sprintf("Ask the partner about the %s. A new import does not change that. If it is final, leave them out "+
			"of later reports: %s dismiss%s rejected.csv",
			printable.Plural(rejected, "row that it rejected", count(rejected)+" rows that it rejected"),
			s.with.Consume, s.with.Ledger), s.with.Consume+" failures"+s.with.Ledger+" --stage rejected > rejected.csv")
	}
	if s.invalidRows() > 0 && latest.over() {
		where := "The rejects file"
		if s.RejectFile != "" {
			where = "The file " + s.RejectFile
		}
		s.add("Have the invalid rows corrected at the source of the export, and import the new export; " +
			"onboarded rows are skipped. " + where + " lists them with file, line, field and reason; for an import " +
			"before the latest, it is rejects-<time>.csv.")
	}
}

// ofQueue adds what the custodian, the dead letters and the outbox still hold, and a night without rows.
func (s *steps) ofQueue(latest Run) {
	if s.Left.Waiting > 0 {
		s.add("Have the custodian's transactions listed under “What is left” approved.")
		s.runAgain("polls the custodian's transactions")
	}
	letters := s.Left.LetterCount > 0 || s.Left.Letters == nil && s.Rows().DeadLettered+s.lettersBefore() > 0
	if letters && latest.over() {
		s.add("Inspect the dead letters, fix their cause, and put them back into the queue.",
			s.with.Consume+" redrive"+s.with.Queue+" --dry-run", s.with.Consume+" redrive"+s.with.Queue)
		s.runAgain("onboards the rows of the dead letters")
	}
	if n := s.Left.Unpublished; n > 0 {
		s.runAgain(printable.Plural(n, "publishes the event", "publishes the "+count(n)+" events") +
			" of settled rows that " + printable.Plural(n, "was", "were") + " left")
	}
	if s.Verdict.Level == Empty {
		s.add("Check in the importer's log whether the export was imported tonight. If not, import it: onboarded rows "+
			"are skipped.", s.with.Consume+" runs"+s.with.Ledger+" --last 7")
	}
}
