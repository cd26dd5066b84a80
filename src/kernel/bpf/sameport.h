/* What all of sameport's programs share: the layout of addresses, and the maps that there are once on a host.
 *
 * They are pinned by name in a folder of the host's own. Every project's pods, whoever supervises them, are entered
 * there. The maps of a single pod are in `pod.h`. `src/kernel/raw.rs` has the same layouts for user space. */
#ifndef SAMEPORT_H
#define SAMEPORT_H

#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Else the compiler may merge reads of two branches into one of a changed pointer, which the verifier refuses. */
#define READ(from, field)                                                                               \
	({                                                                                              \
		__u64 _value;                                                                           \
		asm volatile("%0 = *(u32 *)(%1 + %2)"                                                   \
			     : "=r"(_value)                                                             \
			     : "r"(from), "i"(__builtin_offsetof(typeof(*(from)), field)));             \
		(__u32) _value;                                                                         \
	})

#define FIELD(field) READ(ctx, field)

#define SOL_SOCKET 1
#define SO_REUSEADDR 2
#define SO_REUSEPORT 15
#define SOCK_STREAM 1
#define AF_INET 2
#define AF_INET6 10
#define EADDRINUSE 98

/* On a host. The kernel allots the entries of most maps as they are needed. */
#define PODS 4096
#define REPLICAS 16384
#define SUBGROUPS 16384
#define ORIGINS 131072
#define BINDS 131072
#define LISTENERS 65536
#define SERVED 32768

/* Sockets of one replica whose ports are shared and watched: more get their ports as if sameport were not there. */
#define SOCKETS_OF_REPLICA 1024
/* Listeners of one replica at one address that its own connections are spread over: bits of `sp_slots`. */
#define SLOTS 64
/* Endpoints of a pod, and of one with many ports: replicas' parts in ports (`pod.h`). */
#define ENDPOINTS 1024
#define ENDPOINTS_OF_LARGE 8192
/* Services of a pod that are told apart: bits of `sp_served`. */
#define SERVICES 64

/* 127.77.0.0 and on: the addresses of single replicas. The second byte counts the services of a pod. */
#define REPLICA_FIRST ((127u << 24) | (77u << 16))
#define REPLICA_LAST ((127u << 24) | (108u << 16) | 0xffff)
/* The same for IPv6: this and the IPv4 address ("sameport" in ASCII, but for its first letter). */
#define REPLICA_PREFIX0 0xfd616d65u
#define REPLICA_PREFIX1 0x706f7274u

static __always_inline int is_replica_addr4(__u32 address)
{
	return address >= REPLICA_FIRST && address <= REPLICA_LAST;
}

/* An IPv6 address, or an IPv4 one as IPv6 has it (::ffff:1.2.3.4); in network order. */
struct addr {
	__u32 w[4];
};

static __always_inline void set_v4(struct addr *a, __u32 ip)
{
	a->w[0] = 0;
	a->w[1] = 0;
	a->w[2] = bpf_htonl(0xffff);
	a->w[3] = ip;
}

static __always_inline int is_v4(const struct addr *a)
{
	return !(a->w[0] | a->w[1]) && a->w[2] == bpf_htonl(0xffff);
}

static __always_inline int is_any6(const struct addr *a)
{
	return !(a->w[0] | a->w[1] | a->w[2] | a->w[3]);
}

