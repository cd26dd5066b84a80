/* Whose a process or a socket is: the control group of its replica. */
#ifndef SAMEPORT_OWNER_H
#define SAMEPORT_OWNER_H

#include "sameport.h"
#include <bpf/bpf_core_read.h>

/* How deep below the root control groups are looked for. */
#define LEVELS 16

struct kernfs_node___x {
	__u64 id;
} __attribute__((preserve_access_index));
struct cgroup_subsys_state___x {
	struct cgroup_subsys_state___x *parent;
} __attribute__((preserve_access_index));
/* A control group begins with its own state, and so its parent's state is its parent. */
struct cgroup___x {
	struct cgroup_subsys_state___x self;
	struct kernfs_node___x *kn;
} __attribute__((preserve_access_index));
struct sock_cgroup_data___x {
	struct cgroup___x *cgroup;
} __attribute__((preserve_access_index));
struct sock_common___x {
	unsigned char skc_ipv6only : 1;
} __attribute__((preserve_access_index));
struct sock___x {
	struct sock_common___x __sk_common;
	struct sock_cgroup_data___x sk_cgrp_data;
} __attribute__((preserve_access_index));

/* The replica's group, if `group` is one or is known to be below one. */
static __always_inline __u64 known_owner(__u64 group)
{
	__u64 *above;

	if (bpf_map_lookup_elem(&sp_cgroups, &group))
		return group;
	above = bpf_map_lookup_elem(&sp_subgroups, &group);
	/* That replica may have ended; its group's id is never used again. */
	return above && bpf_map_lookup_elem(&sp_cgroups, above) ? *above : 0;
}

static __always_inline int is_supervisor(__u64 group)
{
	return bpf_map_lookup_elem(&sp_supervisors, &group) != 0;
}

/* The owner of the process that calls. One that we were not told of yet owns what it has in its own group's name: that is
 * what we are told of as a rule. */
static __always_inline __u64 current_owner(void)
{
	__u64 group = bpf_get_current_cgroup_id(), owner = known_owner(group);
	int level;

	if (owner)
		return owner;
#pragma clang loop unroll(disable)
	for (level = 1; level < LEVELS; level++) {
		__u64 above = bpf_get_current_ancestor_cgroup_id(level);

		if (!above || above == group)
			break;
		if (bpf_map_lookup_elem(&sp_cgroups, &above)) {
			bpf_map_update_elem(&sp_subgroups, &group, &above, BPF_ANY);
			return above;
		}
	}
	return group;
}

/* The owner of a TCP socket: of who made it, whoever has it now. */
static __always_inline __u64 owner_of(struct bpf_sock *sk)
{
	struct sock___x *sock = (void *)bpf_skc_to_tcp_sock(sk);
	struct cgroup___x *cgroup;
	__u64 group, owner;
	int level;

	if (!sock)
		return 0;
	cgroup = sock->sk_cgrp_data.cgroup;
	group = cgroup->kn->id;
	owner = known_owner(group);
	if (owner)
		return owner;
#pragma clang loop unroll(disable)
	for (level = 1; level < LEVELS; level++) {
		__u64 above;

		cgroup = (void *)BPF_CORE_READ(cgroup, self.parent);
		if (!cgroup)
			break;
		above = BPF_CORE_READ(cgroup, kn, id);
		if (bpf_map_lookup_elem(&sp_cgroups, &above)) {
			bpf_map_update_elem(&sp_subgroups, &group, &above, BPF_ANY);
			return above;
		}
	}
	return group;
}

/* Whether an IPv6 socket takes no IPv4 (IPV6_V6ONLY). */
static __always_inline int is_only6(struct bpf_sock *sk, int is_udp)
{
	struct sock___x *sock =
		is_udp ? (void *)bpf_skc_to_udp6_sock(sk) : (void *)bpf_skc_to_tcp6_sock(sk);

	return sock ? BPF_CORE_READ_BITFIELD(sock, __sk_common.skc_ipv6only) : 0;
}

#endif
