/* Chooses the listener of each new TCP connection, and the new one of each connection whose listener closes before it
 * was accepted. Whatever it does not choose is refused: the kernel's own choice would know nothing of readiness. */
#include "choice.h"

/* Of how many the one with the fewest connections is taken: of all where there are so few, else of this many that lie
 * apart by a step that is another one each time. */
#define CANDIDATES 4

/* A handshake that nobody finishes is never heard of again: half of those that are expected are forgotten after so many
 * jiffies, which are 0.26 s to 2.6 s (HZ is 1000 to 100). A clock would cost more. */
#define FORGET 256

static __always_inline void forget(struct counts *c)
{
	__u64 now = bpf_jiffies64();

	if (now - c->halved <= FORGET)
		return;
	c->halved = now;
	c->expected = c->expected > 0 ? c->expected >> 1 : 0;
}

/* When a replica should be done with what it works on, if that takes as long as what it ended last. One that is long
 * overdue may hold connections that stay, of which nothing can be told. */
static __always_inline __u32 due(struct counts *c)
{
	return c->began + c->took;
}

static __always_inline struct counts *least_loaded(struct table *t, __u32 size, __u32 from, __u32 random, __u32 *endpoint)
{
	__u32 step = 1 + (size > CANDIDATES ? scale(random, size / CANDIDATES) : 0);
	__u32 best_weight = 1, best_due = 0;
	struct counts *best = 0;
	__s64 best_load = 0;
	int k;

	/* Four copies of this took longer than one four times, where it was measured: presumably each packet's way through the
	 * kernel drives them out of the nearest cache. */
#pragma clang loop unroll(disable)
	for (k = 0; k < CANDIDATES; k++) {
		__u32 place = at_wheel(t, size, from + (k < size ? k : 0) * step);
		__u32 candidate = ENDPOINT_OF(place), weight = WEIGHT_OF(place);
		struct counts *c = bpf_map_lookup_elem(&sameport_counts, &candidate);
		__s64 load, ours, theirs;
		if (!c)
			continue;
		/* Each is the first one in its turn. */
		if (k == 0)
			forget(c);
		load = c->unfinished + c->expected;
		/* load / weight < best_load / best_weight. Among equals the one that should be done first, and else the first,
		 * which goes round by weight. */
		ours = load * best_weight;
		theirs = best_load * weight;
		if (!best || ours < theirs || (ours == theirs && load && (__s32)(due(c) - best_due) < 0)) {
			*endpoint = candidate;
			best = c;
			best_weight = weight;
			best_load = load;
			best_due = due(c);
		}
	}
	return best;
}

/* A handshake begins, or goes on, at a replica: connections that come at the same time must not all go to the one that has
 * the fewest before any of them is open. */
static __always_inline void expect(struct sk_reuseport_md *ctx, struct counts *c)
{
	struct bpf_sock *moving = ctx->migrating_sk;

	if (!moving || moving->state == BPF_TCP_NEW_SYN_RECV)
		__sync_fetch_and_add(&c->expected, 1);
}

static __always_inline int choose(struct sk_reuseport_md *ctx, struct table *t, __u32 *endpoint)
{
	struct counts *c;
	__u32 size = t->size, at;
	int k;

	if (!size || size > WHEEL)
		return -1;
	at = begin(ctx, t, size);
	if (t->policy == LEAST_CONNECTIONS) {
		c = least_loaded(t, size, at, ctx->hash, endpoint);
		if (c && !enter(ctx, *endpoint, ctx->hash)) {
			expect(ctx, c);
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
