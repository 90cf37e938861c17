package openapi

import (
	"encoding"
	"net/netip"
	"reflect"
	"strings"
	"time"
)

// schemas describes types as encoding/json writes them.
type schemas struct {
	named map[string]any // structs, by the names of their types
	// lenient is set for what clients send: any field may be left out.
	lenient bool
}

// of describes a type; named structs once, and by reference.
func (s *schemas) of(t reflect.Type) map[string]any {
	switch t {
	case reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	case reflect.TypeFor[netip.Addr]():
		return map[string]any{"type": "string", "format": "ip"}
	case reflect.TypeFor[netip.Prefix]():
		return map[string]any{"type": "string", "format": "cidr"}
	}
	if t.Implements(reflect.TypeFor[encoding.TextMarshaler]()) {
		return map[string]any{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return orNull(s.of(t.Elem()))
	case reflect.Slice:
		return orNull(map[string]any{"type": "array", "items": s.of(t.Elem())})
	case reflect.Map:
		return orNull(map[string]any{"type": "object", "additionalProperties": s.of(t.Elem())})
	case reflect.Struct:
		return s.structure(t)
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return map[string]any{"type": "integer", "format": "int64"}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return map[string]any{"type": "integer", "minimum": 0}
	case reflect.Float32, reflect.Float64:
		return map[string]any{"type": "number"}
	}
	return map[string]any{} // anything
}

// orNull is a schema that allows null, too. Beside a reference nothing counts
// (OpenAPI 3.0, Reference Object), so it is wrapped.
func orNull(schema map[string]any) map[string]any {
	if _, ref := schema["$ref"]; ref {
		schema = map[string]any{"allOf": []any{schema}}
	}
	schema["nullable"] = true
	return schema
}

func (s *schemas) structure(t reflect.Type) map[string]any {
	ref := map[string]any{"$ref": "#/components/schemas/" + t.Name()}
	if _, known := s.named[t.Name()]; known {
		return ref
	}
	out := map[string]any{"type": "object"}
	s.named[t.Name()] = out // before its fields: it may refer to itself
	fields, required := map[string]any{}, []string{}
	for _, f := range reflect.VisibleFields(t) {
		tag, tagged := f.Tag.Lookup("json")
		name, options, _ := strings.Cut(tag, ",")
		if !f.IsExported() || name == "-" || f.Anonymous && !tagged {
			continue
		}
		if name == "" {
			name = f.Name
		}
		fields[name] = s.of(f.Type)
		if !s.lenient && !strings.Contains(options, "omit") {
			required = append(required, name)
		}
	}
	out["properties"] = fields
	if len(required) > 0 {
		out["required"] = required
	}
	return ref
}
