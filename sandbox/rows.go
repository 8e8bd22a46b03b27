package sandbox

import (
	"slices"
	"strings"
)

// Expected is a row of the client, and the stage in which the client left it.
type Expected struct {
	ChainID    string `json:"chainId"` // CAIP-10, in any case
	ExternalID string `json:"externalId"`
	// Stage is onboarded, conflict, refused, rejected or failed. Empty: unknown, and the customer must be onboarded.
	Stage string `json:"stage,omitempty"`
}

func foldAccount(chainID string) string { return strings.ToLower(chainID) }

// rowsSettled compares the rows' stages with the partner's customers.
func rowsSettled(e evidence) (out []Violation) {
	if e.Expected == nil {
		return nil
	}
	byAccount, byExternal := make(map[string]Customer), make(map[string]Customer)
	for _, c := range e.Customers {
		byAccount[foldAccount(c.ChainID)], byExternal[c.ExternalID] = c, c
	}
	rowsByAccount, rowsByExternal := make(map[string]pairs), make(map[string]pairs)
	for _, row := range e.Expected {
		account := foldAccount(row.ChainID)
		rowsByAccount[account] = rowsByAccount[account].with(row.ExternalID)
		rowsByExternal[row.ExternalID] = rowsByExternal[row.ExternalID].with(account)
	}
	for _, row := range e.Expected {
		account := foldAccount(row.ChainID)
		c, exists := byAccount[account]
		own := exists && c.ExternalID == row.ExternalID
		contradicted := exists && !own || byExternal[row.ExternalID].ID != "" && !own ||
			len(rowsByAccount[account]) > 1 || len(rowsByExternal[row.ExternalID]) > 1
		if problem := row.problem(c, own, contradicted); problem != "" {
			out = append(out, Violation{RowSettled, row.ChainID + " " + row.ExternalID, nil, problem})
		}
	}
	for _, c := range e.Customers {
		if !c.Given && !rowsByAccount[foldAccount(c.ChainID)].has(c.ExternalID) {
			out = append(out, Violation{NobodyElse, c.ID, nil,
				c.ChainID + " " + c.ExternalID + " is not an expected row"})
		}
	}
	return out
}

// problem returns the contradiction between the row's stage and the partner's customer c, "" when there is none. own
// reports whether c is the row's own customer.
func (row Expected) problem(c Customer, own, contradicted bool) string {
	switch row.Stage {
	case "onboarded", "":
		switch {
		case !own:
			return "the partner has no such customer"
		case c.Status == StatusInitiating:
			return "the customer is still initiating"
		}
	case "conflict":
		if !contradicted {
			return "ended as conflict, but neither account nor externalId belongs to another"
		}
	case "refused":
		if !own || !c.hostile() {
			return "ended as refused, but no hostile challenge was issued"
		}
	case "rejected":
		if !own || c.Status != StatusRejected {
			return "ended as rejected, but the partner has not rejected it"
		}
	case "failed":
	default:
		return "is not terminal: " + row.Stage
	}
	return ""
}

func (c Customer) hostile() bool {
	return slices.ContainsFunc(c.Challenges, func(ch Challenge) bool { return ch.Hostile != "" })
}

// pairs are the different names that are paired with a name among the rows, at most 9.
type pairs []string

func (p pairs) has(name string) bool {
	return slices.Contains(p, name)
}

func (p pairs) with(name string) pairs {
	if p.has(name) || len(p) > 8 {
		return p
	}
	return append(p, name)
}
