package kernel

import (
	"errors"
	"fmt"
)

// MissingError says that the running kernel lacks what is needed. It is an
// errors.ErrUnsupported.
type MissingError struct {
	// What it lacks: "bridges"; Option, what a kernel with it is built with.
	What, Option string
	Err          error
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("the running kernel has no %s, it needs %s: %v", e.What, e.Option, e.Err)
}

// Unwrap gives the kernel's word.
func (e *MissingError) Unwrap() error { return e.Err }

// Is makes errors.Is(err, errors.ErrUnsupported) true.
func (e *MissingError) Is(target error) bool { return target == errors.ErrUnsupported }

// TakenError says that a link which is not Towpath's is where one of Towpath's
// belongs. It is left alone.
type TakenError struct {
	Name, Kind, Alias string
	Err               error
}

func (e *TakenError) Error() string {
	what := e.Kind
	if what == "" {
		what = "physical"
	}
	if e.Alias != "" {
		what += fmt.Sprintf(", alias %q", e.Alias)
	}
	return fmt.Sprintf("a link named %s exists that is not Towpath's (%s); remove or rename it", e.Name, what)
}

// Unwrap gives the kernel's word, if it was asked.
func (e *TakenError) Unwrap() error { return e.Err }

// ParameterError says that a link of a sandbox has no such parameter, which is an
// errors.ErrUnsupported, or does not take the value.
type ParameterError struct {
	Sysctl Sysctl
	Err    error
}

func (e *ParameterError) Error() string {
	name := DottedSysctl(e.Sysctl.Name)
	if errors.Is(e.Err, errors.ErrUnsupported) {
		return fmt.Sprintf("sysctl %s: this kernel has no such parameter", name)
	}
	return fmt.Sprintf("sysctl %s does not take the value %q: %v", name, e.Sysctl.Value, e.Err)
}

// Unwrap gives the kernel's word.
func (e *ParameterError) Unwrap() error { return e.Err }
