/* Picks the socket of each new TCP connection, and of each datagram, that comes to a pod: before the kernel looks for one
 * itself. Whoever is known to have opened it within a replica gets a listener of that replica, as if it were alone; everyone
 * else gets one of those that are ready. */
#include <linux/bpf.h>

#define CONTEXT struct bpf_sk_lookup
#include "pod.h"

static __always_inline int assign(struct bpf_sk_lookup *ctx, struct bpf_sock *sk)
{
	long failed;

	/* One that is shut down stays entered until it is closed. */
	if (FIELD(protocol) == IPPROTO_TCP && sk->state != BPF_TCP_LISTEN)
		failed = -1;
	else
		/* Else the kernel would choose among all of its group once more. */
		failed = bpf_sk_assign(ctx, sk, BPF_SK_LOOKUP_F_NO_REUSEPORT);
	bpf_sk_release(sk);
	return failed != 0;
}

static __always_inline int take_own(struct bpf_sk_lookup *ctx, struct bind_key *key)
{
	struct bpf_sock *sk = bpf_map_lookup_elem(&sp_listeners, key);

	return sk ? assign(ctx, sk) : -1;
}

static __always_inline int take_socket(struct bpf_sk_lookup *ctx, __u32 index)
{
	struct bpf_sock *sk = bpf_map_lookup_elem(&sp_sockets, &index);

	return sk ? assign(ctx, sk) : -1;
}

static __always_inline int is_expected(struct bpf_sk_lookup *ctx)
{
	return 1;
}

#include "choice.h"

/* The index of the loopback interface, in every network. */
#define LOOPBACK 1

/* As often as the time of the last datagram is noted. */
#define NOTE_AGAIN 10000000ull /* ns */

/* What is kept of a flow: the endpoint, and in the upper half which of its lives. Once a replica is gone, its endpoint is given to
 * another one, which may not be ready, or may have another port. `reset` has no other use with UDP. */
static __always_inline __u32 flow_with(__u32 endpoint, struct counts *c)
{
	return endpoint | (__u32)c->reset << 16;
}

static __always_inline void note(struct counts *c)
{
	__u64 now = bpf_ktime_get_coarse_ns();

	if (now - c->last > NOTE_AGAIN)
		c->last = now;
}

/* Gives a datagram to the replica that its flow is with: not 0 if that is gone. */
static __always_inline int go_on(struct bpf_sk_lookup *ctx, __u64 *hash, const struct reach *reach, __u32 random)
{
	__u32 *known = bpf_map_lookup_elem(&sp_flows, hash), endpoint;
	struct counts *c;

	if (!known)
		return -1;
	endpoint = *known & 0xffff;
	c = bpf_map_lookup_elem(&sp_counts, &endpoint);
	if (!c || *known != flow_with(endpoint, c) || enter(ctx, endpoint, reach, random))
		return -1;
	note(c);
	return 0;
}

static __always_inline void begin_flow(__u64 *hash, __u32 endpoint)
{
	struct counts *c = bpf_map_lookup_elem(&sp_counts, &endpoint);
	__u32 with;

	if (!c)
		return;
	with = flow_with(endpoint, c);
	bpf_map_update_elem(&sp_flows, hash, &with, BPF_ANY);
	__sync_fetch_and_add(&c->total, 1);
	note(c);
}

/* The finishing step of MurmurHash3, by which each bit of the input changes half of those of the output. */
static __always_inline __u64 mix(__u64 x)
{
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdull;
	x ^= x >> 33;
	x *= 0xc4ceb9fe1a85ec53ull;
	return x ^ x >> 33;
}

static __always_inline __u64 hash_of(const struct flow_key *f)
{
	__u64 from = ((__u64)f->from.w[0] << 32 | f->from.w[1]) * 31 + ((__u64)f->from.w[2] << 32 | f->from.w[3]);
	__u64 to = ((__u64)f->to.w[0] << 32 | f->to.w[1]) * 31 + ((__u64)f->to.w[2] << 32 | f->to.w[3]);

	return mix(mix(from ^ (__u64)f->from_port << 48) + to + ((__u64)f->to_port << 8 | f->protocol));
}

enum found { TAKEN, REFUSED, ANSWER, GO_ON };

