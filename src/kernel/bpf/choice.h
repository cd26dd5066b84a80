/* How one of a port's listeners is found: included by the programs that choose. */
#ifndef SAMEPORT_CHOICE_H
#define SAMEPORT_CHOICE_H

#include "sameport.h"

/* Of which port and door this instance of the program is; set when it is loaded. */
const volatile __u32 PORT = 0;
const volatile __u32 DOOR = 0;

/* Where on the wheel each processor is; or, by lot, what it drew last. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, PORTS);
	PINNED;
} sameport_spins SEC(".maps");

/* A listener that has closed leaves a hole: then another one of the port is taken, until user space has mended the
 * wheel. */
#define TRIES 8

static __always_inline struct table *table_of_port(void)
{
	__u32 port = PORT, at;
	__u32 *turn = bpf_map_lookup_elem(&sameport_turns, &port);

	if (!turn)
		return 0;
	at = 2 * port + (*turn & 1);
	return bpf_map_lookup_elem(&sameport_tables, &at);
}

/* What is at a place of the wheel, which goes round once at most. A division would cost more than all the rest. */
static __always_inline __u32 at_wheel(struct table *t, __u32 size, __u32 place)
{
	if (place >= size)
		place -= size;
	/* Else the compiler leaves out what the verifier wants to see. */
	asm volatile("" : "+r"(place));
	return t->wheel[place & (WHEEL - 1)];
}

/* A number below `below`, as even as `random` is, which has 32 bits. */
static __always_inline __u32 scale(__u32 random, __u32 below)
{
	return ((__u64)random * below) >> 32;
}

/* The place from which on is looked: the next one of the wheel, one by hash, or one by lot. The lot is a linear
 * congruential sequence (Numerical Recipes), begun with the hash: the kernel's own costs more than the rest of the
 * choice, and nobody gains by guessing. */
static __always_inline __u32 begin(struct sk_reuseport_md *ctx, struct table *t, __u32 size)
{
	__u32 port = PORT, place;
	__u32 *spins;

	if (t->policy == HASH)
		return scale(ctx->hash, size);
	spins = bpf_map_lookup_elem(&sameport_spins, &port);
	if (!spins)
		return 0;
	if (t->policy == RANDOM) {
		*spins = (*spins ^ ctx->hash) * 1664525 + 1013904223;
		return scale(*spins, size);
	}
	place = *spins < size ? *spins : 0;
	*spins = place + 1;
	return place;
}

static __always_inline int enter_at(struct sk_reuseport_md *ctx, struct endpoint *e, __u32 at)
{
	__u32 door = DOOR & (DOORS - 1), index;

	if (at >= LISTENERS_OF_DOOR)
		return -1;
	index = e->doors[door].listeners[at];
	return bpf_sk_select_reuseport(ctx, &sameport_socks, &index, 0);
}

/* Gives the packet to a listener of an endpoint; not 0 if there is none. A replica may have several, such as one for
 * each worker: `random` draws one. */
static __always_inline int enter(struct sk_reuseport_md *ctx, __u32 endpoint, __u32 random)
{
	struct endpoint *e = bpf_map_lookup_elem(&sameport_ends, &endpoint);
	__u32 n, at;

	if (!e)
		return -1;
	n = e->doors[DOOR & (DOORS - 1)].count;
	if (!n)
		return -1;
	if (n == 1)
		return enter_at(ctx, e, 0);
	at = scale(random, n);
	if (!enter_at(ctx, e, at))
		return 0;
	return enter_at(ctx, e, at ? at - 1 : n - 1);
}

/* The single replica that a packet to one of our addresses means: 1 if it is to such an address. */
static __always_inline int to_own(struct sk_reuseport_md *ctx, __u32 *address)
{
	__u32 to;

	if (ctx->eth_protocol != bpf_htons(0x0800))
		return 0;
	if (bpf_skb_load_bytes_relative(ctx, 16, &to, sizeof(to), BPF_HDR_START_NET))
		return 0;
	*address = bpf_ntohl(to);
	return is_own(*address);
}

static __always_inline int enter_own(struct sk_reuseport_md *ctx, __u32 address, __u32 *endpoint)
{
	struct own_key key = { .port = PORT, .address = address };
	__u32 *found = bpf_map_lookup_elem(&sameport_own, &key);

	if (!found)
		return -1;
	*endpoint = *found;
	return enter(ctx, *found, bpf_get_prandom_u32());
}

#endif
