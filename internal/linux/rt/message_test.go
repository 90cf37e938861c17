//go:build linux

package rt

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// raw makes a netlink message.
func raw(typ, flags uint16, seq uint32, body ...byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = append(binary.NativeEndian.AppendUint32(b, 0), body...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func number(n int32) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(n)) }

func TestTakeSeesInterruptionInEveryMessage(t *testing.T) {
	for marked := range 3 {
		flags := [3]uint16{}
		flags[marked] = unix.NLM_F_DUMP_INTR
		a := answers{seq: 7}
		b := raw(unix.RTM_NEWLINK, flags[0], 7)
		b = append(b, raw(unix.RTM_NEWLINK, flags[1], 7)...)
		b = append(b, raw(unix.NLMSG_DONE, flags[2], 7, number(0)...)...)
		if complete, err := a.take(b); !complete || !errors.Is(err, ErrInterrupted) {
			t.Errorf("message %d marked: complete %v, error %v", marked, complete, err)
		}
	}
}

func TestTakePassesOverOtherRequests(t *testing.T) {
	seen := 0
	a := answers{seq: 7, each: func(uint16, []byte) error { seen++; return nil }}
	b := raw(unix.RTM_NEWLINK, 0, 6)
	b = append(b, raw(unix.NLMSG_DONE, 0, 6, number(0)...)...)
	b = append(b, raw(unix.RTM_NEWLINK, 0, 7)...)
	if complete, err := a.take(b); complete || err != nil || seen != 1 {
		t.Errorf("complete %v, error %v, %d messages; want one, and more to come", complete, err, seen)
	}
}

func TestResultKeepsKernelText(t *testing.T) {
	text := append([]byte{13, 0, unix.NLMSGERR_ATTR_MSG, 0}, "no thanks"...)
	for _, tc := range []struct {
		name  string
		flags uint16
		copy  []byte // of the request
		want  Error
	}{
		{"no text", 0, raw(1, 0, 7), Error{Errno: unix.EINVAL}},
		{"capped", unix.NLM_F_CAPPED | unix.NLM_F_ACK_TLVS, raw(1, 0, 7), Error{Errno: unix.EINVAL, Message: "no thanks"}},
		{"whole", unix.NLM_F_ACK_TLVS, raw(1, 0, 7, 1, 2, 3, 4), Error{Errno: unix.EINVAL, Message: "no thanks"}},
	} {
		body := append(number(-int32(unix.EINVAL)), tc.copy...)
		a := answers{seq: 7}
		_, err := a.take(raw(unix.NLMSG_ERROR, tc.flags, 7, append(body, text...)...))
		var got *Error
		if tc.flags == 0 {
			_, err = a.take(raw(unix.NLMSG_ERROR, 0, 7, body...))
		}
		if !errors.As(err, &got) || *got != tc.want || !errors.Is(err, unix.EINVAL) {
			t.Errorf("%s: %v, want %v", tc.name, err, &tc.want)
		}
	}
}

func TestBroadcast(t *testing.T) {
	for in, want := range map[string]string{
		"10.1.2.3/24":   "10.1.2.255",
		"10.1.2.1/30":   "10.1.2.3",
		"10.1.2.1/31":   "invalid IP",
		"10.1.2.1/32":   "invalid IP",
		"172.16.0.1/12": "172.31.255.255",
		"0.0.0.0/0":     "255.255.255.255",
		"fd00::1/64":    "invalid IP",
	} {
		if got := broadcast(netip.MustParsePrefix(in)).String(); got != want {
			t.Errorf("broadcast of %s is %s, want %s", in, got, want)
		}
	}
}

// FuzzDecodeEvent holds that no message makes the decoders panic.
func FuzzDecodeEvent(f *testing.F) {
	for typ := uint16(unix.RTM_NEWLINK); typ <= unix.RTM_DELNSID; typ++ {
		f.Add(typ, make([]byte, 20))
		f.Add(typ, append(make([]byte, 16), 8, 0, unix.IFLA_MTU, 0, 1, 2, 3, 4))
	}
	f.Fuzz(func(t *testing.T, typ uint16, body []byte) {
		e, known, err := decodeEvent(message{typ: typ, body: body}, NoNSID)
		if known && (err != nil || e.Kind == "") {
			t.Errorf("known event %+v with error %v", e, err)
		}
	})
}
