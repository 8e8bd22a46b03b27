package httpsig

import (
	"net/textproto"
	"slices"
	"strings"

	"github.com/dunglas/httpsfv"
)

// component is a component identifier (RFC 9421 §2).
type component struct {
	name   string
	id     string          // serialized with its parameters: `"@method"`, `"@query-param";name="Pet"`
	key    string          // canonical header key of a field; empty for a derived component
	params *httpsfv.Params // nil when there are none
}

// source gives the values of the components of a message. Apart from request and served, the tests have a source for
// the RFC's vectors, which use responses and component parameters.
type source interface {
	// appendValue appends the component's value for the signature base (RFC 9421 §2.1, §2.2).
	appendValue(dst []byte, c component) ([]byte, error)
}

// appendBase appends the signature base (RFC 9421 §2.5): a line for each component in order, then the signature
// parameters, without a final newline.
func appendBase(dst []byte, components []component, params string, from source) ([]byte, error) {
	for _, c := range components {
		dst = append(dst, c.id...)
		dst = append(dst, ": "...)
		start := len(dst)
		var err error
		if dst, err = from.appendValue(dst, c); err != nil {
			return nil, err
		}
		// A line break in a value could fake another component; beyond ASCII no encoding is defined.
		if !isFieldText(dst[start:]) {
			return nil, componentError(c.name, ErrRequest, "value is not printable ASCII")
		}
		dst = append(dst, '\n')
	}
	dst = append(dst, `"@signature-params": `...)
	return append(dst, params...), nil
}

func isFieldText(b []byte) bool {
	for _, c := range b {
		if (c < 0x20 && c != '\t') || c > 0x7e {
			return false
		}
	}
	return true
}

// newComponent returns the component, without parameters, for a configured name.
func newComponent(name string) (component, error) {
	switch name {
	case "@method", "@target-uri", "@authority", "@scheme", "@path", "@query", "@request-target":
		return component{name: name, id: `"` + name + `"`}, nil
	case "signature", "signature-input":
		return component{}, componentError(name, ErrConfig, "a signature cannot cover its own fields")
	}
	if strings.HasPrefix(name, "@") {
		return component{}, componentError(name, ErrConfig, "is not a supported derived component")
	}
	if !isFieldName(name) {
		return component{}, componentError(name, ErrConfig, "is not a header field name in lower case")
	}
	return component{name: name, id: `"` + name + `"`, key: textproto.CanonicalMIMEHeaderKey(name)}, nil
}

// newComponents checks a configured list of names.
func newComponents(optionName string, names []string) ([]component, error) {
	if len(names) == 0 {
		return nil, option(optionName, "is empty: the signature would cover nothing")
	}
	if len(names) > maxComponents {
		return nil, option(optionName, "lists too many components")
	}
	list := make([]component, 0, len(names))
	for _, name := range names {
		c, err := newComponent(name)
		if err != nil {
			return nil, err
		}
		if covers(list, c.id) {
			return nil, componentError(name, ErrConfig, "is listed twice")
		}
		list = append(list, c)
	}
	return list, nil
}

func covers(list []component, id string) bool {
	return slices.ContainsFunc(list, func(c component) bool { return c.id == id })
}

// isFieldName reports whether name is a token (RFC 9110 §5.6.2) without upper-case letters, as RFC 9421 §2.1 requires
// of field names in components.
func isFieldName(name string) bool {
	for i := 0; i < len(name); i++ {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return name != ""
}
