package config

import (
	"encoding/csv"
	"strconv"
	"strings"
	"unicode/utf8"
)

// settleDialect reads the settings of the exports' format.
func (c *Importer) settleDialect() (err error) {
	if c.Delimiter != "" {
		delimiter := strings.ReplaceAll(c.Delimiter, `\t`, "\t")
		comma, size := utf8.DecodeRuneInString(delimiter)
		if size != len(delimiter) || strings.ContainsRune("\"\r\n", comma) || comma == utf8.RuneError {
			return &Error{"--delimiter", c.Delimiter, `want one character, or \t`}
		}
		c.Comma = comma
	}
	if c.Encoding == "auto" {
		c.Encoding = ""
	}
	if c.ColumnNames, err = parseColumns(c.Columns); err != nil {
		return err
	}
	name, named := c.ColumnNames["chainId"]
	c.NoChainColumn = named && name == ""
	c.MaxInvalidRows, c.MaxInvalidPercent = -1, -1
	if percent, ok := strings.CutSuffix(c.MaxInvalid, "%"); ok {
		c.MaxInvalidPercent, err = strconv.ParseFloat(percent, 64)
		if err != nil || !(c.MaxInvalidPercent >= 0 && c.MaxInvalidPercent <= 100) {
			return &Error{"--max-invalid", c.MaxInvalid, "want 0% to 100%"}
		}
		return nil
	}
	if c.MaxInvalidRows, err = strconv.ParseInt(c.MaxInvalid, 10, 64); err != nil || c.MaxInvalidRows < 0 {
		return &Error{"--max-invalid", c.MaxInvalid, "want a number of rows, or a percentage such as 5%"}
	}
	return nil
}

// parseColumns reads address=NAME,externalId=NAME,chainId=NAME. A name with a comma, = or quote is in double quotes,
// like a CSV field. An empty name means that no column has the chain.
func parseColumns(text string) (map[string]string, error) {
	names := map[string]string{}
	bad := func(problem string) error { return &Error{"--columns", text, problem} }
	const want = `want address=NAME,externalId=NAME,chainId=NAME, and a NAME with a comma, = or quote in "double quotes"`
	for rest := text; rest != ""; {
		column, value, ok := strings.Cut(rest, "=")
		if !ok {
			return nil, bad(want)
		}
		column = strings.TrimSpace(column)
		switch strings.ToLower(column) {
		case "address":
			column = "address"
		case "externalid", "external_id":
			column = "externalId"
		case "chainid", "chain_id":
			column = "chainId"
		default:
			return nil, bad(want)
		}
		name, more, err := columnName(value)
		if err != nil || name == "" && column != "chainId" {
			return nil, bad(want)
		}
		if _, twice := names[column]; twice {
			return nil, bad("names the column " + column + " twice")
		}
		for other, taken := range names {
			if strings.EqualFold(taken, name) {
				return nil, bad("names the same column for " + other + " and " + column)
			}
		}
		names[column], rest = name, more
	}
	return names, nil
}

// columnName takes a name from the beginning of a list.
func columnName(list string) (name, rest string, err error) {
	end := strings.IndexByte(list, ',')
	if strings.HasPrefix(list, `"`) {
		end = 1
		for end < len(list) && (list[end] != '"' || end+1 < len(list) && list[end+1] == '"') {
			if list[end] == '"' {
				end++
			}
			end++
		}
		if end = min(end+1, len(list)); end == len(list) {
			end = -1
		}
	}
	if end >= 0 {
		list, rest = list[:end], list[end:]
		if !strings.HasPrefix(rest, ",") {
			return "", "", strconv.ErrSyntax
		}
		rest = rest[1:]
	}
	if !strings.HasPrefix(list, `"`) {
		return strings.TrimSpace(list), rest, nil
	}
	fields, err := csv.NewReader(strings.NewReader(list)).Read()
	if err != nil || len(fields) != 1 {
		return "", "", strconv.ErrSyntax
	}
	return strings.TrimSpace(fields[0]), rest, nil
}
