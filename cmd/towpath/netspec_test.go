package main

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/towpath/towpath/api"
)

func TestParseNetworkSpec(t *testing.T) {
	full := api.EndpointSpec{
		Network: "front", IP: netip.MustParseAddr("172.20.0.9"), IP6: netip.MustParseAddr("fd00::9"),
		MAC: "02:00:00:00:00:09", Ifname: "net0", Aliases: []string{"db", "sql"},
	}
	tuned := api.EndpointSpec{Network: "front", Sysctls: map[string]string{"net.ipv4.conf.IFNAME.log_martians": "1", "net.ipv4.conf.IFNAME.forwarding": "0"}}
	prio := api.EndpointSpec{Network: "front", GwPriority: -1}
	for _, c := range []struct {
		in   string
		want api.EndpointSpec
	}{
		{"front", api.EndpointSpec{Network: "front"}},
		{"name=front,ip=172.20.0.9,ip6=fd00::9,mac-address=02-00-00-00-00-09,driver-opt=com.docker.network.endpoint.ifname=net0,alias=db,alias=sql", full},
		{"alias=db,alias=sql,ip6=fd00::9,ip=172.20.0.9,mac=02:00:00:00:00:09,ifname=net0,name=front", full},
		{"front:ip=172.20.0.9,ip=fd00::9,mac=02:00:00:00:00:09,interface_name=net0,alias=db,alias=sql", full},
		{"front,ip=172.20.0.9,ip6=fd00::9,MAC_ADDRESS=02:00:00:00:00:09,interface-name=net0,alias=db,alias=sql", full},
		{"front,gw-priority=-1", prio},
		{`name=front,"driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.conf.IFNAME.forwarding=0"`, tuned},
		{"front,sysctl=net.ipv4.conf.IFNAME.log_martians=1,sysctl=net.ipv4.conf.IFNAME.forwarding=0", tuned},
		{"name=front,gw-priority=-1", prio},
	} {
		got, err := parseNetworkSpec(c.in)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
		}
		if diff := cmp.Diff(c.want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("%s:\n%s", c.in, diff)
		}
	}
}

func TestParseNetworkSpecRefuses(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "no name"},
		{"ip=172.20.0.9", "no name"},
		{"front:", "ends where"},
		{"front,", "ends where"},
		{"front,back", `"back" has no value`},
		{"front,name=back", "name is given twice"},
		{"front,ip=1.2.3.4,ip=1.2.3.5", "ip is given twice"},
		{"front,mac=02::,mac=02::", "not six"},
		{"front,ip=nonsense", "not an IP address"},
		{"front,ip6=1.2.3.4", "family"},
		{"front,ip=fe80::1%eth0", "not an IP address"},
		{"front,mac=ff:ff:ff:ff:ff:ff", "group"},
		{"front,ifname=a/b", "interface name"},
		{"front,alias=", "alias is empty"},
		{"front,gw-priority=high", "not a number"},
		{"front,rate=1mbit", `"rate" is not known`},
		{"front,driver-opt=x=y", "known: com.docker.network.endpoint.ifname, com.docker.network.endpoint.sysctls"},
		{"front,driver-opt=com.docker.network.endpoint.sysctls=forwarding", `"forwarding" is not of the form KEY=VALUE`},
		{"front,sysctl=", "is not of the form KEY=VALUE"},
		{`front,"alias=a`, "into quotes"},
		{"10.0.0.1,ip=10.0.0.2", "reads as an address"},
		{"fr ont", "not valid"},
	} {
		_, err := parseNetworkSpec(c.in)
		if err == nil || api.CodeOf(err) != api.Invalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v", c.in, err)
		}
	}
}

func TestParsePlacement(t *testing.T) {
	for _, c := range []struct {
		in   []string
		want placement
		err  string
	}{
		{nil, placement{}, ""},
		{[]string{"none"}, placement{networks: []api.EndpointSpec{}}, ""},
		{[]string{"host"}, placement{host: true}, ""},
		{[]string{"container:web"}, placement{join: "web"}, ""},
		{[]string{"front", "back"}, placement{networks: []api.EndpointSpec{{Network: "front"}, {Network: "back"}}}, ""},
		{[]string{"front", "none"}, placement{}, "goes with no other"},
		{[]string{"container:"}, placement{}, "empty"},
		{[]string{"Host"}, placement{}, "reserved"},
	} {
		got, err := parsePlacement(c.in)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: %v", c.in, err)
			}
			continue
		}
		if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(placement{}), cmpopts.EquateComparable(netip.Addr{})); diff != "" || err != nil {
			t.Errorf("%q: %v\n%s", c.in, err, diff)
		}
	}
}

// written is e in Docker's spelling.
func written(e api.EndpointSpec) string {
	out := []string{"name=" + e.Network}
	add := func(key, value string) {
		if value != "" {
			out = append(out, key+"="+value)
		}
	}
	if e.IP.IsValid() {
		add("ip", e.IP.String())
	}
	if e.IP6.IsValid() {
		add("ip6", e.IP6.String())
	}
	add("mac-address", e.MAC)
	add("ifname", e.Ifname)
	for _, a := range e.Aliases {
		add("alias", a)
	}
	add("gw-priority", strconv.Itoa(e.GwPriority))
	return strings.Join(out, ",")
}

// What is accepted is a valid endpoint, and means the same when it is written
// another way.
func FuzzParseNetworkSpec(f *testing.F) {
	for _, s := range []string{
		"front", "name=front,ip=1.2.3.4", "front:ip=1.2.3.4,mac=02:00:00:00:00:01", "front,ip6=fd00::1,alias=a,alias=b",
		"name=a,driver-opt=com.docker.network.endpoint.ifname=eth7", "front,gw-priority=-3", ":,=", "a:b=c", "name=,", "front,ip=",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := parseNetworkSpec(s)
		if err != nil {
			if api.CodeOf(err) != api.Invalid {
				t.Fatalf("%q: code %s", s, api.CodeOf(err))
			}
			return
		}
		if err := e.Validate(); err != nil {
			t.Fatalf("%q was accepted: %v", s, err)
		}
		again, err := parseNetworkSpec(written(e))
		if err != nil {
			t.Fatalf("%q, written %q: %v", s, written(e), err)
		}
		if diff := cmp.Diff(e, again, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Fatalf("%q, written %q:\n%s", s, written(e), diff)
		}
	})
}
