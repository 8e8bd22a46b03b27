package pipeline

import (
	"slices"
	"strings"
	"testing"
)

func TestCheckExternalID(t *testing.T) {
	for id, want := range map[string]string{
		"cust-1": "", "山田太郎": "", "caf\u00e9": "", "cafe\u0301": "", "a b": "", "7E-12": "", "12E+5": "", "1E+5": "", "#1": "",
		"“Ann” & Co": "", "Иванов-1": "",
		"1.23457E+15": "scientific", "1,23457e+15": "scientific", "-1E+20": "formula", "9E+100": "scientific",
		"#N/A": "error value", "#ref!": "error value", "####": "error value", "#DIV/0!": "error value",
		"a\u2800": "invisible character U+2800 at byte 2", "\u3164": "invisible", "a\ufe0f": "invisible", "a\u034fb": "invisible",
		"\U000e0100x": "invisible", "a\u200bb": "unprintable", "\uff11": "looks like '1'", "\U0001d7d9": "mathematical",
		"“cust-1”": "typographic quotes", "«a»": "typographic quotes", "a\ufffd": "replacement character",
		"caf\u00e9 e\u0301": "mixes", "\u212b": "mixes", "": "empty", "=1": "formula", " a": "space",
	} {
		err := CheckExternalID(id)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%+q: got %v, want %q", id, err, want)
		}
	}
}

func TestOtherForms(t *testing.T) {
	for id, want := range map[string][]string{
		"cafe": nil, "caf\u00e9": {"cafe\u0301"}, "cafe\u0301": {"caf\u00e9"}, "山": nil,
	} {
		if got := OtherForms(id); !slices.Equal(got, want) {
			t.Errorf("%+q: got %+q, want %+q", id, got, want)
		}
	}
}

func TestDamagedAddress(t *testing.T) {
	for text, want := range map[string]string{
		"1.23457E+47": "scientific", "#N/A": "error value", "": "begin with 0x", "0x12": "2 hex digits, want 40",
		"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeA": "leading zeros lost",
	} {
		if _, _, err := ParseAddress(text, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

// FuzzExternalID: what is valid is valid in each of its forms that it is compared in, or not at all.
func FuzzExternalID(f *testing.F) {
	f.Add("caf\u00e9")
	f.Add("1.2E+15")
	f.Add("“a”")
	f.Fuzz(func(t *testing.T, id string) {
		if CheckExternalID(id) != nil {
			return
		}
		if err := CheckStoredID(id); err != nil {
			t.Errorf("%+q: got %v, want a valid id to be storable", id, err)
		}
		for _, other := range OtherForms(id) {
			if other != id && !slices.Contains(OtherForms(other), id) {
				t.Errorf("%+q has the form %+q, which has %+q: got a form that does not lead back", id, other, OtherForms(other))
			}
		}
	})
}
