/* Sharing. SO_REUSEPORT is set before the kernel looks whether a port is taken, so that replicas share it. It compares users,
 * too: user space makes a newcomer's user that of all sockets on the port. Of TCP that leaves connections out, which are none
 * of the newcomer's business if both sides have SO_REUSEADDR: it is set as well. Within a replica a port that is taken stays
 * so (EADDRINUSE), as it is where nobody else is: what is bound there is counted by address, and compared by the kernel's own
 * rules (inet_csk_bind_conflict, udp_lib_lport_inuse). */

/* Whether what is bound keeps out a socket whose program has set SO_REUSEPORT (`asked`), or SO_REUSEADDR. */
static __always_inline int keeps_out(const struct binds *b, int asked, int reuse)
{
	return b->sockets[0] > 0 || (!asked && b->sockets[ASKED] > 0) || (!reuse && b->sockets[SOFT] > 0) ||
	       (!asked && !reuse && b->sockets[ASKED | SOFT] > 0);
}

static __always_inline int is_taken(struct bind_key *key, int asked, int reuse)
{
	struct binds *b = bpf_map_lookup_elem(&sp_binds, key);

	return b ? keeps_out(b, asked, reuse) : 0;
}

/* The sockets of all replicas on one exclusive port. */
static __always_inline void exclusive_key(struct bind_key *key, __u64 netns, __u16 port, __u8 protocol)
{
	__builtin_memset(key, 0, sizeof(*key));
	/* No control group has such an id. */
	key->cgroup = ~netns;
	key->port = port;
	key->protocol = protocol;
}

static __always_inline int is_exclusive_key(const struct bind_key *key)
{
	return key->cgroup >> 63;
}

static __always_inline void count_bind(struct bind_key *key, __u32 kind, int by)
{
	struct binds none = {}, *b;

	if (by > 0)
		bpf_map_update_elem(&sp_binds, key, &none, BPF_NOEXIST);
	b = bpf_map_lookup_elem(&sp_binds, key);
	if (!b)
		return;
	__sync_fetch_and_add(&b->sockets[kind & 3], by);
	if (by < 0 && is_exclusive_key(key)) {
		if (b->sockets[0] <= 0)
			bpf_map_delete_elem(&sp_binds, key);
	} else if (by < 0 && !(b->sockets[0] | b->sockets[1] | b->sockets[2] | b->sockets[3]))
		bpf_map_delete_elem(&sp_binds, key);
}

static __always_inline void count_mark(struct bind_mark *mark, int by)
{
	struct bind_key key = mark->key;

	count_bind(&key, mark->kind, by);
	set_special(&key.addr, is_v4(&mark->key.addr) ? ALL4 : ALL6);
	count_bind(&key, mark->kind, by);
}

/* Counts a socket that is about to be bound, and tells what was there before: of several that want the same at the same time
 * one is the first. */
static __always_inline void reserve(struct bind_key *key, __u32 kind, struct binds *before)
{
	struct binds none = {}, *b;
	__s32 was;

	*before = none;
	bpf_map_update_elem(&sp_binds, key, &none, BPF_NOEXIST);
	b = bpf_map_lookup_elem(&sp_binds, key);
	if (!b)
		return;
	was = __sync_fetch_and_add(&b->sockets[kind & 3], 1);
	*before = *b;
	before->sockets[kind & 3] = was;
}

/* Reserves an address for a socket within its replica: not 0 if something that is bound there keeps it out. */
static __always_inline int is_taken_within(struct bind_mark *mark, int asked)
{
	struct bind_key key = mark->key;
	struct binds here, all;
	int reuse = mark->reuse, taken;

	reserve(&key, mark->kind, &here);
	set_special(&key.addr, is_v4(&mark->key.addr) ? ALL4 : ALL6);
	reserve(&key, mark->kind, &all);
	if (is_v4(&mark->key.addr)) {
		if (!mark->key.addr.w[3]) {
			taken = keeps_out(&all, asked, reuse);
		} else {
			taken = keeps_out(&here, asked, reuse);
			set_v4(&key.addr, 0);
			taken |= is_taken(&key, asked, reuse);
		}
		set_special(&key.addr, 0); /* `::`, which takes IPv4 as well */
		taken |= is_taken(&key, asked, reuse);
	} else if (mark->key.addr.w[0] == ONLY6) {
		taken = keeps_out(&all, asked, reuse);
	} else if (is_any6(&mark->key.addr)) {
		taken = keeps_out(&all, asked, reuse);
		set_special(&key.addr, ALL4);
		taken |= is_taken(&key, asked, reuse);
	} else {
		taken = keeps_out(&here, asked, reuse);
		set_special(&key.addr, 0);
		taken |= is_taken(&key, asked, reuse);
		set_special(&key.addr, ONLY6);
		taken |= is_taken(&key, asked, reuse);
	}
	return taken;
}

