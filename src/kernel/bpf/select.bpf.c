/* Chooses the listener of each new TCP connection, and the new one of each connection whose listener closes before it
 * was accepted. Whatever it does not choose is refused: the kernel's own choice would know nothing of readiness. */
#include "choice.h"

/* Of how many the one with the fewest connections is taken: of all where there are so few, else of this many that lie
 * apart by a step that is another one each time. */
#define CANDIDATES 4

/* A handshake that nobody finishes is never heard of again: half of those that are expected are forgotten each second. */
#define FORGET 1000000000ull

static __always_inline __s64 load_of(struct counts *c, __u64 now)
{
	if (now - c->halved > FORGET) {
		c->halved = now;
		c->expected = c->expected > 0 ? c->expected >> 1 : 0;
	}
	return c->unfinished + c->expected;
}

/* How long it may be until a replica is done with what it works on, if that takes as long as the last one did. Of one
 * that has taken twice as long nothing can be told: it may hold connections that stay. */
static __always_inline __u32 time_left(struct counts *c, __u64 now)
{
	__u32 took = c->took, since = ticks(now) - c->began;

	if (since > 2 * took)
		return 0;
	return since > took ? since - took : took - since;
}

/* The replica with the fewest connections, and when it was chosen. */
struct least {
	struct counts *counts;
	__u64 now;
};

static __always_inline __u32 least_loaded(struct table *t, __u32 size, __u32 from, __u32 random, struct least *least)
{
	__u32 step = 1 + (size > CANDIDATES ? scale(random, size / CANDIDATES) : 0);
	__u32 best = 0, best_weight = 1, best_left = 0;
	__u64 now = bpf_ktime_get_ns();
	__s64 best_load = 0;
	int k;

	least->now = now;
#pragma unroll
	for (k = 0; k < CANDIDATES; k++) {
		__u32 place = at_wheel(t, size, from + (k < size ? k : 0) * step);
		__u32 candidate = ENDPOINT_OF(place), weight = WEIGHT_OF(place);
		struct counts *c = bpf_map_lookup_elem(&sameport_counts, &candidate);
		__s64 load, ours, theirs;
		__u32 left;

		if (!c)
			continue;
		load = load_of(c, now);
		left = load ? time_left(c, now) : 0;
		/* load / weight < best_load / best_weight. Among equals the one that should be done first, and else the first,
		 * which goes round by weight. */
		ours = load * best_weight;
		theirs = best_load * weight;
		if (k == 0 || ours < theirs || (ours == theirs && left < best_left)) {
			best = candidate;
			best_weight = weight;
			best_load = load;
			best_left = left;
			least->counts = c;
		}
	}
	return best;
}

/* A handshake begins, or goes on, at a replica: connections that come at the same time must not all go to the one that has
 * the fewest before any of them is open. */
static __always_inline void expect(struct sk_reuseport_md *ctx, struct least *least)
{
	struct counts *c = least->counts;
	struct bpf_sock *moving = ctx->migrating_sk;

	if (!c || (moving && moving->state != BPF_TCP_NEW_SYN_RECV))
		return;
	if (c->unfinished + c->expected <= 0)
		c->began = ticks(least->now);
	__sync_fetch_and_add(&c->expected, 1);
}

static __always_inline int choose(struct sk_reuseport_md *ctx, struct table *t, __u32 *endpoint)
{
	struct least least = {};
	__u32 size = t->size, at;
	int k;

	if (!size || size > WHEEL)
		return -1;
	at = begin(ctx, t, size);
	if (t->policy == LEAST_CONNECTIONS) {
		*endpoint = least_loaded(t, size, at, ctx->hash, &least);
		if (!enter(ctx, *endpoint, ctx->hash)) {
			expect(ctx, &least);
			return 0;
		}
	}
#pragma clang loop unroll(disable)
	for (k = 0; k < TRIES; k++) {
		*endpoint = ENDPOINT_OF(at_wheel(t, size, at + (k < size ? k : 0)));
		if (!enter(ctx, *endpoint, ctx->hash))
			return 0;
	}
	return -1;
}

static __always_inline int wait(struct sk_reuseport_md *ctx, struct table *t, __u32 *endpoint)
{
	struct counts *c;

	*endpoint = HOLD_OF(PORT);
	c = bpf_map_lookup_elem(&sameport_counts, endpoint);
	if (!c || c->live >= t->hold)
		return -1;
	if (!enter(ctx, *endpoint, 0))
		return 0;
	/* It was just replaced: the next one was told of before it closed. */
	return enter(ctx, *endpoint, 0);
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
	moved = bpf_map_lookup_elem(&sameport_moved, &cookie);
	if (moved) {
		from = *moved;
	} else {
		cookie = bpf_get_socket_cookie(ctx->sk);
		closed = bpf_map_lookup_elem(&sameport_known, &cookie);
		if (!closed)
			return;
		from = closed->endpoint;
		cookie = bpf_get_socket_cookie(moving);
	}
	if (from == to || bpf_map_update_elem(&sameport_moved, &cookie, &to, BPF_ANY))
		return;
	count(from, -1);
	count(to, 1);
	/* Nobody has accepted it, and so nobody has finished it. */
	count_unfinished(from, -1);
	count_unfinished(to, 1);
}

SEC("sk_reuseport/migrate")
int sameport_select(struct sk_reuseport_md *ctx)
{
	struct bpf_sock *moving = ctx->migrating_sk;
	struct table *t;
	__u32 endpoint = 0, address;

	/* Whoever wanted one replica is not served by another. */
	if (moving && is_own(bpf_ntohl(moving->src_ip4)))
		return SK_DROP;
	if (!moving && to_own(ctx, &address))
		return enter_own(ctx, address, &endpoint) ? SK_DROP : SK_PASS;
	t = table_of_port();
	if (!t)
		return SK_DROP;
	if (choose(ctx, t, &endpoint) && wait(ctx, t, &endpoint)) {
		count_reset(HOLD_OF(PORT));
		return SK_DROP;
	}
	if (moving)
		recount(ctx, moving, endpoint);
	return SK_PASS;
}

const char LICENSE[] SEC("license") = "GPL";
