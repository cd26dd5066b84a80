/* Who opens a connection within a pod: noted before the kernel looks for its listener (`lookup.bpf.c`). */

static __always_inline void note_origin(struct flow_key *flow, __u64 owner)
{
	__u64 *noted = bpf_map_lookup_elem(&sp_origins, flow);

	if (!noted || *noted != owner)
		bpf_map_update_elem(&sp_origins, flow, &owner, BPF_ANY);
}

/* Its addresses are final, and its first packet is not sent yet. Whoever connects replaces what an earlier connection of
 * the same addresses has left. */
static __always_inline void connects(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct flow_key flow = { .protocol = IPPROTO_TCP };

	if (ctx->family == AF_INET) {
		set_v4(&flow.from, FIELD(local_ip4));
		set_v4(&flow.to, FIELD(remote_ip4));
	} else {
		flow.from.w[0] = FIELD(local_ip6[0]);
		flow.from.w[1] = FIELD(local_ip6[1]);
		flow.from.w[2] = FIELD(local_ip6[2]);
		flow.from.w[3] = FIELD(local_ip6[3]);
		flow.to.w[0] = FIELD(remote_ip6[0]);
		flow.to.w[1] = FIELD(remote_ip6[1]);
		flow.to.w[2] = FIELD(remote_ip6[2]);
		flow.to.w[3] = FIELD(remote_ip6[3]);
	}
	if (!is_inside(&flow.from, &flow.to))
		return;
	flow.netns = bpf_get_netns_cookie(ctx);
	if (!bpf_map_lookup_elem(&sp_pods, &flow.netns))
		return;
	flow.from_port = ctx->local_port;
	flow.to_port = bpf_ntohl(ctx->remote_port);
	note_origin(&flow, owner_of(sk));
}

/* Whether datagrams to `to` stay in the pod: then the flow's key is complete but for its ports. */
static __always_inline int is_flow_inside(struct bpf_sock_addr *ctx, struct flow_key *flow)
{
	struct served_key local = {};

	flow->netns = bpf_get_netns_cookie(ctx);
	if (!bpf_map_lookup_elem(&sp_pods, &flow->netns))
		return 0;
	/* To nowhere means to itself. */
	if (is_any6(&flow->to))
		flow->to.w[3] = bpf_htonl(1);
	else if (is_v4(&flow->to) && !flow->to.w[3])
		flow->to.w[3] = bpf_htonl(INADDR_LOOPBACK);
	if (is_loopback(&flow->to))
		return 1;
	local.netns = flow->netns;
	local.addr = flow->to;
	return bpf_map_lookup_elem(&sp_local, &local) != 0;
}

/* The kernel has given the socket its port; which source address it will choose is not known yet. */
static __always_inline int sends(struct bpf_sock_addr *ctx, struct flow_key *flow)
{
	struct bpf_sock *sk = ctx->sk;

	if (!sk || !is_flow_inside(ctx, flow))
		return 1;
	flow->from_port = sk->src_port;
	flow->to_port = bpf_ntohs(ctx->user_port);
	flow->protocol = IPPROTO_UDP;
	note_origin(flow, current_owner());
	return 1;
}

SEC("cgroup/sendmsg4")
int sameport_sendmsg4(struct bpf_sock_addr *ctx)
{
	struct flow_key flow = {};

	set_v4(&flow.to, FIELD(user_ip4));
	return sends(ctx, &flow);
}

SEC("cgroup/sendmsg6")
int sameport_sendmsg6(struct bpf_sock_addr *ctx)
{
	struct flow_key flow = {};

	flow.to.w[0] = FIELD(user_ip6[0]);
	flow.to.w[1] = FIELD(user_ip6[1]);
	flow.to.w[2] = FIELD(user_ip6[2]);
	flow.to.w[3] = FIELD(user_ip6[3]);
	return sends(ctx, &flow);
}

/* Of these the kernel takes source ports by itself, unless the network has other ones. */
#define FIRST_PORT 32768
#define PORTS_OF_RANGE 28232
#define STEP 7919 /* has no divisor in common with their number */

/* Binds a socket to a port of the range, unless it has one: which one depends on `draw`. */
static __always_inline void bind_any(struct bpf_sock_addr *ctx, struct bpf_sock *sk, __u64 netns, __u32 draw, int family)
{
	struct port_key port = { .netns = netns, .protocol = IPPROTO_UDP };
	__u16 number = FIRST_PORT + draw % PORTS_OF_RANGE;

	port.port = number;
	/* One that replicas share would be theirs. */
	if (sk->src_port || bpf_map_lookup_elem(&sp_users, &port))
		return;
	if (family == AF_INET) {
		struct {
			__u16 family, port;
			__u32 addr;
			__u8 zero[8];
		} to = { .family = AF_INET, .port = bpf_htons(number) };

		bpf_bind(ctx, (void *)&to, sizeof(to));
	} else {
		struct {
			__u16 family, port;
			__u32 flow, addr[4], scope;
		} to = { .family = AF_INET6, .port = bpf_htons(number) };

		bpf_bind(ctx, (void *)&to, sizeof(to));
	}
}

/* A UDP socket that connects has no port before, and nobody is asked when it sends: so it gets its port here. If all of a few
 * are taken it goes unnoted. No loop: Linux 6.1 takes none that begins just after a call. */
static __always_inline int connects_udp(struct bpf_sock_addr *ctx, struct flow_key *flow, int family)
{
	__u32 draw = bpf_get_prandom_u32();
	struct bpf_sock *sk = ctx->sk;

	if (!sk || !is_flow_inside(ctx, flow))
		return 1;
	bind_any(ctx, sk, flow->netns, draw, family);
	bind_any(ctx, sk, flow->netns, draw + STEP, family);
	bind_any(ctx, sk, flow->netns, draw + 2 * STEP, family);
	bind_any(ctx, sk, flow->netns, draw + 3 * STEP, family);
	if (!sk->src_port)
		return 1;
	flow->from_port = sk->src_port;
	flow->to_port = bpf_ntohs(ctx->user_port);
	flow->protocol = IPPROTO_UDP;
	note_origin(flow, current_owner());
	return 1;
}

SEC("cgroup/connect4")
int sameport_connect4(struct bpf_sock_addr *ctx)
{
	struct flow_key flow = {};

	if (ctx->protocol != IPPROTO_UDP)
		return 1;
	set_v4(&flow.to, FIELD(user_ip4));
	return connects_udp(ctx, &flow, AF_INET);
}

SEC("cgroup/connect6")
int sameport_connect6(struct bpf_sock_addr *ctx)
{
	struct flow_key flow = {};

	if (ctx->protocol != IPPROTO_UDP)
		return 1;
	flow.to.w[0] = FIELD(user_ip6[0]);
	flow.to.w[1] = FIELD(user_ip6[1]);
	flow.to.w[2] = FIELD(user_ip6[2]);
	flow.to.w[3] = FIELD(user_ip6[3]);
	return connects_udp(ctx, &flow, AF_INET6);
}
