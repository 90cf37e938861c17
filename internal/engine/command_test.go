package engine

import (
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/towpath/towpath/api"
)

// TestRunGoesWithItsProcess: when the process ends, so does the sandbox.
func TestRunGoesWithItsProcess(t *testing.T) {
	inBubble(t, func(r *rig) {
		_, _, err := r.CreateSandbox(r.Context(), api.SandboxSpec{Name: "job", Run: true}, api.Caller{PID: 7}, false)
		r.check(err)
		close(r.gone)
		synctest.Wait()
		if _, err := r.Sandbox(r.Context(), "job"); api.CodeOf(err) != api.NotFound {
			t.Errorf("the sandbox is still there: %v", err)
		}
		r.clean()
	})
}

// TestRemoveOfARun: only the process itself may remove the sandbox of a command
// that runs; with force others end it. What is left in there ends either way.
func TestRemoveOfARun(t *testing.T) {
	inBubble(t, func(r *rig) {
		const path = "/run/towpath/netns/job true"
		for _, c := range []struct {
			from       int
			force, dry bool
			code       api.Code
			killed     []string
		}{
			{from: 8, code: api.InUse},
			{from: 8, dry: true, code: api.InUse},
			{from: 8, force: true, dry: true},
			{from: 7, killed: []string{path}},
			{from: 8, force: true, killed: []string{"7", path}},
		} {
			_, _, err := r.CreateSandbox(r.Context(), api.SandboxSpec{Name: "job", Run: true}, api.Caller{PID: 7}, false)
			if err != nil && api.CodeOf(err) != api.AlreadyExists {
				t.Fatal(err)
			}
			r.killed = nil
			_, err = r.RemoveSandbox(r.Context(), "JOB", api.Caller{PID: c.from}, c.force, c.dry)
			if err != nil && api.CodeOf(err) != c.code || err == nil && c.code != "" {
				t.Errorf("%+v: %v", c, err)
			}
			if diff := cmp.Diff(c.killed, r.killed); diff != "" {
				t.Errorf("%+v: killed (-want +got):\n%s", c, diff)
			}
		}
		r.clean()
	})
}

// TestNameOfARunGoesOn: the end of a process takes no sandbox that got its name
// meanwhile.
func TestNameOfARunGoesOn(t *testing.T) {
	inBubble(t, func(r *rig) {
		_, _, err := r.CreateSandbox(r.Context(), api.SandboxSpec{Name: "job", Run: true}, api.Caller{PID: 7}, false)
		r.check(err)
		_, err = r.RemoveSandbox(r.Context(), "job", api.Caller{PID: 7}, false, false)
		r.check(err)
		r.sandbox("job")
		r.killed = nil
		close(r.gone)
		synctest.Wait()
		if _, err := r.Sandbox(r.Context(), "job"); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff([]string{"/run/towpath/netns/job false"}, r.killed); diff != "" {
			t.Errorf("killed (-want +got):\n%s", diff)
		}
		r.clean()
	})
}
