package engine

import (
	"context"

	"github.com/towpath/towpath/api"
)

// follow removes the sandbox of a `run` when its process is gone.
func (e *Engine) follow(ctx context.Context, s *api.Sandbox) {
	if s.Origin != api.OriginRun || s.Process == nil {
		return
	}
	gone := e.Processes.Exited(ctx, *s.Process)
	go func() {
		select {
		case <-ctx.Done():
		case <-gone:
			e.endRest(s)
			_, err := e.removeSandbox(ctx, s.Name, s.Process, false)
			if code := api.CodeOf(err); err != nil && code != api.NotFound && code != api.Conflict && ctx.Err() == nil {
				e.Log.Error("remove the sandbox of a command that ended", "sandbox", s.Name, "err", err)
			}
		}
	}()
}

// goesWith reports whether s is the sandbox of a process; nil: of none.
func goesWith(s *api.Sandbox, p *api.Process) bool {
	if s.Process == nil || p == nil {
		return s.Process == p
	}
	return *s.Process == *p
}

// endCommand ends the command of a `run`, and what it has left running.
func (e *Engine) endCommand(s *api.Sandbox, from api.Caller, force, dry bool) error {
	now, err := e.Processes.Identify(s.Process.PID)
	running := err == nil && now == *s.Process && from.PID != now.PID
	switch {
	case running && !force:
		return api.Errorf(api.InUse, "its command runs, as process %d", now.PID).WithFix("end it, too: towpath sandbox rm -f %s", s.Name)
	case dry:
		return nil
	case running:
		if err := e.Processes.Kill(now); err != nil {
			return api.Errorf(api.Failed, "%w", err)
		}
	}
	e.endRest(s)
	return nil
}

// endRest ends what still runs in the namespace of a `run`: what the command
// left there, and, as it is killed with its process by the kernel, which
// reaches one generation only, what it had started.
func (e *Engine) endRest(s *api.Sandbox) {
	still := func() bool {
		view, _ := e.View()
		now := view.SandboxNamed(s.Name)
		return now != nil && goesWith(now, s.Process)
	}
	if err := e.Processes.KillIn(s.Netns, still); err != nil {
		e.Log.Warn("end what a command left running", "sandbox", s.Name, "err", err)
	}
}