static __always_inline void quota_key(struct bind_key *key, __u64 cgroup)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->cgroup = cgroup;
	set_special(&key->addr, QUOTA);
}

static __always_inline void count_socket(struct bind_mark *mark, int by)
{
	struct bind_key quota;

	mark->counted = by > 0;
	if (is_exclusive_key(&mark->key)) {
		struct bind_key key = mark->key;

		count_bind(&key, 0, by);
		return;
	}
	count_mark(mark, by);
	quota_key(&quota, mark->key.cgroup);
	count_bind(&quota, 0, by);
}

static __always_inline int is_exclusive(const struct port_key *port)
{
	struct port_key key = { .netns = port->netns, .port = port->port >> 6, .protocol = port->protocol };
	__u64 *bits = bpf_map_lookup_elem(&sp_exclusive, &key);

	return bits && *bits >> (port->port & 63) & 1;
}

/* Takes an exclusive port for a replica: not 0 if another one has it. The kernel alone would let both bind where they set
 * SO_REUSEADDR, and refuse the second one that listens, which few programs expect. */
static __always_inline int is_held_by_another(struct bind_key *key, __u64 owner)
{
	struct binds none = {}, *b;
	__u64 holder;

	bpf_map_update_elem(&sp_binds, key, &none, BPF_NOEXIST);
	b = bpf_map_lookup_elem(&sp_binds, key);
	if (!b)
		return 0;
	/* Whose they are is in place of counts that an exclusive port does not have. */
	holder = __sync_val_compare_and_swap((__u64 *)&b->sockets[2], 0, owner);
	if (holder && holder != owner)
		return 1;
	__sync_fetch_and_add(&b->sockets[0], 1);
	return 0;
}

/* Whether an address is none of the network's: the kernel refuses it for that, whatever else is bound. */
static __always_inline int is_foreign(const struct bind_key *key)
{
	struct served_key local = { .netns = key->netns, .addr = key->addr };

	if (is_v4(&key->addr))
		return key->addr.w[3] && !is_loopback(&key->addr) && !bpf_map_lookup_elem(&sp_local, &local);
	if (is_any6(&key->addr) || key->addr.w[0] == ONLY6)
		return 0;
	return !bpf_map_lookup_elem(&sp_local, &local);
}

