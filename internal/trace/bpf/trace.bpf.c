//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Programs that tell of packets: as they come in and go out by a device, as they
 * enter and leave the hooks of the packet filter, and as they are dropped. Of a
 * packet the headers are told, never what it carries. A packet nobody asked for
 * costs one read of its header.
 */
#include "kernel.h"

enum { RECEIVED = 1, SENT, ENTERED, LEFT, DROPPED };
enum { HEADERS = 128, NETWORK = 40, TRANSPORT = 20 };

/* What is asked for; set before the programs are loaded. */
const volatile __u16 mark = 0;	   /* a port or the identifier of an echo; 0: what begins flows */
const volatile __u8 protocol = 0;  /* of what has the mark */
const volatile __u8 all_drops = 0; /* of other packets drops are told */
const volatile __u32 a_second = 0; /* how many events a processor tells of in a second */

/* Event is one thing that happened to a packet. */
struct event {
	__u64 at; /* CLOCK_MONOTONIC */
	__u64 packet;
	__u32 netns; /* number of its inode; 0: not known */
	__u32 in;    /* index of the device */
	__u32 out;
	__u32 reason;
	__u16 held; /* bytes of headers */
	__u8 kind;
	__u8 hook;
	__u32 length;
	char in_name[16];
	char out_name[16];
	char symbol[48];
	__u8 headers[HEADERS];
};

struct {
	map_number(type, BPF_MAP_TYPE_RINGBUF);
	map_number(max_entries, 1 << 20);
} events SEC(".maps");

/* Told is how much a processor has told of in a second, and could not. */
struct told {
	__u64 second;
	__u64 events;
	__u64 lost;
};