static __always_inline int is_loopback(const struct addr *a)
{
	if (a->w[0] | a->w[1])
		return 0;
	if (a->w[2] == bpf_htonl(0xffff))
		return (a->w[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return !a->w[2] && a->w[3] == bpf_htonl(1);
}

static __always_inline int is_same(const struct addr *a, const struct addr *b)
{
	return !((a->w[0] ^ b->w[0]) | (a->w[1] ^ b->w[1]) | (a->w[2] ^ b->w[2]) | (a->w[3] ^ b->w[3]));
}

/* In place of an address, in the keys of `sp_binds` and `sp_slots`: what is neither of IPv4 nor of IPv6. */
#define ALL4 0xffffff04  /* all sockets of a port that have an IPv4 address */
#define ALL6 0xffffff06  /* all that have an IPv6 address */
#define ONLY6 0xffffff16 /* `::` without IPv4 (IPV6_V6ONLY) */
#define QUOTA 0xffffff00 /* all sockets of a replica */

static __always_inline void set_special(struct addr *a, __u32 kind)
{
	a->w[0] = a->w[1] = a->w[2] = a->w[3] = kind;
}

/* The single replica that an address means, as its IPv4 address in host order; 0: it means none. */
static __always_inline __u32 replica_addr(const struct addr *a)
{
	__u32 ip = bpf_ntohl(a->w[3]);

	if (!is_replica_addr4(ip))
		return 0;
	if (is_v4(a))
		return ip;
	if (a->w[0] == bpf_htonl(REPLICA_PREFIX0) && a->w[1] == bpf_htonl(REPLICA_PREFIX1) && !a->w[2])
		return ip;
	return 0;
}

/* Whether a connection comes from the network that it goes to: then it has that network's address, unless its program has
 * bound it to another one. */
static __always_inline int is_inside(const struct addr *from, const struct addr *to)
{
	return is_same(from, to) || is_loopback(to) || is_loopback(from);
}

/* Whose a control group is. */
struct member {
	__u64 netns; /* cookie of the pod's network namespace */
	__u32 service; /* its number in the pod */
	__u32 slot;
};

struct replica_key {
	__u64 netns;
	__u32 service;
	__u32 slot;
};

/* A connection, or a flow of datagrams from an unconnected socket: then its source address is 0. Ports are in host order. */
struct flow_key {
	__u64 netns;
	struct addr from, to;
	__u16 from_port, to_port;
	__u8 protocol, unused[3];
};

/* An address and port of one replica. */
struct bind_key {
	__u64 cgroup;
	struct addr addr;
	__u16 port;
	__u8 protocol;
	__u8 slot; /* of several listeners at one address; else 0 */
	__u32 netns; /* of the cookie, the lower half: a group that is no replica's may be in several networks */
};

/* An address and port of a pod. */
struct served_key {
	__u64 netns;
	struct addr addr;
	__u16 port;
	__u8 protocol;
	__u8 unused[5];
};

/* How many sockets are bound, by what decides whether another one may be: whether their program has set SO_REUSEPORT (1),
 * and whether SO_REUSEADDR lets them share (2): of TCP, it was set and they do not listen. */
struct binds {
	__s32 sockets[4];
};

#define ASKED 1
#define SOFT 2

/* What the bind hooks note at a socket. */
struct bind_mark {
	struct bind_key key;
	__u8 kind;	/* ASKED | SOFT, under which it is counted */
	__u8 counted;
	__u8 reuse;	/* its program has set SO_REUSEADDR */
	__u8 listed;	/* 1 + its slot among the listeners of its replica; 0: it never listened */
	__u32 shared;	/* SO_REUSEPORT was set by us, and of TCP SO_REUSEADDR */
};

struct port_key {
	__u64 netns; /* cookie */
	__u16 port;
	__u8 protocol;
	__u8 unused[5];
};

/* Written by the programs. As large as a cache line, of which the kernel's array begins 8 bytes before the end of one: that
 * they begin with a line (BPF_F_MMAPABLE) gained nothing that could be measured. */
struct counts {
	__s64 live;  /* connections that are open now */
	__u64 total; /* connections so far; of UDP, flows */
	__u64 last;  /* of UDP: when the last datagram came, in ns since boot */
	__u64 reset; /* clients' connections that ended by a reset; of those that wait, refused ones */
	/* Of TCP, what the choice by least connections goes by: */
	__s64 unfinished; /* open connections that the replica has not ended; a client may be slow to end its part */
	__s64 expected;	  /* connections that were chosen and are not open yet */
	__u64 halved;	  /* when `expected` was, in jiffies */
	__u32 began;	  /* when it began what it works on: had nothing to do before, or ended a connection; in ticks() */
	__u32 took;	  /* how long the connection was open that it ended last, in ticks */
};

/* In what a connection is counted. */
enum counted { NOT_COUNTED = 0, IN_LIVE = 1, IN_LIVE_AND_UNFINISHED = 2 };

/* What a listener is; every connection that it accepts inherits a copy. */
struct tag {
	__u32 endpoint;
	__u32 counted; /* of a connection: enum counted */
	__u32 opened;  /* of a connection: when, in ticks() */
	__u32 unused;
};

enum event_kind {
	EVENT_BOUND = 1,      /* a UDP socket got its port */
	EVENT_LISTENS = 2,    /* a TCP socket listens */
	EVENT_CLOSED = 3,     /* one of our listeners does no longer */
	EVENT_OTHER_USER = 4, /* a port is wanted by another user than the one who shares it, or nobody is known to share it */
	EVENT_EXCLUSIVE = 5,  /* a port that one replica holds alone is wanted by another one */
	EVENT_CHOOSES = 6,    /* a program wants to choose who gets the connections of a port, which it may not */
};

struct event {
	__u64 netns;  /* cookie */
	__u64 cgroup; /* of the process */
	__u32 kind;
	__u32 port;
	__u32 protocol;
	__u32 user;
};

#define MAP(name, kind, key_type, value_type, entries, flags)      \
	struct {                                                   \
		__uint(type, BPF_MAP_TYPE_##kind);                 \
		__type(key, key_type);                             \
		__type(value, value_type);                         \
		__uint(max_entries, entries);                      \
		__uint(map_flags, flags);                          \
		__uint(pinning, LIBBPF_PIN_BY_NAME);               \
	} name SEC(".maps")

/* Network namespaces of pods, by cookie. */
MAP(sp_pods, HASH, __u64, __u32, PODS, 0);
/* Control groups of replicas. */
MAP(sp_cgroups, HASH, __u64, struct member, REPLICAS, BPF_F_NO_PREALLOC);
/* Of control groups below those of replicas, which a container makes for itself: the replica's. */
MAP(sp_subgroups, LRU_HASH, __u64, __u64, SUBGROUPS, 0);
/* Control groups of supervisors: what they open and ask is not a replica's. */
MAP(sp_supervisors, LRU_HASH, __u64, __u32, 1024, 0);
/* The control group of each replica. */
MAP(sp_replicas, HASH, struct replica_key, __u64, REPLICAS, BPF_F_NO_PREALLOC);
/* Which control group has opened a connection within a pod. */
MAP(sp_origins, LRU_HASH, struct flow_key, __u64, ORIGINS, 0);
/* Addresses that are a pod's own, of loopback those of its interfaces; ports are 0. */
MAP(sp_local, HASH, struct served_key, __u32, SERVED, BPF_F_NO_PREALLOC);
/* What is bound within each replica. */
MAP(sp_binds, HASH, struct bind_key, struct binds, BINDS, BPF_F_NO_PREALLOC);
/* Which slots of `sp_listeners` are in use, as bits. */
MAP(sp_slots, HASH, struct bind_key, __u64, LISTENERS, BPF_F_NO_PREALLOC);
/* Services that have listened at an address of a pod, as bits. */
MAP(sp_served, LRU_HASH, struct served_key, __u64, SERVED, 0);
/* Ports that only one replica can hold at a time, as bits: 64 at an entry, whose key has the port by 64. */
MAP(sp_exclusive, HASH, struct port_key, __u64, LISTENERS, BPF_F_NO_PREALLOC);
/* The user who shares a port. */
MAP(sp_users, HASH, struct port_key, __u32, LISTENERS, BPF_F_NO_PREALLOC);
/* Connections that have moved on from the listener that they came to: socket cookie and endpoint. */
MAP(sp_moved, HASH, __u64, __u32, 131072, BPF_F_NO_PREALLOC);

/* Listeners, and unconnected UDP sockets, of each replica. The kernel takes one out when it is closed. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(key_size, sizeof(struct bind_key));
	__uint(value_size, sizeof(__u32));
	__uint(max_entries, LISTENERS);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} sp_listeners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__type(key, int);
	__type(value, struct bind_mark);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} sp_bind_marks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__type(key, int);
	__type(value, struct tag);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} sp_tags SEC(".maps");

/* In ticks of 1024 ns, which begin anew each 73 minutes. */
static __always_inline __u32 ticks(__u64 ns)
{
	return ns >> 10;
}

#endif
