/* Chooses the socket of each UDP datagram: that of its flow, as long as its replica lives, else one by the wheel. */
#include "choice.h"

/* The replica of each flow. The kernel's hash of the four addresses stands for the flow: two with the same one go to
 * the same replica, and nothing is lost by that. Those that were not used for long make room. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct flow_key);
	__type(value, __u32);
	__uint(max_entries, 65536);
} sameport_flows SEC(".maps");

/* As often as the time of the last datagram is noted. */
#define NOTE_AGAIN 10000000ull /* ns */

static __always_inline void note(__u32 endpoint, int is_new)
{
	struct counts *c = bpf_map_lookup_elem(&sameport_counts, &endpoint);
	__u64 now;

	if (!c)
		return;
	if (is_new)
		__sync_fetch_and_add(&c->total, 1);
	now = bpf_ktime_get_coarse_ns();
	if (now - c->last > NOTE_AGAIN)
		c->last = now;
}

SEC("sk_reuseport")
int sameport_flow(struct sk_reuseport_md *ctx)
{
	struct flow_key key = { .port = PORT, .hash = ctx->hash };
	__u32 endpoint = 0, address, size, at;
	struct table *t;
	__u32 *known;
	int k;

	if (to_own(ctx, &address))
		return enter_own(ctx, address, &endpoint) ? SK_DROP : SK_PASS;
	known = bpf_map_lookup_elem(&sameport_flows, &key);
	if (known && !enter(ctx, *known, ctx->hash)) {
		note(*known, 0);
		return SK_PASS;
	}
	t = table_of_port();
	if (!t)
		return SK_DROP;
	size = t->size;
	if (!size || size > WHEEL)
		return SK_DROP;
	at = begin(ctx, t, size);
#pragma clang loop unroll(disable)
	for (k = 0; k < TRIES; k++) {
		endpoint = ENDPOINT_OF(at_wheel(t, size, at + (k < size ? k : 0)));
		if (enter(ctx, endpoint, ctx->hash))
			continue;
		bpf_map_update_elem(&sameport_flows, &key, &endpoint, BPF_ANY);
		note(endpoint, 1);
		return SK_PASS;
	}
	return SK_DROP;
}

const char LICENSE[] SEC("license") = "GPL";