/* A replica has asked for a loopback address at which it does not listen itself. What listens there may be that of another
 * service in the pod; it is never that of another replica of its own service. */
static __always_inline enum found ask_neighbours(struct bpf_sk_lookup *ctx, struct flow_key *flow, struct bind_key *key,
						 __u32 random)
{
	struct served_key served = { .netns = flow->netns, .port = flow->to_port, .protocol = flow->protocol };
	struct member *self = bpf_map_lookup_elem(&sp_cgroups, &key->cgroup);
	__u64 here = 0, all, others, *bits, *cgroup;
	struct replica_key replica = {};
	int k;

	if (!self)
		return GO_ON;
	served.addr = flow->to;
	bits = bpf_map_lookup_elem(&sp_served, &served);
	here = bits ? *bits : 0;
	if (is_v4(&flow->to))
		served.addr.w[3] = 0;
	else
		set_special(&served.addr, ONLY6);
	bits = bpf_map_lookup_elem(&sp_served, &served);
	all = here | (bits ? *bits : 0);
	set_special(&served.addr, 0);
	bits = bpf_map_lookup_elem(&sp_served, &served);
	all |= bits ? *bits : 0;
	replica.netns = flow->netns;
	replica.slot = self->slot;
	others = here & ~(1ull << (self->service & (SERVICES - 1)));
	key->addr = flow->to;
	/* That of its own slot first. */
#pragma clang loop unroll(disable)
	for (k = 0; k < 8 && others; k++) {
		replica.service = lowest(others);
		cgroup = bpf_map_lookup_elem(&sp_replicas, &replica);
		if (cgroup) {
			key->cgroup = *cgroup;
			if (!take_at(ctx, key, random))
				return TAKEN;
		}
		others &= others - 1;
	}
	if (!(all >> (self->service & (SERVICES - 1)) & 1))
		return GO_ON;
	/* Its own service listens there as well: what is chosen from is not for it. */
	others = all & ~(1ull << (self->service & (SERVICES - 1)));
#pragma clang loop unroll(disable)
	for (k = 0; k < 16 && others; k++) {
		replica.service = lowest(others);
		replica.slot = 1 + (k & 3);
		cgroup = bpf_map_lookup_elem(&sp_replicas, &replica);
		if (cgroup) {
			key->cgroup = *cgroup;
			if (!take_any(ctx, key, &flow->to, random))
				return TAKEN;
		}
		if ((k & 3) == 3)
			others &= others - 1;
	}
	return REFUSED;
}

/* Whether a datagram comes from a port that its program has asked for by number: then it may be a server's answer, and who
 * gets it is no server. */
static __always_inline int is_numbered(struct bind_key key, const struct addr *from, __u16 port)
{
	key.slot = 0;
	key.port = port;
	key.addr = *from;
	if (bpf_map_lookup_elem(&sp_slots, &key))
		return 1;
	if (is_v4(from))
		key.addr.w[3] = 0;
	else
		set_special(&key.addr, ONLY6);
	if (bpf_map_lookup_elem(&sp_slots, &key))
		return 1;
	set_special(&key.addr, 0);
	return bpf_map_lookup_elem(&sp_slots, &key) != 0;
}

static __always_inline enum found ask_own(struct bpf_sk_lookup *ctx, struct flow_key *flow, __u32 random)
{
	struct bind_key key = { .port = flow->to_port, .protocol = flow->protocol };
	struct addr from = flow->from;
	__u64 *origin;

	/* Datagrams were noted before their source was known. */
	if (flow->protocol == IPPROTO_UDP)
		set_special(&flow->from, 0);
	origin = bpf_map_lookup_elem(&sp_origins, flow);
	flow->from = from;
	if (!origin)
		return GO_ON;
	key.cgroup = *origin;
	key.netns = flow->netns;
	if (!take_any(ctx, &key, &flow->to, random))
		return TAKEN;
	if (flow->protocol == IPPROTO_UDP && is_numbered(key, &from, flow->from_port))
		return ANSWER;
	if (!is_loopback(&flow->to))
		return GO_ON;
	return ask_neighbours(ctx, flow, &key, random);
}

static __always_inline void reach_of(struct port *port, const struct addr *to, int is_4, struct reach *reach)
{
	__u32 exact = is_4 ? port->exact4 : port->exact6;

	reach->any = is_4 ? port->any4 : port->any6;
	reach->exact = exact ? exact & groups_at(port, to) : 0;
}

