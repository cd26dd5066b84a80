/* Counting. The tag of a listener is copied to each connection that it accepts; `counted` in the copy makes a second set of
 * these programs harmless, as there is for a moment when they are replaced. */

static __always_inline struct counts *counts_of(__u64 netns, __u32 endpoint)
{
	void *counts = bpf_map_lookup_elem(&sp_pod_counts, &netns);

	if (counts)
		return bpf_map_lookup_elem(counts, &endpoint);
	counts = bpf_map_lookup_elem(&sp_large_counts, &netns);
	return counts ? bpf_map_lookup_elem(counts, &endpoint) : 0;
}

static __always_inline void addresses(struct bpf_sock_ops *ctx, struct addr *local, struct addr *remote)
{
	if (ctx->family == AF_INET) {
		set_v4(local, FIELD(local_ip4));
		set_v4(remote, FIELD(remote_ip4));
	} else {
		local->w[0] = FIELD(local_ip6[0]);
		local->w[1] = FIELD(local_ip6[1]);
		local->w[2] = FIELD(local_ip6[2]);
		local->w[3] = FIELD(local_ip6[3]);
		remote->w[0] = FIELD(remote_ip6[0]);
		remote->w[1] = FIELD(remote_ip6[1]);
		remote->w[2] = FIELD(remote_ip6[2]);
		remote->w[3] = FIELD(remote_ip6[3]);
	}
}

/* Whether a connection is a replica's to itself: it is none of a client's, and a replica that is drained keeps it until it
 * ends. */
static __always_inline int is_to_itself(struct bpf_sock_ops *ctx, struct bpf_sock *sk, __u64 netns)
{
	struct flow_key flow = { .netns = netns, .protocol = IPPROTO_TCP };
	__u64 *origin;

	addresses(ctx, &flow.to, &flow.from);
	if (!is_inside(&flow.from, &flow.to))
		return 0;
	flow.from_port = bpf_ntohl(ctx->remote_port);
	flow.to_port = ctx->local_port;
	origin = bpf_map_lookup_elem(&sp_origins, &flow);
	return origin && *origin == owner_of(sk) && !is_supervisor(*origin);
}

static __always_inline void established(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct tag *tag = bpf_sk_storage_get(&sp_tags, sk, 0, 0);
	struct counts *c;
	__u64 netns;

	if (!tag || tag->counted)
		return;
	netns = bpf_get_netns_cookie(ctx);
	c = counts_of(netns, tag->endpoint);
	if (!c || is_to_itself(ctx, sk, netns))
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

/* The replica has sent all that it will: it is free for others, even if the client does not close yet. */
static __always_inline void finished(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct tag *tag = bpf_sk_storage_get(&sp_tags, sk, 0, 0);
	struct counts *c;
	__u64 cookie;
	__u32 *moved, now;

	if (!tag || tag->counted != IN_LIVE_AND_UNFINISHED)
		return;
	tag->counted = IN_LIVE;
	cookie = bpf_get_socket_cookie(ctx);
	moved = bpf_map_lookup_elem(&sp_moved, &cookie);
	c = counts_of(bpf_get_netns_cookie(ctx), moved ? *moved : tag->endpoint);
	if (!c)
		return;
	__sync_fetch_and_add(&c->unfinished, -1);
	now = ticks(bpf_ktime_get_ns());
	c->took = now - tag->opened;
	c->began = now;
}

static __always_inline void closed(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct tag *tag = bpf_sk_storage_get(&sp_tags, sk, 0, 0);
	struct addr local, remote;
	struct counts *c;
	__u64 cookie;
	__u32 *moved;

	if (!tag || tag->counted == NOT_COUNTED)
		return;
	tag->counted = NOT_COUNTED;
	cookie = bpf_get_socket_cookie(ctx);
	moved = bpf_map_lookup_elem(&sp_moved, &cookie);
	c = counts_of(bpf_get_netns_cookie(ctx), moved ? *moved : tag->endpoint);
	if (moved)
		bpf_map_delete_elem(&sp_moved, &cookie);
	if (!c)
		return;
	__sync_fetch_and_add(&c->live, -1);
	/* By a reset of either side, or because the other one was heard of no more: what the kernel counts as EstabResets.
	 * Whoever asks a replica at its own address is no client: a probe goes when it has waited for long enough. */
	if (ctx->args[0] != BPF_TCP_ESTABLISHED && ctx->args[0] != BPF_TCP_CLOSE_WAIT)
		return;
	addresses(ctx, &local, &remote);
	if (!replica_addr(&local))
		__sync_fetch_and_add(&c->reset, 1);
}
