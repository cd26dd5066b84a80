/* Chooses the new listener of each connection whose listener closes before it was accepted. Attached to the group of every
 * listener of a pod; also asked for a new connection, should `lookup.bpf.c` not run. */
#include <linux/bpf.h>

#define CONTEXT struct sk_reuseport_md
#include "pod.h"

static __always_inline int take_own(struct sk_reuseport_md *ctx, struct bind_key *key)
{
	return bpf_sk_select_reuseport(ctx, &sp_listeners, key, 0) != 0;
}

static __always_inline int take_socket(struct sk_reuseport_md *ctx, __u32 index)
{
	return bpf_sk_select_reuseport(ctx, &sp_sockets, &index, 0) != 0;
}

/* A handshake begins, or goes on, at a replica. */
static __always_inline int is_expected(struct sk_reuseport_md *ctx)
{
	struct bpf_sock *moving = ctx->migrating_sk;

	return !moving || moving->state == BPF_TCP_NEW_SYN_RECV;
}

#include "choice.h"

static __always_inline void count(__u32 endpoint, __s64 by)
{
	struct counts *c = bpf_map_lookup_elem(&sp_counts, &endpoint);

	if (!c)
		return;
	__sync_fetch_and_add(&c->live, by);
	/* Nobody has accepted it, and so nobody has finished it. */
	__sync_fetch_and_add(&c->unfinished, by);
}

/* A connection that moves on is counted where it goes. One that is still in its handshake is not counted yet, and one
 * that its client has reset is not counted any more; the kernel holds its lock, so that this cannot change now. */
static __always_inline void recount(struct sk_reuseport_md *ctx, struct bpf_sock *moving, __u32 to)
{
	struct listener *closed;
	__u64 cookie;
	__u32 *moved, from;

	if (moving->state == BPF_TCP_NEW_SYN_RECV || moving->state == BPF_TCP_SYN_RECV ||
	    moving->state == BPF_TCP_CLOSE)
		return;
	cookie = bpf_get_socket_cookie(moving);
	moved = bpf_map_lookup_elem(&sp_moved, &cookie);
	if (moved) {
		from = *moved;
	} else {
		cookie = bpf_get_socket_cookie(ctx->sk);
		closed = bpf_map_lookup_elem(&sp_known, &cookie);
		if (!closed)
			return;
		from = closed->endpoint;
		cookie = bpf_get_socket_cookie(moving);
	}
	if (from == to || bpf_map_update_elem(&sp_moved, &cookie, &to, BPF_ANY))
		return;
	count(from, -1);
	count(to, 1);
}

/* The group of the port that a listener is in, as a bit. */
static __always_inline __u32 group_of(struct port *port, struct addr *at)
{
	if (is_any6(at))
		return port->any6;
	if (is_v4(at) && !at->w[3])
		return port->any4;
	return (port->exact4 | port->exact6) & groups_at(port, at);
}

static __always_inline void address_of(struct bpf_sock *sk, struct addr *a)
{
	if (READ(sk, family) == AF_INET) {
		set_v4(a, READ(sk, src_ip4));
	} else {
		a->w[0] = READ(sk, src_ip6[0]);
		a->w[1] = READ(sk, src_ip6[1]);
		a->w[2] = READ(sk, src_ip6[2]);
		a->w[3] = READ(sk, src_ip6[3]);
	}
}

/* Who has asked for one replica is not served by another one: 0 if the replica has another listener, -1 if not, 1 if no
 * replica was asked for. */
static __always_inline int move_own(struct sk_reuseport_md *ctx, struct bpf_sock *moving, struct addr *listener)
{
	struct flow_key flow = { .protocol = IPPROTO_TCP };
	struct served_key served = { .protocol = IPPROTO_TCP };
	struct bind_key key = { .protocol = IPPROTO_TCP };
	struct member *member;
	__u64 *origin, *bits;
	__u32 zero = 0;
	struct pod *pod;

	address_of(moving, &flow.to);
	if (replica_addr(&flow.to))
		return -1;
	if (READ(moving, family) == AF_INET) {
		set_v4(&flow.from, READ(moving, dst_ip4));
	} else {
		flow.from.w[0] = READ(moving, dst_ip6[0]);
		flow.from.w[1] = READ(moving, dst_ip6[1]);
		flow.from.w[2] = READ(moving, dst_ip6[2]);
		flow.from.w[3] = READ(moving, dst_ip6[3]);
	}
	if (!is_inside(&flow.from, &flow.to))
		return 1;
	pod = bpf_map_lookup_elem(&sp_pod, &zero);
	if (!pod)
		return -1;
	flow.netns = pod->netns;
	flow.from_port = bpf_ntohs(moving->dst_port);
	flow.to_port = moving->src_port;
	origin = bpf_map_lookup_elem(&sp_origins, &flow);
	if (!origin)
		return 1;
	key.cgroup = *origin;
	key.netns = flow.netns;
	key.port = flow.to_port;
	key.addr = *listener;
	if (!take_at(ctx, &key, ctx->hash))
		return 0;
	member = bpf_map_lookup_elem(&sp_cgroups, origin);
	if (!member || !is_loopback(&flow.to))
		return 1;
	/* It came to a neighbour's, unless its own service listens there. */
	served.netns = flow.netns;
	served.addr = *listener;
	served.port = flow.to_port;
	bits = bpf_map_lookup_elem(&sp_served, &served);
	return bits && *bits >> (member->service & (SERVICES - 1)) & 1 ? -1 : 1;
}

SEC("sk_reuseport/migrate")
int sameport_migrate(struct sk_reuseport_md *ctx)
{
	struct bpf_sock *moving = ctx->migrating_sk, *sk = ctx->sk;
	struct pod_port_key name = { .protocol = IPPROTO_TCP };
	struct reach reach = {};
	struct wrr_table *table;
	struct port *port;
	struct addr at = {};
	__u32 endpoint = 0;
	int moved;

	if (!sk)
		return SK_DROP;
	address_of(sk, &at);
	name.port = sk->src_port;
	if (moving) {
		moved = move_own(ctx, moving, &at);
		if (moved <= 0)
			return moved ? SK_DROP : SK_PASS;
	}
	port = bpf_map_lookup_elem(&sp_ports, &name);
	/* Its replicas are taken over at this moment: the kernel chooses. */
	if (!port)
		return SK_PASS;
	reach.any = group_of(port, &at);
	if (!reach.any)
		return SK_PASS;
	table = table_of(port->number);
	if (!table)
		return SK_DROP;
	if (choose(ctx, port->number, table, &reach, ctx->hash, &endpoint) &&
	    wait(ctx, port, table, &reach, &endpoint))
		return SK_DROP;
	if (moving)
		recount(ctx, moving, endpoint);
	return SK_PASS;
}

const char LICENSE[] SEC("license") = "GPL";
