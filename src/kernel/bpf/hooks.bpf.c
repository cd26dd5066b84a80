/* What runs at the root of the control groups, once for a host and for each of its sockets: it first makes sure that a
 * socket is in one of our pods, and leaves all others alone. */
#include "owner.h"
#include "notices.h"

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

#include "bind.h"
#include "origin.h"
#include "count.h"
#include "options.h"

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

/* `compat.bpf.c` is asked instead when a program makes the calls of another architecture: the kernel leaves this one out then. */
SEC("cgroup/setsockopt")
int sameport_setsockopt(struct bpf_sockopt *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	__u64 netns, owner;

	/* The kernel fails with a value that does not fit into its buffer, unless it is told to take the program's. It is not told
	 * so otherwise: what another program has changed would be lost. */
	if (ctx->optlen > ctx->optval_end - ctx->optval)
		ctx->optlen = 0;
	if (!is_about_choice(ctx->level, ctx->optname) || !sk)
		return 1;
	netns = bpf_get_netns_cookie(ctx);
	if (!bpf_map_lookup_elem(&sp_pods, &netns))
		return 1;
	owner = current_owner();
	if (is_supervisor(owner))
		return 1;
	tell(netns, owner, EVENT_CHOOSES, sk->src_port, sk->protocol, 0);
	/* It succeeds, and the kernel does nothing. */
	ctx->optlen = -1;
	return 1;
}

const char LICENSE[] SEC("license") = "GPL";
