/* What user space is told of a pod. */
#ifndef SAMEPORT_NOTICES_H
#define SAMEPORT_NOTICES_H

#include "sameport.h"

/* By the cookie of its network namespace. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__type(key, __u64);
	__uint(max_entries, PODS);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_RINGBUF);
		__uint(max_entries, 16 * 1024);
	});
} sp_pod_events SEC(".maps");

static __always_inline void tell(__u64 netns, __u64 cgroup, __u32 kind, __u32 port, __u32 protocol, __u32 user)
{
	void *events = bpf_map_lookup_elem(&sp_pod_events, &netns);
	struct event *e;

	if (!events)
		return;
	e = bpf_ringbuf_reserve(events, sizeof(*e), 0);
	/* What does not fit is lost, and found by the next look. */
	if (!e)
		return;
	e->netns = netns;
	e->cgroup = cgroup;
	e->kind = kind;
	e->port = port;
	e->protocol = protocol;
	e->user = user;
	bpf_ringbuf_submit(e, 0);
}

#endif
