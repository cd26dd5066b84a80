/* A replica's own listeners, for connections that it opens itself. Included by the programs that choose, which define
 * CONTEXT and `take_own`. */
#ifndef SAMEPORT_OWN_H
#define SAMEPORT_OWN_H

#include "pod.h"

/* A number below `below`, as even as `random` is, which has 32 bits. */
static __always_inline __u32 scale(__u32 random, __u32 below)
{
	return ((__u64)random * below) >> 32;
}

static __always_inline __u32 ones(__u64 bits)
{
	bits -= (bits >> 1) & 0x5555555555555555ull;
	bits = (bits & 0x3333333333333333ull) + ((bits >> 2) & 0x3333333333333333ull);
	return (((bits + (bits >> 4)) & 0x0f0f0f0f0f0f0f0full) * 0x0101010101010101ull) >> 56;
}

/* The place of the lowest bit. */
static __always_inline __u32 lowest(__u64 bits)
{
	return ones((bits & -bits) - 1);
}

/* The place of the highest bit. */
static __always_inline __u32 highest(__u64 bits)
{
	bits |= bits >> 1;
	bits |= bits >> 2;
	bits |= bits >> 4;
	bits |= bits >> 8;
	bits |= bits >> 16;
	bits |= bits >> 32;
	return ones(bits) - 1;
}

/* Takes one of the listeners at an address of a replica: 0 if it has one. `random` draws one of several. Not inlined, so that
 * the verifier looks at it once. */
__noinline int take_at(CONTEXT *ctx, struct bind_key *at, __u32 random)
{
	__u64 *slots, bits, from;
	struct bind_key key;

	if (!at)
		return -1;
	/* Linux 6.1 takes no keys of maps but from here. */
	key = *at;
	key.slot = 0;
	slots = bpf_map_lookup_elem(&sp_slots, &key);
	bits = slots ? *slots : 0;
	if (!bits)
		return -1;
	if (bits != 1) {
		/* The first one from a place on: slots are given out from 0 on, so each comes about as often. */
		from = bits >> (scale(random, highest(bits) + 1) & 63) << (scale(random, highest(bits) + 1) & 63);
		key.slot = lowest(from ? from : bits) & (SLOTS - 1);
		if (!take_own(ctx, &key))
			return 0;
		/* It has just closed: another one. */
		bits &= ~(1ull << key.slot);
		if (!bits)
			return -1;
	}
	key.slot = lowest(bits) & (SLOTS - 1);
	return take_own(ctx, &key);
}

/* As the kernel looks for a listener where nobody else is: at this address, or at all of them. */
static __always_inline int take_any(CONTEXT *ctx, struct bind_key *key, const struct addr *to, __u32 random)
{
	key->addr = *to;
	if (!take_at(ctx, key, random))
		return 0;
	if (is_v4(to))
		key->addr.w[3] = 0;
	else
		set_special(&key->addr, ONLY6);
	if (!take_at(ctx, key, random))
		return 0;
	set_special(&key->addr, 0);
	return take_at(ctx, key, random);
}

#endif
