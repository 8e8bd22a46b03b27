package sandbox

import (
	"strings"
	"testing"
)

func TestErrorShapes(t *testing.T) {
	seen := map[string]bool{}
	for shape, want := range map[ErrorShape][2]string{
		ShapeProblem: {"application/problem+json", `"title":"Not Found"`},
		ShapeCode:    {"application/json", `"code":"not_found"`},
		ShapeText:    {"text/plain; charset=utf-8", "Not Found: "},
		ShapeHTML:    {"text/html", "<html>"},
		ShapeEmpty:   {"", ""},
	} {
		p := open(t, func(c *Config) { c.ErrorShape = shape })
		a := p.do("GET", "/v1/customers/"+testKey(1), "")
		if a.status != 404 || a.header.Get("Content-Type") != want[0] || !strings.Contains(a.body, want[1]) {
			t.Errorf("%s: got %+v, want a 404, %s with %s", shape, a, want[0], want[1])
		}
		if shape == ShapeEmpty && a.body != "" {
			t.Errorf("%s: got the body %q, want none", shape, a.body)
		}
	}
	p := open(t, func(c *Config) { c.ErrorShape = ShapeRotate })
	for i := range 40 {
		seen[p.do("GET", "/v1/customers/"+testKey(i), "").header.Get("Content-Type")] = true
	}
	if len(seen) != 5 {
		t.Errorf("rotation: got %v, want 5 media types", seen)
	}
}
