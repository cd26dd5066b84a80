/* How one of a port's listeners is chosen. Included by the programs that choose, which define CONTEXT, `take_socket`, and
 * which connections the chosen replica has to expect (`is_expected`). Whatever is not chosen is refused: the kernel's own
 * choice would know nothing of readiness. */
#ifndef SAMEPORT_CHOICE_H
#define SAMEPORT_CHOICE_H

#include "own.h"

/* A listener that has closed leaves a hole: then another one of the port is taken, until user space has mended the
 * table. */
#define TRIES 8

/* Of how many the one with the fewest connections is taken: of all where there are so few, else of this many that lie
 * apart by a step that is another one each time. */
#define CANDIDATES 4

/* A handshake that nobody finishes is never heard of again: half of those that are expected are forgotten after so many
 * jiffies, which are 0.26 s to 2.6 s (HZ is 1000 to 100). A clock would cost more. */
#define FORGET 256

/* The groups of a port, as bits, that a packet can be given to. */
struct reach {
	__u32 exact; /* those of just its address */
	__u32 any;
};

/* 1 if they are equal, without a branch: the verifier looks at each way through a program. */
static __always_inline __u32 equal(const struct addr *a, const struct addr *b)
{
	__u64 differ = (a->w[0] ^ b->w[0]) | (a->w[1] ^ b->w[1]) | (a->w[2] ^ b->w[2]) | (a->w[3] ^ b->w[3]);

	return (differ - 1) >> 63;
}

/* The groups of a port whose address is this one, as bits; only those of one address have one. */
static __always_inline __u32 groups_at(struct port *port, const struct addr *addr)
{
	__u32 found = 0;
	int k;

#pragma clang loop unroll(full)
	for (k = 0; k < GROUPS; k++)
		found |= equal(&port->addrs[k], addr) << k;
	return found;
}

static __always_inline struct wrr_table *table_of(__u32 port)
{
	__u32 *active = bpf_map_lookup_elem(&sp_active, &port), at;

	if (!active)
		return 0;
	at = 2 * port + (*active & 1);
	return bpf_map_lookup_elem(&sp_wrr_tables, &at);
}

/* What is at a place of the table, which goes round once at most. A division would cost more than all the rest. */
static __always_inline __u32 at_place(struct wrr_table *t, __u32 size, __u32 place)
{
	if (place >= size)
		place -= size;
	/* Else the compiler leaves out what the verifier wants to see. */
	asm volatile("" : "+r"(place));
	return t->places[place & (WRR_TABLE - 1)];
}

/* The place from which on is looked: the next one of the table, one by hash, or a random one. That is a linear
 * congruential sequence (Numerical Recipes), begun with the hash: the kernel's own costs more than the rest of the
 * choice, and nobody gains by guessing. */
static __always_inline __u32 begin(__u32 port, struct wrr_table *t, __u32 size, __u32 hash)
{
	__u32 *cursor, place;

	if (t->policy == HASH)
		return scale(hash, size);
	cursor = bpf_map_lookup_elem(&sp_rr_cursors, &port);
	if (!cursor)
		return 0;
	if (t->policy == RANDOM) {
		*cursor = (*cursor ^ hash) * 1664525 + 1013904223;
		return scale(*cursor, size);
	}
	place = *cursor < size ? *cursor : 0;
	*cursor = place + 1;
	return place;
}

static __always_inline int enter_at(CONTEXT *ctx, struct endpoint *e, __u32 at)
{
	__u32 index;

	if (at >= LISTENERS_OF_ENDPOINT)
		return -1;
	index = e->listeners[at];
	return take_socket(ctx, index);
}

/* Gives the packet to a listener of an endpoint; not 0 if there is none. A replica may have several, such as one for
 * each worker: `random` draws one. Not inlined, so that the verifier looks at it once. */
__noinline int enter_groups(CONTEXT *ctx, __u32 endpoint, __u32 exact, __u32 any, __u32 random)
{
	struct endpoint *e = bpf_map_lookup_elem(&sp_endpoints, &endpoint);
	__u32 groups, first, n, at;

	if (!e)
		return -1;
	groups = e->present & exact;
	if (!groups)
		groups = e->present & any;
	if (!groups)
		return -1;
	groups = lowest(groups) & (GROUPS - 1);
	first = e->groups[groups].first;
	n = e->groups[groups].count;
	if (n <= 1)
		return n ? enter_at(ctx, e, first) : -1;
	at = scale(random, n);
	if (!enter_at(ctx, e, first + at))
		return 0;
	return enter_at(ctx, e, first + (at ? at - 1 : n - 1));
}

static __always_inline int enter(CONTEXT *ctx, __u32 endpoint, const struct reach *reach, __u32 random)
{
	return enter_groups(ctx, endpoint, reach->exact, reach->any, random);
}

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

static __always_inline struct counts *least_loaded(struct wrr_table *t, __u32 size, __u32 from, __u32 random,
						   __u32 *endpoint)
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
		__u32 place = at_place(t, size, from + (k < size ? k : 0) * step);
		__u32 candidate = ENDPOINT_OF(place), weight = WEIGHT_OF(place);
		struct counts *c = bpf_map_lookup_elem(&sp_counts, &candidate);
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

/* Chooses one of those who are ready: not 0 if there is none. */
static __always_inline int choose(CONTEXT *ctx, __u32 port, struct wrr_table *t, const struct reach *reach, __u32 hash,
				  __u32 *endpoint)
{
	__u32 size = t->size, at;
	struct counts *c;
	int k;

	if (!size || size > WRR_TABLE)
		return -1;
	at = begin(port, t, size, hash);
	if (t->policy == LEAST_CONNECTIONS) {
		c = least_loaded(t, size, at, hash, endpoint);
		if (c && !enter(ctx, *endpoint, reach, hash)) {
			/* Connections that come at the same time must not all go to the one that has the fewest before any of
			 * them is open. */
			if (is_expected(ctx))
				__sync_fetch_and_add(&c->expected, 1);
			return 0;
		}
	}
#pragma clang loop unroll(disable)
	for (k = 0; k < TRIES; k++) {
		*endpoint = ENDPOINT_OF(at_place(t, size, at + (k < size ? k : 0)));
		if (!enter(ctx, *endpoint, reach, hash))
			return 0;
	}
	return -1;
}

/* Lets a connection wait until a replica is ready: not 0 if it cannot. */
static __always_inline int wait(CONTEXT *ctx, struct port *port, struct wrr_table *t, const struct reach *reach,
				__u32 *endpoint)
{
	struct counts *c;

	*endpoint = port->hold;
	c = bpf_map_lookup_elem(&sp_counts, endpoint);
	if (!c)
		return -1;
	if (c->live < t->hold) {
		if (!enter(ctx, *endpoint, reach, 0))
			return 0;
		/* It was just replaced: the next one was told of before it closed. */
		if (!enter(ctx, *endpoint, reach, 0))
			return 0;
	}
	__sync_fetch_and_add(&c->reset, 1);
	return -1;
}

static __always_inline int enter_replica(CONTEXT *ctx, __u32 port, __u32 addr, const struct reach *reach, __u32 random,
					 __u32 *endpoint)
{
	struct replica_addr_key key = { .port = port, .addr = addr };
	__u32 *found = bpf_map_lookup_elem(&sp_replica_addr, &key);

	if (!found)
		return -1;
	*endpoint = *found;
	return enter(ctx, *found, reach, random);
}

#endif
