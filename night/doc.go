// Package night is the account of a night: the outcomes of the rows of one run or several, what is left, and what to do
// now. Account has the facts. HTML, Text and JSON render them: the page is one file that loads nothing and runs no
// script, the text is for a terminal or a mail, the JSON for scripts.
//
// The package reads nothing itself. The command fills an Account in, calls Conclude, and renders it. A field that was
// not recorded is nil, and the page says so.
package night
