/* What runs at the root of the control groups, for every socket of the host: it first makes sure that the socket is
 * in one of our pods, and leaves all others alone. */
#include "sameport.h"

static __always_inline void tell(__u64 netns, __u32 kind, __u32 port, __u32 protocol, __u32 user)
{
	struct event *e = bpf_ringbuf_reserve(&sameport_events, sizeof(*e), 0);

	if (!e)
		return;
	e->netns = netns;
	e->cgroup = kind == EVENT_CLOSED ? 0 : bpf_get_current_cgroup_id();
	e->kind = kind;
	e->port = port;
	e->protocol = protocol;
	e->user = user;
	bpf_ringbuf_submit(e, 0);
}

/* Sharing: SO_REUSEPORT is set before the kernel looks whether the port is taken. Port 0 asks for one that nobody
 * has: that must not be a shared one. */
static __always_inline int share(struct bpf_sock_addr *ctx)
{
	struct port_key key = { .port = bpf_ntohs(ctx->user_port), .protocol = ctx->protocol };
	__u32 *user, me;
	int one = 1;

	if (!key.port || (key.protocol != IPPROTO_TCP && key.protocol != IPPROTO_UDP))
		return 1;
	key.netns = bpf_get_netns_cookie(ctx);
	if (!bpf_map_lookup_elem(&sameport_pods, &key.netns))
		return 1;
	bpf_setsockopt(ctx, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
	user = bpf_map_lookup_elem(&sameport_users, &key);
	me = bpf_get_current_uid_gid();
	if (user && *user != me)
		tell(key.netns, EVENT_OTHER_USER, key.port, key.protocol, me);
	return 1;
}

SEC("cgroup/bind4")
int sameport_bind4(struct bpf_sock_addr *ctx)
{
	return share(ctx);
}

SEC("cgroup/bind6")
int sameport_bind6(struct bpf_sock_addr *ctx)
{
	return share(ctx);
}

static __always_inline int bound(struct bpf_sock *sk)
{
	__u64 netns;

	if (sk->protocol != IPPROTO_UDP)
		return 1;
	netns = bpf_get_netns_cookie(sk);
	if (bpf_map_lookup_elem(&sameport_pods, &netns))
		tell(netns, EVENT_BOUND, sk->src_port, IPPROTO_UDP, 0);
	return 1;
}

SEC("cgroup/post_bind4")
int sameport_bound4(struct bpf_sock *sk)
{
	return bound(sk);
}

SEC("cgroup/post_bind6")
int sameport_bound6(struct bpf_sock *sk)
{
	return bound(sk);
}

/* A replica that connects to its own loopback address and to a port that it listens on means itself, not one of the
 * others: its address there, or 0. Of datagrams the answer would come from another address than the one asked. */
static __always_inline __u32 myself(struct bpf_sock_addr *ctx)
{
	struct port_key key = { .port = bpf_ntohs(ctx->user_port), .protocol = IPPROTO_TCP };
	struct own_key own = {};
	__u64 cgroup;
	__u32 *home, *port;

	if (ctx->protocol != IPPROTO_TCP)
		return 0;
	key.netns = bpf_get_netns_cookie(ctx);
	port = bpf_map_lookup_elem(&sameport_ports, &key);
	if (!port)
		return 0;
	cgroup = bpf_get_current_cgroup_id();
	home = bpf_map_lookup_elem(&sameport_homes, &cgroup);
	if (!home)
		return 0;
	own.port = *port;
	own.address = *home;
	return bpf_map_lookup_elem(&sameport_own, &own) ? own.address : 0;
}

SEC("cgroup/connect4")
int sameport_self4(struct bpf_sock_addr *ctx)
{
	__u32 me;

	if (ctx->user_ip4 != bpf_htonl(INADDR_LOOPBACK))
		return 1;
	me = myself(ctx);
	if (me)
		ctx->user_ip4 = bpf_htonl(me);
	return 1;
}

SEC("cgroup/connect6")
int sameport_self6(struct bpf_sock_addr *ctx)
{
	__u32 me;

	/* ::1, and 127.0.0.1 as an IPv6 socket sees it */
	if (ctx->user_ip6[0] || ctx->user_ip6[1])
		return 1;
	if (!(ctx->user_ip6[2] == 0 && ctx->user_ip6[3] == bpf_htonl(1)) &&
	    !(ctx->user_ip6[2] == bpf_htonl(0xffff) && ctx->user_ip6[3] == bpf_htonl(INADDR_LOOPBACK)))
		return 1;
	me = myself(ctx);
	if (me) {
		ctx->user_ip6[2] = bpf_htonl(0xffff);
		ctx->user_ip6[3] = bpf_htonl(me);
	}
	return 1;
}

/* Counting. The tag of a listener is copied to each connection that it accepts; `counted` in the copy makes a second
 * set of these programs harmless, as there is for a moment when they are replaced. */
static __always_inline void established(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct tag *tag = bpf_sk_storage_get(&sameport_tags, sk, 0, 0);
	struct counts *c;

	if (!tag || tag->counted)
		return;
	c = bpf_map_lookup_elem(&sameport_counts, &tag->endpoint);
	if (!c)
		return;
	tag->counted = IN_LIVE_AND_UNFINISHED;
	__sync_fetch_and_add(&c->live, 1);
	__sync_fetch_and_add(&c->total, 1);
	tag->opened = ticks(bpf_ktime_get_ns());
	if (c->unfinished <= 0)
		c->began = tag->opened;
	__sync_fetch_and_add(&c->unfinished, 1);
	/* It may have been forgotten, or expected at another replica that is no more. */
	if (c->expected > 0)
		__sync_fetch_and_add(&c->expected, -1);
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
}

/* The replica has sent all that it will: it is free for others, even if the client does not say goodbye yet. */
static __always_inline void finished(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct tag *tag = bpf_sk_storage_get(&sameport_tags, sk, 0, 0);
	struct counts *c;
	__u64 cookie;
	__u32 *moved, endpoint, now;

	if (!tag || tag->counted != IN_LIVE_AND_UNFINISHED)
		return;
	tag->counted = IN_LIVE;
	cookie = bpf_get_socket_cookie(ctx);
	moved = bpf_map_lookup_elem(&sameport_moved, &cookie);
	endpoint = moved ? *moved : tag->endpoint;
	c = bpf_map_lookup_elem(&sameport_counts, &endpoint);
	if (!c)
		return;
	__sync_fetch_and_add(&c->unfinished, -1);
	now = ticks(bpf_ktime_get_ns());
	c->took = now - tag->opened;
	c->began = now;
}

static __always_inline void closed(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct tag *tag = bpf_sk_storage_get(&sameport_tags, sk, 0, 0);
	__u64 cookie;
	__u32 *moved, endpoint;

	if (!tag)
		return;
	if (ctx->args[0] == BPF_TCP_LISTEN) {
		tell(bpf_get_netns_cookie(ctx), EVENT_CLOSED, ctx->local_port, IPPROTO_TCP, 0);
		return;
	}
	if (tag->counted == NOT_COUNTED)
		return;
	tag->counted = NOT_COUNTED;
	cookie = bpf_get_socket_cookie(ctx);
	moved = bpf_map_lookup_elem(&sameport_moved, &cookie);
	endpoint = moved ? *moved : tag->endpoint;
	count(endpoint, -1);
	/* By a reset of either side, or because the other one was heard of no more: what the kernel counts as EstabResets.
	 * Whoever asks a replica at its own address is no client: a probe goes when it has waited for long enough. */
	if ((ctx->args[0] == BPF_TCP_ESTABLISHED || ctx->args[0] == BPF_TCP_CLOSE_WAIT) &&
	    !is_own(bpf_ntohl(ctx->local_ip4)))
		count_reset(endpoint);
	if (moved)
		bpf_map_delete_elem(&sameport_moved, &cookie);
}

static __always_inline void listens(struct bpf_sock_ops *ctx)
{
	__u64 netns = bpf_get_netns_cookie(ctx);

	if (!bpf_map_lookup_elem(&sameport_pods, &netns))
		return;
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
	tell(netns, EVENT_LISTENS, ctx->local_port, IPPROTO_TCP, 0);
}

SEC("sockops")
int sameport_count(struct bpf_sock_ops *ctx)
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
			finished(ctx, sk);
			closed(ctx, sk);
			break;
		}
		break;
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		listens(ctx);
		break;
	}
	return 1;
}

const char LICENSE[] SEC("license") = "GPL";
