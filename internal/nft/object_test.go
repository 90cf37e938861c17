package nft

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"
)

// nft 1.0.6 printed these on a kernel that had chains at these priorities.
func TestPriorityNames(t *testing.T) {
	for _, c := range []struct {
		family   Family
		hook     string
		priority int
		want     string
	}{
		{FamilyInet, "forward", 0, "filter"},
		{FamilyInet, "forward", -10, "filter - 10"},
		{FamilyInet, "forward", -11, "-11"},
		{FamilyInet, "forward", 10, "filter + 10"},
		{FamilyInet, "prerouting", -100, "dstnat"},
		{FamilyInet, "prerouting", -99, "dstnat + 1"},
		{FamilyInet, "output", -100, "-100"},
		{FamilyInet, "postrouting", 100, "srcnat"},
		{FamilyInet, "postrouting", 110, "srcnat + 10"},
		{FamilyInet, "forward", 100, "100"},
		{FamilyIP, "prerouting", -310, "raw - 10"},
		{FamilyIP, "prerouting", -311, "-311"},
		{FamilyIP6, "input", -145, "mangle + 5"},
		{FamilyIP6, "input", 50, "security"},
		{FamilyBridge, "forward", -200, "filter"},
		{FamilyBridge, "prerouting", -300, "dstnat"},
		{FamilyBridge, "output", 110, "out + 10"},
		{FamilyBridge, "postrouting", 300, "srcnat"},
		{FamilyBridge, "forward", 0, "0"},
		{FamilyNetdev, "ingress", -5, "filter - 5"},
		{FamilyNetdev, "ingress", -500, "-500"},
		{FamilyARP, "input", 10, "filter + 10"},
		{FamilyARP, "input", 50, "50"},
	} {
		if got := FormatPriority(c.family, c.hook, c.priority); got != c.want {
			t.Errorf("%s %s %d: %q, want %q", c.family, c.hook, c.priority, got, c.want)
		}
		text := "type filter hook " + c.hook + " priority " + c.want + "; policy drop;"
		back, err := ParseHeader(c.family, text)
		if err != nil || back.Priority != c.priority || back.Header() != text {
			t.Errorf("%s: %s reads back as %+v, %v", c.family, text, back, err)
		}
	}
}

func TestHeaderDevices(t *testing.T) {
	for _, text := range []string{
		`type filter hook ingress device "lo" priority -500; policy accept;`,
		`type filter hook ingress devices = { lo, v0, v1 } priority filter - 5; policy drop;`,
		`type filter hook egress device "lo" priority filter; policy accept;`,
	} {
		c, err := ParseHeader(FamilyNetdev, text)
		if err != nil || c.Header() != text {
			t.Errorf("%s\n is written as %s, %v", text, c.Header(), err)
		}
	}
	c, err := ParseHeader(FamilyNetdev, "type filter hook ingress devices = { b, \"a\" } priority 0")
	if err != nil || !reflect.DeepEqual(c.Devices, []string{"a", "b"}) || c.Policy != "accept" {
		t.Errorf("%+v, %v", c, err)
	}
	for _, text := range []string{
		"type filter", "type filter hook input priority high;", "policy maybe;", "priority 0",
		"type filter hook ingress devices = { a", "type filter hook input priority filter - x;",
	} {
		if c, err := ParseHeader(FamilyInet, text); err == nil {
			t.Errorf("%q reads as %+v", text, c)
		}
	}
	if got := (Chain{}).Header(); got != "" {
		t.Errorf("header of a chain without hook: %q", got)
	}
}