/* All groups whose sockets take packets of a family: a single replica is reached wherever it listens. */
static __always_inline void reach_of_replica(struct port *port, int is_4, struct reach *reach)
{
	reach->exact = is_4 ? port->any4 : port->any6;
	reach->any = is_4 ? port->exact4 : port->exact6;
}

SEC("sk_lookup")
int sameport_lookup(struct bpf_sk_lookup *ctx)
{
	struct pod_port_key name = { .port = FIELD(local_port), .protocol = FIELD(protocol) };
	struct flow_key flow = { .protocol = FIELD(protocol) };
	__u32 zero = 0, endpoint = 0, random, addr;
	int is_4 = FIELD(family) == AF_INET;
	struct wrr_table *table;
	struct reach reach;
	struct port *port;
	struct pod *pod;
	__u64 hash;

	if (is_4) {
		set_v4(&flow.from, FIELD(remote_ip4));
		set_v4(&flow.to, FIELD(local_ip4));
	} else {
		flow.from.w[0] = FIELD(remote_ip6[0]);
		flow.from.w[1] = FIELD(remote_ip6[1]);
		flow.from.w[2] = FIELD(remote_ip6[2]);
		flow.from.w[3] = FIELD(remote_ip6[3]);
		flow.to.w[0] = FIELD(local_ip6[0]);
		flow.to.w[1] = FIELD(local_ip6[1]);
		flow.to.w[2] = FIELD(local_ip6[2]);
		flow.to.w[3] = FIELD(local_ip6[3]);
	}
	flow.from_port = bpf_ntohs((__u16)FIELD(remote_port));
	flow.to_port = FIELD(local_port);
	hash = hash_of(&flow);
	random = hash;
	port = bpf_map_lookup_elem(&sp_ports, &name);
	addr = replica_addr(&flow.to);
	if (!addr && is_inside(&flow.from, &flow.to)) {
		pod = bpf_map_lookup_elem(&sp_pod, &zero);
		if (!pod)
			return SK_PASS;
		flow.netns = pod->netns;
		switch (ask_own(ctx, &flow, random)) {
		case TAKEN:
			return SK_PASS;
		case REFUSED:
			return SK_DROP;
		case ANSWER:
			/* Or a question to a port that is known to be a server's. */
			if (!port || !(port->flags & DECLARED))
				return SK_PASS;
			break;
		case GO_ON:
			break;
		}
	}
	if (!port)
		return SK_PASS;
	if (addr) {
		/* Nobody outside of the pod speaks with a single replica. */
		if (FIELD(ingress_ifindex) != LOOPBACK)
			return SK_DROP;
		reach_of_replica(port, is_4, &reach);
		return enter_replica(ctx, port->number, addr, &reach, random, &endpoint) ? SK_DROP : SK_PASS;
	}
	reach_of(port, &flow.to, is_4, &reach);
	/* None of ours listens there. */
	if (!(reach.exact | reach.any)) {
		if (!(port->flags & (is_4 ? CLOSED4 : CLOSED6)))
			return SK_PASS;
		/* Who is in the pod himself sees what there is, as in a container of its own. */
		if (!(port->flags & SILENT) || FIELD(protocol) != IPPROTO_TCP || is_inside(&flow.from, &flow.to))
			return SK_DROP;
		return take_socket(ctx, port->flags >> 16) ? SK_DROP : SK_PASS;
	}
	if (FIELD(protocol) == IPPROTO_UDP && !go_on(ctx, &hash, &reach, random))
		return SK_PASS;
	table = table_of(port->number);
	if (!table)
		return SK_DROP;
	if (!choose(ctx, port->number, table, &reach, random, &endpoint)) {
		if (FIELD(protocol) == IPPROTO_UDP)
			begin_flow(&hash, endpoint);
		return SK_PASS;
	}
	/* At a port that nobody has declared there may be a client, which we have not seen yet. */
	if (FIELD(protocol) == IPPROTO_UDP)
		return port->flags & DECLARED ? SK_DROP : SK_PASS;
	return wait(ctx, port, table, &reach, &endpoint) ? SK_DROP : SK_PASS;
}

const char LICENSE[] SEC("license") = "GPL";
