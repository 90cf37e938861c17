package api

import (
	"strings"
	"testing"
)

func TestParsePublication(t *testing.T) {
	for in, want := range map[string]string{
		"80":                            "80/tcp",
		"80/udp":                        "80/udp",
		"8080:80":                       "8080:80/tcp",
		"127.0.0.1:8080:80/TCP":         "127.0.0.1:8080:80/tcp",
		"127.0.0.1::80":                 "127.0.0.1::80/tcp",
		"[::1]:8080:80":                 "[::1]:8080:80/tcp",
		"[::]::80":                      "[::]::80/tcp",
		"8000-8009:9000-9009/sctp":      "8000-8009:9000-9009/sctp",
		"9000-9009":                     "9000-9009/tcp",
		"1-65535:1-65535":               "1-65535:1-65535/tcp",
		"80,from=192.0.2.0/24":          "80/tcp,from=192.0.2.0/24",
		"80,from=192.0.2.1,from=::/0":   "80/tcp,from=192.0.2.1/32,from=::/0",
		"0.0.0.0:80:80,from=10.0.0.0/8": "0.0.0.0:80:80/tcp,from=10.0.0.0/8",
	} {
		p, err := ParsePublication(in)
		if err != nil || p.String() != want {
			t.Errorf("%s: got %s, %v; want %s", in, p.String(), err, want)
			continue
		}
		if again, err := ParsePublication(p.String()); err != nil || again.String() != want {
			t.Errorf("%s is not read as it is written: %s, %v", want, again.String(), err)
		}
	}
}

func TestParsePublicationRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"":                            "not a port",
		"0":                           "not a port",
		"65536":                       "not a port",
		"080":                         "not a port",
		"80-79":                       "runs backwards",
		"8000-8001:80":                "different length",
		"8000:80-81":                  "different length",
		"80/icmp":                     "tcp, udp or sctp",
		"::1:80:80":                   "brackets",
		"[::1]80":                     "[ADDRESS]:PORTS",
		"[127.0.0.1]:80:80":           "not an address",
		"localhost:80:80":             "not an address",
		"224.0.0.1:80:80":             "cannot be published",
		"80,to=1":                     "not known",
		"80,from=x":                   "not an address range",
		"80,from=10.0.0.1/8":          "did you mean 10.0.0.0/8",
		"127.0.0.1:1:1,from=fd00::/8": "different families",
		"0.0.0.0:1:1,from=::/0":       "from=::/0 lets nobody in: it and host address 0.0.0.0 are of different families",
		"[::]:1:1,from=0.0.0.0/0":     "from=0.0.0.0/0 lets nobody in: it and host address :: are of different families",
		"[::]:1:1,from=::/0,from=::1,from=10.0.0.1": "from=10.0.0.1/32 lets nobody in",
	} {
		_, err := ParsePublication(in)
		if err == nil || !strings.Contains(err.Error(), want) || CodeOf(err) != Invalid {
			t.Errorf("%s: got %v, want %q", in, err, want)
		}
	}
}

func TestPublicationsOverlap(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"0.0.0.0:80:80", "0.0.0.0:80:81", true},
		{"0.0.0.0:80:80", "0.0.0.0:81:80", false},
		{"0.0.0.0:80:80", "0.0.0.0:80:80/udp", false},
		{"0.0.0.0:80-90:80-90", "127.0.0.1:85:1", true},
		{"127.0.0.1:80:80", "127.0.0.2:80:80", false},
		{"[::]:80:80", "127.0.0.1:80:80", false},
		{"[::]:80:80", "[::1]:80:80", true},
		{"[::]:80:80", "0.0.0.0:80:80", false}, // two families are two sockets
		{"[::]:80:80/sctp", "0.0.0.0:80:80/sctp", false},
		{"[::]:80:80/sctp", "80:80/sctp", true},
		{"0.0.0.0:80:80/sctp", "192.0.2.1:80:80/sctp", true},
		{"80:80", "127.0.0.1:80:80", true},
	} {
		a, err := ParsePublication(tc.a)
		if err != nil {
			t.Fatal(err)
		}
		b, err := ParsePublication(tc.b)
		if err != nil {
			t.Fatal(err)
		}
		if a.Overlaps(&b) != tc.want || b.Overlaps(&a) != tc.want {
			t.Errorf("%s and %s overlap: want %v", tc.a, tc.b, tc.want)
		}
	}
}

func FuzzParsePublication(f *testing.F) {
	f.Add("127.0.0.1:8000-8009:80-89/udp,from=10.0.0.0/8")
	f.Add("[::1]::80")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePublication(s)
		if err != nil {
			return
		}
		again, err := ParsePublication(p.String())
		if err != nil || again.String() != p.String() {
			t.Fatalf("%q was read as %s, and that as %s, %v", s, p.String(), again.String(), err)
		}
	})
}
