package walk_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/towpath/towpath/api"
)

var update = flag.Bool("update", false, "write the golden files")

// TestJSON compares whole paths with files: the form in which they leave the daemon.
func TestJSON(t *testing.T) {
	w := newWorld(t)
	w.publish("web", "8080:80")
	k := w.build("", bridgeNF)
	for file, q := range map[string][2]string{
		"masquerade.json": {"web", "192.0.2.1:443/tcp"},
		"isolation.json":  {"web", "172.20.1.2"},
	} {
		t.Run(file, func(t *testing.T) {
			path := follow(t, k, q[0], q[1])
			got, err := json.MarshalIndent(path, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", file)
			if *update {
				if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)+"\n"); diff != "" {
				t.Errorf("the path differs from %s (-want +got):\n%s\nrun with -update if it is meant", file, diff)
			}
			var back api.Path
			if err := json.Unmarshal(got, &back); err != nil {
				t.Fatal(err)
			}
			if again, err := json.MarshalIndent(back, "", "  "); err != nil || string(again) != string(got) {
				t.Errorf("read back and written again it is another: %v\n%s", err, cmp.Diff(string(got), string(again)))
			}
		})
	}
}

// TestHopsAreWhole: what every hop must have, in paths of all kinds.
func TestHopsAreWhole(t *testing.T) {
	w := newWorld(t)
	w.publish("web", "8080:80")
	k := w.build("", bridgeNF)
	for _, q := range [][2]string{
		{"web", "192.0.2.1:443/tcp"},
		{"outside", "192.0.2.10:8080/tcp"},
		{"app", "[fd00::1]:8080/tcp"},
		{"host", "127.0.0.1:8080/tcp"},
		{"web", "192.0.2.77:80/udp"},
		{"web", "[2001:db8::1]:81/udp"},
		{"outside", "172.20.0.2"},
		{"db", "172.20.0.3"},
	} {
		p := follow(t, k, q[0], q[1])
		if p.Schema != api.PathSchema || p.Kind != api.Expected || p.Level != api.LevelWalk || p.From.Name != q[0] || len(p.Hops) == 0 {
			t.Errorf("%v: path %+v", q, p)
		}
		for i, h := range p.Hops {
			whole := h.NS != "" && h.Device != "" && h.Layer != "" && h.Action != "" && h.Before != nil
			if h.Index != i || h.Direction == "" || !whole || len(h.Sources) != 1 || h.Sources[0] != "walk" || !h.Certain {
				t.Errorf("%v: hop %d is %+v", q, i, h)
			}
			if h.After != nil && *h.After == *h.Before {
				t.Errorf("%v: hop %d changes nothing and says so: %+v", q, i, h)
			}
		}
	}
}

// TestUncertain: what is drawn by lot is told as such.
func TestUncertain(t *testing.T) {
	for name, table := range map[string]string{
		"address": `table ip f { chain c { type nat hook postrouting priority 90; policy accept; ip daddr 192.0.2.1 snat to 192.0.2.10-192.0.2.20 } }`,
		"port":    `table ip f { chain c { type nat hook postrouting priority 90; policy accept; ip daddr 192.0.2.1 tcp dport 80 snat to 192.0.2.10:700-800 } }`,
		"random":  `table ip f { chain c { type nat hook postrouting priority 90; policy accept; ip daddr 192.0.2.1 masquerade random } }`,
	} {
		p := follow(t, newWorld(t).build("", addTables("host", table)), "web", "192.0.2.1:80/tcp")
		if p.Hops[0].Certain == false || p.Hops[len(p.Hops)-1].Certain {
			t.Errorf("%s: %s", name, hops(p))
		}
	}
	w := newWorld(t)
	w.connect("web", "front", "eth1", 9)
	p := follow(t, w.build("", nil), "host", "172.20.0.9")
	if p.Verdict != api.Delivered || p.Hops[len(p.Hops)-1].Certain {
		t.Errorf("both links of web answer for 172.20.0.9:\n%s", hops(p))
	}
}
