/* The maps of one pod, which its own programs share with user space. They are pinned in the pod's folder.
 *
 * Words: a PORT is a protocol and port, by number. A GROUP is one of the addresses that a port is listened on, with all
 * sockets that share it (the kernel's reuseport group). An ENDPOINT is one replica's part in a port, by number, for one
 * life of the replica. How many there can be is decided when a pod is entered: user space sets `max_entries`. */
#ifndef SAMEPORT_POD_H
#define SAMEPORT_POD_H

#include "sameport.h"

#define GROUPS 8
#define LISTENERS_OF_ENDPOINT 126
#define WRR_TABLE 1024

/* As user space sets them, at least. */
#define POD_PORTS 64
#define POD_SOCKETS 8192
#define POD_FLOWS 65536

/* Lets whoever looks with `bpftool map` see what a field is. */
enum policy { LEAST_CONNECTIONS = 0, HASH = 1, RANDOM = 2 };

struct pod {
	__u64 netns; /* cookie */
};

enum port_flag {
	CLOSED4 = 1, /* nobody is let in by IPv4 at an address that is in no group */
	CLOSED6 = 2,
	DECLARED = 4,
	SILENT = 8, /* whoever is not let in by TCP gets no answer: it goes to the socket whose place is in the upper half */
};

struct pod_port_key {
	__u16 port;
	__u8 protocol;
	__u8 unused;
};

/* Groups are bits. */
struct port {
	__u32 number;
	__u32 flags;
	__u32 hold; /* the endpoint behind which connections wait while no replica is ready */
	__u32 any4, any6; /* of all addresses, and takes packets of that family */
	__u32 exact4, exact6; /* of one address */
	struct addr addrs[GROUPS]; /* of those of one address: which */
};

/* Which replicas get new connections of a port, each as often as its weight says (weighted round robin). */
struct wrr_table {
	__u32 policy;
	__u32 size; /* 0: nobody is ready */
	__u32 hold; /* how many connections may wait; 0: they are refused */
	__u32 unused;
	__u32 places[WRR_TABLE]; /* endpoints, each with its weight beside it: ENDPOINT_OF, WEIGHT_OF */
};

#define ENDPOINT_OF(place) ((place) & 0xffff)
#define WEIGHT_OF(place) ((place) >> 16)

/* How to reach a replica. */
struct endpoint {
	__u32 present; /* groups in which it listens, as bits */
	struct {
		__u16 first, count; /* in `listeners` */
	} groups[GROUPS];
	__u16 listeners[LISTENERS_OF_ENDPOINT]; /* places in `sp_sockets` */
};

/* What a listener is, by its socket cookie. */
struct listener {
	__u32 index; /* in `sp_sockets` */
	__u32 endpoint;
	__u32 port;
	__u32 group; /* from the second byte on, what user space notes for itself */
};

struct replica_addr_key {
	__u32 port;
	__u32 addr;
};

MAP(sp_pod, ARRAY, __u32, struct pod, 1, 0);
MAP(sp_ports, HASH, struct pod_port_key, struct port, POD_PORTS, BPF_F_NO_PREALLOC);
/* Two tables for each port, so that one can be written while the other is read. */
MAP(sp_wrr_tables, ARRAY, __u32, struct wrr_table, 2 * POD_PORTS, 0);
/* Which of its two tables a port goes by. */
MAP(sp_active, ARRAY, __u32, __u32, POD_PORTS, 0);
/* Where in its table each processor is; or, at random, what it drew last. */
MAP(sp_rr_cursors, PERCPU_ARRAY, __u32, __u32, POD_PORTS, 0);
MAP(sp_endpoints, ARRAY, __u32, struct endpoint, ENDPOINTS, 0);
/* Without types, as those that `sp_pod_counts` is made for: Linux 6.1 takes no others there. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct counts));
	__uint(max_entries, ENDPOINTS);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} sp_counts SEC(".maps");
/* What each listener is, by its socket cookie. */
MAP(sp_known, HASH, __u64, struct listener, POD_SOCKETS, BPF_F_NO_PREALLOC);
/* Who is behind a single replica's address. */
MAP(sp_replica_addr, HASH, struct replica_addr_key, __u32, ENDPOINTS, BPF_F_NO_PREALLOC);
/* The replica of each flow of datagrams. A hash of addresses and ports stands for the flow: two with the same one go to
 * the same replica, and nothing is lost by that. Those that were not used for long make room. */
MAP(sp_flows, LRU_HASH, __u64, __u32, POD_FLOWS, 0);

/* What user space should know soon. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 * 1024);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} sp_events SEC(".maps");

/* The sockets that are chosen from. The kernel takes one out when it is closed. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
	__uint(max_entries, POD_SOCKETS);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} sp_sockets SEC(".maps");

#endif