struct {
	map_number(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	map_number(max_entries, 1);
	map_type(key, __u32);
	map_type(value, struct told);
} tellings SEC(".maps");

/* A flow as it is at some place, and how often it was seen. In another namespace
 * the same addresses are others'. */
struct flow {
	__u8 addresses[32];
	__u32 ports;
	__u32 protocol;
	__u32 netns;
};

struct met {
	__u64 last;
	__u64 times;
};

struct {
	map_number(type, BPF_MAP_TYPE_LRU_HASH);
	map_number(max_entries, 8192);
	map_type(key, struct flow);
	map_type(value, struct met);
} flows SEC(".maps");

/* The namespaces that are watched, by the numbers of their inodes. A flood in
 * another shall not use up what a processor may tell of. */
struct {
	map_number(type, BPF_MAP_TYPE_HASH);
	map_number(max_entries, 1);
	map_type(key, __u32);
	map_type(value, __u8);
} watched SEC(".maps");

/* View is the beginning of a packet. */
struct view {
	const __u8 *at;
	__u32 room;	      /* bytes from there that are in one piece */
	__u32 header;	      /* bytes of the network header */
	__u8 network[NETWORK];
	__u8 transport[TRANSPORT];
	__u8 protocol;
	__u8 v6;
};

/* look reads the headers; not an IP packet, or a fragment that is not the first: false. */
inlined int look(struct view *v, struct sk_buff *skb, const __u8 *at)
{
	__u16 type = skb->protocol;
	const __u8 *end = skb->head + skb->tail;

	if (type != network_order(ETH_P_IP) && type != network_order(ETH_P_IPV6))
		return 0;
	if (end < at + 28)
		return 0;
	v->at = at;
	v->room = end - at;
	/* Behind the packet there is always room for its shared info. */
	if (bpf_probe_read_kernel(v->network, NETWORK, at))
		return 0;
	v->v6 = type == network_order(ETH_P_IPV6);
	if (v->v6) {
		if (v->network[0] >> 4 != 6)
			return 0;
		v->protocol = v->network[6];
		v->header = 40;
	} else {
		if (v->network[0] >> 4 != 4 || (v->network[6] & 0x1f) || v->network[7])
			return 0;
		v->protocol = v->network[9];
		v->header = (v->network[0] & 0xf) * 4;
	}
	if (v->header == 20) {
		__builtin_memcpy(v->transport, v->network + 20, TRANSPORT);
		return 1;
	}
	return !bpf_probe_read_kernel(v->transport, TRANSPORT, at + v->header);
}

inlined __u16 number(const __u8 *b) { return (__u16)b[0] << 8 | b[1]; }

/* quoted: an ICMP error is about a packet with the mark. */
inlined int quoted(const struct view *v)
{
	__u8 b[NETWORK + 8];
	__u32 header = v->v6 ? 40 : 20;
	const __u8 *p;

	if (v->room < v->header + 8 + header + 8)
		return 0;
	if (bpf_probe_read_kernel(b, sizeof(b), v->at + v->header + 8))
		return 0;
	p = v->v6 ? b + 40 : b + 20;
	return number(p) == mark || number(p + 2) == mark || number(p + 4) == mark;
}

/* marked: the packet, its answer, or an error about it. */
inlined int marked(const struct view *v)
{
	const __u8 *t = v->transport;

	if (v->protocol == ICMP || v->protocol == ICMPV6) {
		if (v->v6 ? t[0] >= 128 : t[0] == 0 || t[0] == 8)
			return v->protocol == protocol && number(t + 4) == mark;
		return quoted(v);
	}
	return v->protocol == protocol && (number(t) == mark || number(t + 2) == mark);
}

/* How often a flow is told of in one namespace, and for how long it is known. */
#define OFTEN 64
#define KNOWN 30000000000ull

/* first: of a flow that was not told of often, lately. */
inlined int first(const struct view *v, __u32 netns)
{
	struct flow f = {};
	struct met *m, new = {};

	if (v->v6)
		__builtin_memcpy(f.addresses, v->network + 8, 32);
	else
		__builtin_memcpy(f.addresses, v->network + 12, 8);
	f.protocol = v->protocol;
	f.netns = netns;
	if (v->protocol == ICMP || v->protocol == ICMPV6)
		f.ports = v->transport[0] | (__u32)number(v->transport + 4) << 16;
	else
		__builtin_memcpy(&f.ports, v->transport, 4);
	new.last = bpf_ktime_get_ns();
	new.times = 1;
	m = bpf_map_lookup_elem(&flows, &f);
	if (!m || new.last - m->last > KNOWN) {
		bpf_map_update_elem(&flows, &f, &new, BPF_ANY);
		return 1;
	}
	m->last = new.last;
	return ++m->times <= OFTEN;
}

/* seen: in a namespace that is watched; 0 is one that is not known. */
inlined int seen(__u32 netns) { return !netns || bpf_map_lookup_elem(&watched, &netns); }

/* begins: a packet that begins a flow or answers one, where it is watched. */
inlined int begins(const struct view *v, __u32 netns)
{
	const __u8 *t = v->transport;

	switch (v->protocol) {
	case TCP:
		if (!(t[13] & 0x06)) /* SYN, RST */
			return 0;
		break;
	case ICMPV6:
		if (t[0] >= 130) /* neither an error nor an echo */
			return 0;
		break;
	case UDP:
	case ICMP:
		break;
	default:
		return 0;
	}
	return seen(netns) && first(v, netns);
}

inlined int wanted(const struct view *v, __u32 netns) { return mark ? marked(v) : begins(v, netns); }

/* reserve is room for an event; 0: there is none, or it was too much for a second. */
inlined struct event *reserve(void)
{
	__u32 zero = 0;
	struct told *t = bpf_map_lookup_elem(&tellings, &zero);
	struct event *e;
	__u64 now = bpf_ktime_get_ns();

	if (!t)
		return 0;
	if (t->second != now >> 30) {
		t->second = now >> 30;
		t->events = 0;
	}
	e = 0;
	if (t->events++ < a_second)
		e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		t->lost++;
		return 0;
	}
	e->at = now;
	e->netns = e->in = e->out = e->reason = 0;
	e->hook = 0;
	__builtin_memset(e->in_name, 0, sizeof(e->in_name));
	__builtin_memset(e->out_name, 0, sizeof(e->out_name));
	__builtin_memset(e->symbol, 0, sizeof(e->symbol));
	return e;
}

/* headers is how many bytes the headers are: of an ICMP error with those that it quotes. */
inlined __u32 headers(const struct view *v)
{
	const __u8 *t = v->transport;

	switch (v->protocol) {
	case TCP:
		return v->header + (t[12] >> 4) * 4;
	case ICMP:
		return v->header + (t[0] == 0 || t[0] == 8 ? 8 : 8 + 20 + 8);
	case ICMPV6:
		return v->header + (t[0] >= 128 ? 8 : 8 + 40 + 8);
	}
	return v->header + 8;
}

