package night

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/purser-onboard/purser/pipeline/results"
)

// importAgain is the command that imports the files of imports again; empty if there is none: standard input.
func importAgain(c Commands, imports []results.ReportImport) []string {
	var names []string
	for _, i := range imports {
		if i.Importer == nil {
			continue
		}
		for _, f := range i.Importer.Files {
			if name := shellWord(f.Name); f.Name != "-" && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []string{c.Import + c.Importer + " " + strings.Join(names, " ")}
}

// shellWord is a file name as a shell reads it.
func shellWord(name string) string {
	if strings.HasPrefix(name, "-") {
		name = "./" + name
	}
	if plainName.MatchString(name) {
		return name
	}
	return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
}

// plainName is a file name that a shell takes as it is.
var plainName = regexp.MustCompile(`^[A-Za-z0-9_./:,@%+=-]+$`)

// todo is what to do now, in this order. While the latest run may be in progress, what can be imported again or put
// back is not known for certain: the next report has it.
func (a *Account) todo(c Commands) (steps []Step) {
	add := func(text string, commands ...string) { steps = append(steps, Step{text, commands}) }
	if len(a.Runs) == 0 {
		add("Import an export and run the consumer; the README lists the settings that they need.",
			c.Consume+" runs"+c.Ledger)
		return steps
	}
	latest := a.Runs[0]
	var again []string // what running again is good for
	if latest.Report.Export != "" {
		add("Put the export where the run looked for it, readable for its user, and import it.",
			c.Import+c.Importer+c.Export)
		again = append(again, "onboards the rows of the export")
	}
	switch {
	case latest.alive():
		add("Wait until the run has ended, or stop it with SIGTERM: until then no other run can begin.",
			c.Consume+" status"+c.Ledger+" --watch")
	case latest.over() && !latest.Ended():
		again = append(again, "goes on where this one was killed")
	case !latest.Ended():
		add("If the run is in progress, wait until it has ended, or stop it with SIGTERM: until then no other run can begin.",
			c.Consume+" runs"+c.Ledger+" --last 5")
		again = append(again, "goes on where this one was killed")
	case latest.Report.Cause == results.CauseInterrupted:
		again = append(again, "takes the rows that had not ended from the queue")
	case latest.Report.Cause == results.CauseImport && latest.Report.Export != "": // its step is there
	case latest.Report.Cause == results.CauseImport:
		add("Remove the cause that the reason names, and import the export again; rows that are onboarded are not touched.")
		again = append(again, "onboards the rows of the export")
	case latest.Report.Exit == 2:
		add("Correct the setting that the reason names, and test the set-up; the test touches no customer. The runbook has "+
			"each halt: docs/runbook.md#runs-that-halted.",
			c.Consume+" check"+c.Queue)
		again = append(again, "takes the rows that had not ended from the queue")
	case latest.Report.Exit == 1:
		add("Remove the cause that the reason names. The runbook has each halt: docs/runbook.md#runs-that-halted.")
		again = append(again, "takes the rows that had not ended from the queue")
	}
	if list := a.unfinished(); len(list) > 0 {
		add(fmt.Sprintf("Import %s again, from the directory of the export: its import did not come to its end. See first "+
			"that it is not in progress, and remove the cause that “Incidents” names. Rows that are onboarded are not touched.",
			namesOf(list)), importAgain(c, list)...)
		again = append(again, "onboards the rows that were imported again")
	}
	if a.lost() {
		add("Keep a copy of the data directory, and report the difference in the balance as a defect. Importing the file "+
			"again is safe.", c.Consume+" status"+c.Ledger)
	}
	if list, n := a.notSeen(); n > 0 {
		if a.lost() {
			add(fmt.Sprintf("Import %s again, from the directory of the export: the queue is drained, and no run has seen all "+
				"of its rows. Was the broker's directory replaced, or another queue used?", namesOf(list)), importAgain(c, list)...)
		}
		again = append(again, "takes the rows that no run has seen from the queue")
	}
	if a.retryable() > 0 && latest.over() {
		add("Remove the causes that “Why rows failed” lists. Then import the rows that ended badly again; rows that are "+
			"onboarded are not touched.", c.Consume+" failures"+c.Ledger+" > again.csv", c.Import+c.Importer+" again.csv")
		if len(a.unfinished()) == 0 {
			again = append(again, "onboards the rows that were imported again")
		}
	}
	if rejected := a.bad() - a.retryable(); rejected > 0 {
		add(fmt.Sprintf("Ask the partner about the %s. A new import does not change that.",
			plural(rejected, "row that it rejected", count(rejected)+" rows that it rejected")),
			c.Consume+" failures"+c.Ledger+" | grep ,rejected,")
	}
	if a.invalidRows() > 0 && latest.over() {
		where := "The rejects file"
		if a.RejectFile != "" {
			where = "The file " + a.RejectFile
		}
		add("Have the invalid rows corrected where the export is made, and import the new export; rows that are onboarded " +
			"are skipped. " + where + " lists them with file, line, field and reason.")
	}
	if a.Left.Waiting > 0 {
		add("Have the custodian's transactions approved that “What is left” lists.")
		again = append(again, "asks the custodian what became of its transactions")
	}
	letters := a.Left.LetterCount > 0 || a.Left.Letters == nil && a.Rows().DeadLettered+a.lettersBefore() > 0
	if letters && latest.over() {
		add("Look at the dead letters, remove their cause, and put them back into the queue.",
			c.Consume+" redrive"+c.Queue+" --dry-run", c.Consume+" redrive"+c.Queue)
		again = append(again, "onboards the rows of the dead letters")
	}
	if n := a.Left.Unpublished; n > 0 {
		again = append(again, plural(n, "publishes the event", "publishes the "+count(n)+" events")+" of settled rows that "+
			plural(n, "was", "were")+" left")
	}
	if a.Verdict.Level == Empty {
		add("Find out whether the export was imported tonight; the importer's log says so. If it was not, import it: rows "+
			"that are onboarded are not touched.", c.Consume+" runs"+c.Ledger+" --last 7")
	}
	if len(again) > 0 && !latest.alive() {
		first := "Run again."
		if !latest.over() {
			first = "If its process was killed, run again."
		}
		add(first+" The run "+list(again)+".", c.Consume+" run"+c.Queue+" --drain")
	}
	return steps
}
