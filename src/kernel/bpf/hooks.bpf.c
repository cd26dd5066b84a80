/* What runs at the root of the control groups, once for a host and for each of its sockets: it first makes sure that a
 * socket is in one of our pods, and leaves all others alone. */
#include "owner.h"

/* The maps of a pod that are written from here, by the cookie of its network namespace. */
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

/* The kernel wants all arrays of such a map to be of one size: few pods need the larger one. */
#define COUNTS_OF_PODS(name, entries)                                \
	struct {                                                     \
		__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);             \
		__type(key, __u64);                                  \
		__uint(max_entries, PODS);                           \
		__uint(pinning, LIBBPF_PIN_BY_NAME);                 \
		__array(values, struct {                             \
			__uint(type, BPF_MAP_TYPE_ARRAY);            \
			__uint(key_size, sizeof(__u32));             \
			__uint(value_size, sizeof(struct counts));   \
			__uint(max_entries, entries);                \
		});                                                  \
	} name SEC(".maps")

COUNTS_OF_PODS(sp_pod_counts, ENDPOINTS);
COUNTS_OF_PODS(sp_large_counts, ENDPOINTS_OF_LARGE);

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

#include "bind.h"
#include "origin.h"
#include "count.h"

SEC("sockops")
int sameport_sockops(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	if (!sk)
		return 1;
	switch (ctx->op) {
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		established(ctx, sk);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		switch (ctx->args[1]) {
		case BPF_TCP_FIN_WAIT1:
		case BPF_TCP_LAST_ACK:
			finished(ctx, sk);
			break;
		case BPF_TCP_CLOSE:
			if (ctx->args[0] == BPF_TCP_LISTEN) {
				listens_no_more(ctx, sk);
			} else {
				finished(ctx, sk);
				closed(ctx, sk);
			}
			break;
		}
		break;
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		listens(ctx, sk);
		break;
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		connects(ctx, sk);
		break;
	}
	return 1;
}

const char LICENSE[] SEC("license") = "GPL";