/* tell fills in what all events have, and sends it. */
inlined void tell(struct event *e, struct sk_buff *skb, const struct view *v, __u8 kind)
{
	__u32 n = headers(v);

	if (n > v->room)
		n = v->room;
	if (n > HEADERS)
		n = HEADERS;
	e->kind = kind;
	e->packet = (__u64)skb;
	e->length = skb->len;
	e->held = n;
	if (bpf_probe_read_kernel(e->headers, n, v->at))
		e->held = 0;
	bpf_ringbuf_submit(e, 0);
}

inlined __u32 home(struct net_device *dev) { return dev->nd_net.net->ns.inum; }

inlined void at_device(struct event *e, struct net_device *dev)
{
	e->in = dev->ifindex;
	e->netns = home(dev);
	bpf_probe_read_kernel_str(e->in_name, sizeof(e->in_name), dev->name);
}

SEC("tp_btf/netif_receive_skb")
int received(__u64 *ctx)
{
	struct sk_buff *skb = (struct sk_buff *)ctx[0];
	struct view v;
	struct event *e;

	/* The network header is not set yet. */
	if (!look(&v, skb, skb->data) || !wanted(&v, home(skb->dev)))
		return 0;
	e = reserve();
	if (!e)
		return 0;
	at_device(e, skb->dev);
	tell(e, skb, &v, RECEIVED);
	return 0;
}

SEC("tp_btf/net_dev_start_xmit")
int sent(__u64 *ctx)
{
	struct sk_buff *skb = (struct sk_buff *)ctx[0];
	struct net_device *dev = (struct net_device *)ctx[1];
	struct view v;
	struct event *e;

	if (!look(&v, skb, skb->head + skb->network_header) || !wanted(&v, home(dev)))
		return 0;
	e = reserve();
	if (!e)
		return 0;
	at_device(e, dev);
	tell(e, skb, &v, SENT);
	return 0;
}

inlined int drop(struct sk_buff *skb, __u64 location, __u32 reason)
{
	static const char symbol[] = "%ps";
	struct net_device *dev = skb->dev;
	struct sock *sk = skb->sk;
	struct view v;
	struct event *e;
	__u32 netns = dev ? home(dev) : sk ? sk->__sk_common.skc_net.net->ns.inum : 0;

	if (!look(&v, skb, skb->head + skb->network_header) || !(wanted(&v, netns) || (all_drops && seen(netns))))
		return 0;
	e = reserve();
	if (!e)
		return 0;
	e->reason = reason;
	e->netns = netns;
	if (dev)
		at_device(e, dev);
	bpf_snprintf(e->symbol, sizeof(e->symbol), symbol, &location, sizeof(location));
	tell(e, skb, &v, DROPPED);
	return 0;
}

/* The kernel gives reasons since 5.17. */
SEC("tp_btf/kfree_skb")
int dropped(__u64 *ctx)
{
	return drop((struct sk_buff *)ctx[0], ctx[1], ctx[2]);
}

SEC("tp_btf/kfree_skb")
int dropped_unsaid(__u64 *ctx)
{
	return drop((struct sk_buff *)ctx[0], ctx[1], 0);
}

inlined void hook(struct bpf_nf_ctx *ctx, __u8 kind)
{
	struct sk_buff *skb = ctx->skb;
	const struct nf_hook_state *state = ctx->state;
	struct net_device *in, *out;
	__u32 netns = state->net->ns.inum;
	struct view v;
	struct event *e;

	if (!look(&v, skb, skb->head + skb->network_header) || !wanted(&v, netns))
		return;
	e = reserve();
	if (!e)
		return;
	e->hook = state->hook;
	e->netns = netns;
	in = state->in;
	out = state->out;
	if (in) {
		e->in = in->ifindex;
		bpf_probe_read_kernel_str(e->in_name, sizeof(e->in_name), in->name);
	}
	if (out) {
		e->out = out->ifindex;
		bpf_probe_read_kernel_str(e->out_name, sizeof(e->out_name), out->name);
	}
	tell(e, skb, &v, kind);
}

/* Before all others in a hook, and behind them; both let everything pass (NF_ACCEPT). */
SEC("netfilter")
int entered(struct bpf_nf_ctx *ctx)
{
	hook(ctx, ENTERED);
	return 1;
}

SEC("netfilter")
int left(struct bpf_nf_ctx *ctx)
{
	hook(ctx, LEFT);
	return 1;
}

char licence[] SEC("license") = "Dual BSD/GPL";
