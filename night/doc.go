// Package night is the account of a night: what became of the rows of one run or several, what is left, and what to do
// now. Account has the facts. HTML, Text and JSON render them: the page is one file that loads nothing and runs no
// script, the text is for a terminal or a mail, the JSON for scripts.
//
// The package reads nothing itself. The command that makes an account fills in what it found, calls Conclude, and
// renders the account. What was not recorded is nil, and the page says so.
package night
