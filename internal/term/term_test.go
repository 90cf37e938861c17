package term

import (
	"errors"
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	var b strings.Builder
	err := Table(&b, []string{"NAME", "SUBNETS", "STATE"}, [][]string{{"bridge", "172.20.0.0/24", "ready"}, {"x", "", "error"}})
	want := "" +
		"NAME     SUBNETS         STATE\n" +
		"bridge   172.20.0.0/24   ready\n" +
		"x        -               error\n"
	if err != nil || b.String() != want {
		t.Errorf("%v\n%s", err, b.String())
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestTableTellsOfAWriteThatFailed(t *testing.T) {
	if err := Table(broken{}, []string{"NAME"}, nil); err == nil {
		t.Error("no error")
	}
}
