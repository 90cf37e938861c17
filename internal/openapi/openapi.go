// Package openapi writes an HTTP API down as a document of OpenAPI 3.0: its
// operations as they are routed, and the JSON forms of the Go values that they
// take and give, by reflection.
package openapi

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strings"
)

// Info is what is said of the API as a whole.
type Info struct{ Title, Version, Description string }

// Operation is one method of one path.
type Operation struct {
	Method  string
	Path    string // with parameters as {name}
	Summary string
	Query   []Parameter
	// Takes is a value of the type that the body holds; nil: there is none.
	Takes   any
	Answers []Answer
}

// Parameter is one of the query, with a value of its type.
type Parameter struct {
	Name, Description string
	Value             any
}

// Answer is what comes back. Status 0 is any that is not listed.
type Answer struct {
	Status      int
	Description string
	// Content is a value of the type that is sent, by media type; none: no body.
	Content map[string]any
}

// Document is the API as JSON.
func Document(info Info, operations []Operation) ([]byte, error) {
	s := &schemas{named: map[string]any{}}
	paths := map[string]map[string]any{}
	// What is taken comes first: a field may be left out there, which an answer
	// always has.
	bodies := make([]any, len(operations))
	s.lenient = true
	for i, op := range operations {
		if op.Takes != nil {
			bodies[i] = map[string]any{"required": true, "content": s.content(map[string]any{"application/json": op.Takes})}
		}
	}
	s.lenient = false
	for i, op := range operations {
		if paths[op.Path] == nil {
			paths[op.Path] = map[string]any{}
		}
		text := map[string]any{"operationId": op.id(), "summary": op.Summary, "responses": s.answers(op.Answers)}
		if bodies[i] != nil {
			text["requestBody"] = bodies[i]
		}
		if list := append(op.inPath(), s.inQuery(op.Query)...); len(list) > 0 {
			text["parameters"] = list
		}
		paths[op.Path][strings.ToLower(op.Method)] = text
	}
	doc, err := json.Marshal(map[string]any{
		"openapi":    "3.0.3",
		"info":       map[string]any{"title": info.Title, "version": info.Version, "description": info.Description},
		"paths":      paths,
		"components": map[string]any{"schemas": s.named},
	})
	if err != nil {
		return nil, fmt.Errorf("write document of OpenAPI: %w", err)
	}
	return doc, nil
}

// inBraces is a parameter in a path.
var inBraces = regexp.MustCompile(`\{(\w+)\}`)

// id is a name for the operation that no other has: getSandboxesName.
func (op Operation) id() string {
	id := strings.ToLower(op.Method)
	for part := range strings.FieldsFuncSeq(op.Path, func(r rune) bool { return strings.ContainsRune("/{}.", r) }) {
		if part != "v1" {
			id += strings.ToUpper(part[:1]) + part[1:]
		}
	}
	return id
}

func (op Operation) inPath() []any {
	var list []any
	for _, m := range inBraces.FindAllStringSubmatch(op.Path, -1) {
		list = append(list, map[string]any{"name": m[1], "in": "path", "required": true, "schema": map[string]any{"type": "string"}})
	}
	return list
}

func (s *schemas) inQuery(query []Parameter) []any {
	var list []any
	for _, p := range query {
		list = append(list, map[string]any{
			"name": p.Name, "in": "query", "description": p.Description, "schema": s.of(reflect.TypeOf(p.Value)),
		})
	}
	return list
}

func (s *schemas) answers(list []Answer) map[string]any {
	out := map[string]any{}
	for _, a := range list {
		status := "default"
		if a.Status != 0 {
			status = fmt.Sprint(a.Status)
		}
		text := map[string]any{"description": a.Description}
		if len(a.Content) > 0 {
			text["content"] = s.content(a.Content)
		}
		out[status] = text
	}
	return out
}

func (s *schemas) content(values map[string]any) map[string]any {
	out := map[string]any{}
	for media, value := range values {
		out[media] = map[string]any{"schema": s.of(reflect.TypeOf(value))}
	}
	return out
}
