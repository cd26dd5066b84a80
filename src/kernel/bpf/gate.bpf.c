/* Keeps a pod's port shut until its listeners are chosen by us: between `listen` of the first one and the moment at
 * which the choice is attached to it, the kernel would give it connections that it is not ready for. */
#include "sameport.h"

/* Of which pod this instance of the program is; set when it is loaded. */
const volatile __u32 POD = 0;

SEC("sk_lookup")
int sameport_gate(struct bpf_sk_lookup *ctx)
{
	struct gate_key key = {
		.pod = POD,
		.port = ctx->local_port,
		.protocol = ctx->protocol,
		.family = ctx->family,
	};

	return bpf_map_lookup_elem(&sameport_shut, &key) ? SK_DROP : SK_PASS;
}

const char LICENSE[] SEC("license") = "GPL";