func TestElementText(t *testing.T) {
	set := func(key string, flags SetFlags) Set { return Set{KeyType: key, Flags: flags} }
	dict := func(key, data string, flags SetFlags) Set {
		return Set{Map: true, KeyType: key, DataType: data, Flags: flags}
	}
	for _, c := range []struct {
		set  Set
		text string
		key  string // of the key's bytes, spaces for zeros; "" not compared
	}{
		{set("ifname", 0), `"tp-a"`, "tp-a            "},
		{set("ifname . ipv4_addr", SetInterval), `"tp-a" . 172.20.0.0/24`, "tp-a            \xac\x14  "},
		{dict("ifname . ifname", "verdict", 0), `"tp-a" . "tp-a" : accept`, ""},
		{dict("ifname . ifname", "verdict", 0), `"tp-a" . "tp-b" comment "no" : jump icc_off`, ""},
		{dict("ipv4_addr . inet_proto . inet_service", "ipv4_addr . inet_service", 0), "172.16.0.1 . tcp . 8080 : 172.20.0.2 . 80", "\xac\x10 \x01\x06   \x1f\x90  "},
		{dict("ipv4_addr . inet_service", "ipv4_addr . inet_service", SetInterval), `10.0.0.0/8 . 1-9 comment "q" : 1.2.3.4 . 80`, ""},
		{set("inet_service", 0), "8080", "\x1f\x90"},
		{set("inet_service", SetInterval), "80-90", " P"},
		{set("ipv4_addr", SetInterval), "11.0.0.1-11.0.0.9", ""},
		{set("ipv4_addr", SetInterval), "0.0.0.0/0", ""},
		{set("ipv6_addr", 0), "::ffff:1.2.3.4", ""},
		{set("ipv6_addr", SetInterval), "fd00::/64", ""},
		{set("ether_addr", 0), "02:00:00:00:00:0a", "\x02    \x0a"},
		{set("iface_index . ether_addr . ipv4_addr", 0), "5 . 02:00:00:00:00:01 . 172.20.0.2", ""},
		{set("iface_index", 0), `"lo"`, ""},
		{set("ct_state", 0), "established", ""},
		{set("mark", 0), "0x00000005", ""},
		{set("mark", SetInterval), "0x00000001-0x00000005", "   \x01"},
		{dict("ipv4_addr", "verdict", SetTimeout), `1.2.3.4 timeout 1d2h3m4s comment "z" : drop`, ""},
		{dict("inet_service", "mark", 0), "* : 0x00000006", ""},
	} {
		e, err := ParseElement(c.set, c.text)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := FormatElement(c.set, e); got != c.text {
			t.Errorf("%s is written as %s", c.text, got)
		}
		if key := strings.ReplaceAll(c.key, " ", "\x00"); key != "" && key != string(e.Key) {
			t.Errorf("%s: key %q, want %q", c.text, e.Key, key)
		}
	}
}

func TestElementErrors(t *testing.T) {
	set := func(key string, flags SetFlags) Set { return Set{KeyType: key, Flags: flags} }
	dict := func(key, data string) Set { return Set{Map: true, KeyType: key, DataType: data} }
	for _, c := range []struct {
		set  Set
		text string
	}{
		{set("inet_service", 0), "80-90"},
		{set("inet_service", 0), "80 90"},
		{set("inet_service", 0), ""},
		{set("ifname . ifname", 0), `"a"`},
		{dict("ifname", "verdict"), `"a"`},
		{dict("ifname", "verdict"), `"a" : maybe`},
		{dict("ifname", "ipv4_addr"), `"a" : 1.0.0.0/8`},
		{set("inet_service", SetTimeout), "80 timeout 5"},
		{set("inet_service", 0), `80 comment "` + strings.Repeat("x", 129) + `"`},
	} {
		if e, err := ParseElement(c.set, c.text); err == nil {
			t.Errorf("%q reads as %+v", c.text, e)
		}
	}
}

func TestElementOfTimeout(t *testing.T) {
	e, err := ParseElement(Set{KeyType: "inet_proto", Flags: SetTimeout}, "tcp timeout 1h5ms expires 3s")
	if err != nil || e.Timeout != time.Hour+5*time.Millisecond || !bytes.Equal(e.Key, []byte{6}) {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestTypeNumbers(t *testing.T) {
	for _, c := range []struct {
		name string
		id   uint32
		size int
	}{
		{"ifname", 41, 16},
		{"ipv4_addr . inet_proto . inet_service", 7<<12 | 12<<6 | 13, 12},
		{"ifname . ifname", 41<<6 | 41, 32},
		{"inet_service", 13, 2},
	} {
		id, ok := TypeID(c.name)
		size, sized := TypeLen(c.name)
		if !ok || !sized || id != c.id || size != c.size || TypeName(id) != c.name {
			t.Errorf("%s: number %d, %d bytes, back to %q", c.name, id, size, TypeName(id))
		}
	}
	if _, ok := TypeID("nonsense"); ok {
		t.Error("an unknown type has a number")
	}
	if got := TypeName(63); got != "type#63" {
		t.Errorf("number 63 is %q", got)
	}
	if !HostOrder("ifname", 0) || HostOrder("ipv4_addr", 0) || !HostOrder("mark", 0) || HostOrder("mark", SetInterval) || HostOrder("mark . mark", 0) {
		t.Error("byte orders are wrong")
	}
}

func TestFamilies(t *testing.T) {
	for _, name := range []string{"inet", "ip", "ip6", "netdev", "bridge", "arp"} {
		f, err := ParseFamily(name)
		if err != nil || f.String() != name {
			t.Errorf("%s: %v, %v", name, f, err)
		}
	}
	if got := Family(99).String(); got != "family#99" {
		t.Errorf("family 99 is %q", got)
	}
}