static __always_inline int share(struct bpf_sock_addr *ctx, struct bind_key *key, int only6)
{
	struct port_key port = { .port = bpf_ntohs(ctx->user_port), .protocol = ctx->protocol };
	struct bind_mark new = {}, *mark;
	struct bpf_sock *sk = ctx->sk;
	struct bind_key other;
	struct binds *b;
	__u32 *user, me;
	int one = 1, asked = 0, reuse = 0;

	/* Port 0 asks for one that nobody has: that must not be a shared one. */
	if (!sk || !port.port || (port.protocol != IPPROTO_TCP && port.protocol != IPPROTO_UDP))
		return 1;
	port.netns = bpf_get_netns_cookie(ctx);
	if (!bpf_map_lookup_elem(&sp_pods, &port.netns))
		return 1;
	mark = bpf_sk_storage_get(&sp_bind_marks, sk, 0, 0);
	if (mark && mark->counted) {
		/* It is bound already: the kernel says so. */
		if (sk->src_port)
			return 1;
		/* The kernel has refused it before. */
		count_socket(mark, -1);
	}
	key->cgroup = current_owner();
	key->port = port.port;
	key->protocol = port.protocol;
	key->netns = port.netns;
	if (is_supervisor(key->cgroup)) {
		bpf_setsockopt(ctx, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
		return 1;
	}
	if (is_exclusive(&port)) {
		exclusive_key(&new.key, port.netns, port.port, port.protocol);
		new.counted = 1;
		if (is_held_by_another(&new.key, key->cgroup)) {
			tell(port.netns, key->cgroup, EVENT_EXCLUSIVE, port.port, port.protocol, 0);
			bpf_set_retval(-EADDRINUSE);
			return 0;
		}
		if (mark)
			*mark = new;
		else if (!bpf_sk_storage_get(&sp_bind_marks, sk, &new, BPF_SK_STORAGE_GET_F_CREATE))
			count_bind(&new.key, 0, -1);
		return 1;
	}
	quota_key(&other, key->cgroup);
	b = bpf_map_lookup_elem(&sp_binds, &other);
	if (b && b->sockets[0] >= SOCKETS_OF_REPLICA)
		return 1;
	/* What they were before we have set them. */
	if (mark && mark->shared)
		asked = mark->kind & ASKED;
	else
		bpf_getsockopt(ctx, SOL_SOCKET, SO_REUSEPORT, &asked, sizeof(asked));
	if (mark && mark->shared && port.protocol == IPPROTO_TCP)
		reuse = mark->reuse;
	else
		bpf_getsockopt(ctx, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse));
	if (only6 && is_any6(&key->addr))
		set_special(&key->addr, ONLY6);
	new.key = *key;
	new.kind = (asked ? ASKED : 0) | (reuse ? SOFT : 0);
	new.reuse = reuse != 0;
	new.shared = mark ? mark->shared : 0;
	if (mark)
		*mark = new;
	else
		mark = bpf_sk_storage_get(&sp_bind_marks, sk, &new, BPF_SK_STORAGE_GET_F_CREATE);
	if (is_taken_within(&new, asked)) {
		count_mark(&new, -1);
		/* It says EADDRNOTAVAIL then. */
		if (is_foreign(&new.key))
			return 1;
		bpf_set_retval(-EADDRINUSE);
		return 0;
	}
	/* It is counted from now on, also if the kernel refuses it: until it is closed, or bound to something else. */
	if (mark) {
		mark->counted = 1;
		mark->shared = 1;
		count_bind(&other, 0, 1);
	} else {
		count_mark(&new, -1);
	}
	bpf_setsockopt(ctx, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
	/* Of UDP it would let sockets share that do not ask for SO_REUSEPORT. */
	if (port.protocol == IPPROTO_TCP)
		bpf_setsockopt(ctx, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	user = bpf_map_lookup_elem(&sp_users, &port);
	me = bpf_get_current_uid_gid();
	/* Whoever is the first on a port is told of, too: those who come before it is known who shares it go one after the other. */
	if (!user || *user != me)
		tell(port.netns, key->cgroup, EVENT_OTHER_USER, port.port, port.protocol, me);
	return 1;
}

SEC("cgroup/bind4")
int sameport_bind4(struct bpf_sock_addr *ctx)
{
	struct bind_key key = {};

	set_v4(&key.addr, FIELD(user_ip4));
	return share(ctx, &key, 0);
}

SEC("cgroup/bind6")
int sameport_bind6(struct bpf_sock_addr *ctx)
{
	struct bind_key key = {};
	int only6 = 0;

	if (ctx->sk)
		only6 = is_only6(ctx->sk, ctx->protocol == IPPROTO_UDP);
	key.addr.w[0] = FIELD(user_ip6[0]);
	key.addr.w[1] = FIELD(user_ip6[1]);
	key.addr.w[2] = FIELD(user_ip6[2]);
	key.addr.w[3] = FIELD(user_ip6[3]);
	return share(ctx, &key, only6);
}

static __always_inline int bound(struct bpf_sock *sk)
{
	struct bind_mark *mark = bpf_sk_storage_get(&sp_bind_marks, sk, 0, 0);
	__u64 netns;

	if (mark && !mark->counted)
		count_socket(mark, 1);
	if (sk->protocol != IPPROTO_UDP)
		return 1;
	netns = bpf_get_netns_cookie(sk);
	if (bpf_map_lookup_elem(&sp_pods, &netns))
		tell(netns, 0, EVENT_BOUND, sk->src_port, IPPROTO_UDP, 0);
	return 1;
}

SEC("cgroup/post_bind4")
int sameport_bound4(struct bpf_sock *sk)
{
	return bound(sk);
}

SEC("cgroup/post_bind6")
int sameport_bound6(struct bpf_sock *sk)
{
	return bound(sk);
}

SEC("cgroup/sock_release")
int sameport_release(struct bpf_sock *sk)
{
	struct bind_mark *mark = bpf_sk_storage_get(&sp_bind_marks, sk, 0, 0);

	if (mark && mark->counted)
		count_socket(mark, -1);
	return 1;
}

/* Counted as another kind from now on, since it begins to listen or ends. */
static __always_inline void recount_mark(struct bind_mark *mark, __u32 kind)
{
	if (!mark->counted || mark->kind == kind) {
		mark->kind = kind;
		return;
	}
	count_mark(mark, -1);
	mark->kind = kind;
	count_mark(mark, 1);
}

/* Enters a listener among those of its replica. It may be one of several at the same address, where its program has set
 * SO_REUSEPORT: each has a slot. */
static __always_inline void list(struct bpf_sock_ops *ctx, struct bind_mark *mark)
{
	struct bind_key key = mark->key;
	__u64 none = 0, *slots;
	int slot;

	bpf_map_update_elem(&sp_slots, &key, &none, BPF_NOEXIST);
	/* It stays entered until it is closed, also when it has been shut down. */
	if (!mark->listed) {
#pragma clang loop unroll(disable)
		for (slot = 0; slot < SLOTS; slot++) {
			key.slot = slot;
			if (!bpf_sock_hash_update(ctx, &sp_listeners, &key, BPF_NOEXIST)) {
				mark->listed = slot + 1;
				break;
			}
		}
		key.slot = 0;
	}
	slots = bpf_map_lookup_elem(&sp_slots, &key);
	if (slots && mark->listed)
		__sync_fetch_and_or(slots, 1ull << ((mark->listed - 1) & (SLOTS - 1)));
}

static __always_inline void listens(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	__u64 netns = bpf_get_netns_cookie(ctx), owner, bit, *bits;
	struct served_key served = { .netns = netns };
	struct bind_mark *mark;
	struct member *member;

	if (!bpf_map_lookup_elem(&sp_pods, &netns))
		return;
	owner = owner_of(sk);
	if (is_supervisor(owner))
		return;
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
	mark = bpf_sk_storage_get(&sp_bind_marks, sk, 0, 0);
	/* Without a mark nobody else can be at its port. */
	if (mark && !is_exclusive_key(&mark->key)) {
		recount_mark(mark, mark->kind & ~SOFT);
		list(ctx, mark);
		member = bpf_map_lookup_elem(&sp_cgroups, &owner);
		if (member) {
			served.addr = mark->key.addr;
			served.port = mark->key.port;
			served.protocol = IPPROTO_TCP;
			bit = 0;
			bpf_map_update_elem(&sp_served, &served, &bit, BPF_NOEXIST);
			bits = bpf_map_lookup_elem(&sp_served, &served);
			if (bits)
				__sync_fetch_and_or(bits, 1ull << (member->service & (SERVICES - 1)));
		}
	}
	tell(netns, owner, EVENT_LISTENS, ctx->local_port, IPPROTO_TCP, 0);
}

static __always_inline void listens_no_more(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct bind_mark *mark = bpf_sk_storage_get(&sp_bind_marks, sk, 0, 0);
	__u64 *slots, left;

	if (mark && mark->listed) {
		slots = bpf_map_lookup_elem(&sp_slots, &mark->key);
		if (slots) {
			left = __sync_and_and_fetch(slots, ~(1ull << ((mark->listed - 1) & (SLOTS - 1))));
			if (!left)
				bpf_map_delete_elem(&sp_slots, &mark->key);
		}
		/* It may only have been shut down: then it is bound still. */
		recount_mark(mark, mark->kind | (mark->reuse ? SOFT : 0));
	}
	tell(bpf_get_netns_cookie(ctx), 0, EVENT_CLOSED, ctx->local_port, IPPROTO_TCP, 0);
}
