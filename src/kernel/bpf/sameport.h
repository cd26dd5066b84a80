/* What sameport's programs share: maps, pinned by name in the project's folder of bpffs, and their layout.
 *
 * Words: a PORT is a protocol and port of one pod, by number. An ENDPOINT is one replica's part in a port, by number,
 * for one life of the replica. A DOOR is one reuseport group of a port: there is one for each address that the port is
 * listened on (0.0.0.0, ::, …). `src/kernel/layout.rs` has the same layout for user space. */
#ifndef SAMEPORT_H
#define SAMEPORT_H

#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define PORTS 64
#define ENDPOINTS 1024
#define DOORS 4
#define LISTENERS_OF_DOOR 63
#define WHEEL 1024
#define LISTENERS 8192

/* Each port has one more endpoint, behind which connections wait while no replica is up. */
#define HOLD_OF(port) (ENDPOINTS + (port))

#define SOL_SOCKET 1
#define SO_REUSEPORT 15
#define SOCK_STREAM 1
#define AF_INET 2
#define AF_INET6 10

/* 127.77.0.0 and on: the addresses of single replicas. The second byte counts the services of a pod. */
#define OWN_FIRST ((127u << 24) | (77u << 16))
#define OWN_LAST ((127u << 24) | (108u << 16) | 0xffff)

static __always_inline int is_own(__u32 address)
{
	return address >= OWN_FIRST && address <= OWN_LAST;
}

/* Lets whoever looks with `bpftool map` see what a field is. */
enum policy { LEAST_CONNECTIONS = 0, HASH = 1, RANDOM = 2 };

/* Which replicas get new connections of a port, each as often as its weight says. Written by user space. */
struct table {
	__u32 policy;
	__u32 size; /* of the wheel; 0: nobody is ready */
	__u32 hold; /* how many connections may wait; 0: they are refused */
	__u32 unused;
	__u32 wheel[WHEEL]; /* endpoints, each with its weight beside it: ENDPOINT_OF, WEIGHT_OF */
};

#define ENDPOINT_OF(place) ((place) & 0xffff)
#define WEIGHT_OF(place) ((place) >> 16)

/* How to reach a replica. Written by user space. */
struct endpoint {
	struct {
		__u16 count;
		__u16 listeners[LISTENERS_OF_DOOR]; /* places in `sameport_socks` */
	} doors[DOORS];
};

/* Written by the programs. As large as a cache line, of which the kernel's array begins 8 bytes before the end of one: that
 * they begin with a line (BPF_F_MMAPABLE) gained nothing that could be measured. */
struct counts {
	__s64 live;  /* connections that are open now */
	__u64 total; /* connections so far; of UDP, flows */
	__u64 last;  /* of UDP: when the last datagram came, in ns since boot */
	__u64 reset; /* clients' connections that ended without a goodbye; of those who wait, refused ones */
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

struct listener {
	__u32 index; /* in `listeners` */
	__u32 endpoint;
	__u32 port;
	__u32 door;
};

struct port_key {
	__u64 netns; /* cookie */
	__u16 port;
	__u8 protocol;
	__u8 unused[5];
};

struct own_key {
	__u32 port;
	__u32 address;
};

struct gate_key {
	__u32 pod;
	__u16 port;
	__u8 protocol;
	__u8 family; /* of the packet */
};

struct flow_key {
	__u32 port;
	__u32 hash;
};

enum event_kind {
	EVENT_BOUND = 1,    /* a UDP socket got its port */
	EVENT_LISTENS = 2,  /* a TCP socket listens */
	EVENT_CLOSED = 3,   /* one of our listeners does no longer */
	EVENT_OTHER_USER = 4, /* a port is wanted by another user than the one who shares it */
};

struct event {
	__u64 netns;  /* cookie */
	__u64 cgroup; /* of the process */
	__u32 kind;
	__u32 port;
	__u32 protocol;
	__u32 user;
};

#define PINNED __uint(pinning, LIBBPF_PIN_BY_NAME)

/* Network namespaces of our pods, by cookie. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64);
	__type(value, __u32);
	__uint(max_entries, 256);
	PINNED;
} sameport_pods SEC(".maps");

/* The number of a port. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct port_key);
	__type(value, __u32);
	__uint(max_entries, PORTS);
	PINNED;
} sameport_ports SEC(".maps");

/* Two tables for each port, so that one can be written while the other is read. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct table);
	__uint(max_entries, 2 * PORTS);
	PINNED;
} sameport_tables SEC(".maps");

/* Which of its two tables a port goes by. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, PORTS);
	PINNED;
} sameport_turns SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct endpoint);
	__uint(max_entries, ENDPOINTS + PORTS);
	PINNED;
} sameport_ends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct counts);
	__uint(max_entries, ENDPOINTS + PORTS);
	PINNED;
} sameport_counts SEC(".maps");

/* The sockets. The kernel takes one out when it closes. */
struct {
	__uint(type, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, LISTENERS);
	PINNED;
} sameport_socks SEC(".maps");

/* What each listener is, by its socket cookie. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64);
	__type(value, struct listener);
	__uint(max_entries, LISTENERS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	PINNED;
} sameport_known SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__type(key, int);
	__type(value, struct tag);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	PINNED;
} sameport_tags SEC(".maps");

/* Connections that have moved on from the listener that they came to: cookie and endpoint. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64);
	__type(value, __u32);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	PINNED;
} sameport_moved SEC(".maps");

/* Who is behind a single replica's address. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct own_key);
	__type(value, __u32);
	__uint(max_entries, ENDPOINTS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	PINNED;
} sameport_own SEC(".maps");

/* The address of each replica, by the id of its control group. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64);
	__type(value, __u32);
	__uint(max_entries, ENDPOINTS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	PINNED;
} sameport_homes SEC(".maps");

/* Ports that are shut until the choice among their listeners is ours. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct gate_key);
	__type(value, __u32);
	__uint(max_entries, 4 * PORTS);
	PINNED;
} sameport_shut SEC(".maps");

/* The user who shares a port. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct port_key);
	__type(value, __u32);
	__uint(max_entries, PORTS);
	PINNED;
} sameport_users SEC(".maps");

/* What user space should know soon. What does not fit is lost, and found by the next look. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
	PINNED;
} sameport_events SEC(".maps");

static __always_inline void count(__u32 endpoint, __s64 by)
{
	struct counts *c = bpf_map_lookup_elem(&sameport_counts, &endpoint);

	if (c)
		__sync_fetch_and_add(&c->live, by);
}

/* In ticks of 1024 ns, which begin anew each 73 minutes. */
static __always_inline __u32 ticks(__u64 ns)
{
	return ns >> 10;
}

static __always_inline void count_unfinished(__u32 endpoint, __s64 by)
{
	struct counts *c = bpf_map_lookup_elem(&sameport_counts, &endpoint);

	if (c)
		__sync_fetch_and_add(&c->unfinished, by);
}

static __always_inline void count_reset(__u32 endpoint)
{
	struct counts *c = bpf_map_lookup_elem(&sameport_counts, &endpoint);

	if (c)
		__sync_fetch_and_add(&c->reset, 1);
}

#endif
