//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The parts of the kernel's structures that are read here, by name: where they
 * are is found out when the programs are loaded (BPF CO-RE), from the BTF of the
 * kernel that runs.
 */
#ifndef TOWPATH_KERNEL_H
#define TOWPATH_KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;

#define kernel_type __attribute__((preserve_access_index))

struct ns_common {
	__u32 inum;
} kernel_type;

struct net {
	struct ns_common ns;
} kernel_type;

typedef struct {
	struct net *net;
} kernel_type possible_net_t;

struct net_device {
	int ifindex;
	possible_net_t nd_net;
	char name[16];
} kernel_type;

struct sock_common {
	possible_net_t skc_net;
} kernel_type;

struct sock {
	struct sock_common __sk_common;
} kernel_type;

struct sk_buff {
	struct net_device *dev;
	struct sock *sk;
	__u32 len;
	__u16 protocol;
	__u16 network_header;
	__u32 tail;
	__u8 *head;
	__u8 *data;
} kernel_type;

struct nf_hook_state {
	__u8 hook;
	struct net_device *in;
	struct net_device *out;
	struct net *net;
} kernel_type;

struct bpf_nf_ctx {
	const struct nf_hook_state *state;
	struct sk_buff *skb;
} kernel_type;

/* Numbers of protocols, as they are in packets. */
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define network_order(n) ((__u16)__builtin_bswap16(n))

enum { ICMP = 1, TCP = 6, UDP = 17, ICMPV6 = 58 };

/* Numbers of linux/bpf.h. */
enum {
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_ANY = 0,
};

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static __u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static long (*const bpf_probe_read_kernel)(void *to, __u32 size, const void *from) = (void *)113;
static long (*const bpf_probe_read_kernel_str)(void *to, __u32 size, const void *from) = (void *)115;
static void *(*const bpf_ringbuf_reserve)(void *ring, __u64 size, __u64 flags) = (void *)131;
static void (*const bpf_ringbuf_submit)(void *data, __u64 flags) = (void *)132;
static long (*const bpf_snprintf)(char *to, __u32 size, const char *format, __u64 *data, __u32 size_of_data) = (void *)165;

#define SEC(name) __attribute__((section(name), used))
#define inlined static inline __attribute__((always_inline))
#define map_number(name, value) int(*name)[value]
#define map_type(name, type) typeof(type) *name

#endif
