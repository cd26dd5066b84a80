/* Refuses what `sameport_setsockopt` would make succeed without effect, where the kernel does not run that: for programs that
 * make the calls of another architecture (`int 0x80`, x32), and for io_uring made by them. Such programs are not worth a
 * success that means nothing.
 *
 * It is loaded as `fmod_ret`, for which the loader has no name: what it returns is the result of the kernel's function. */
#include "owner.h"
#include "notices.h"
#include "options.h"

#define PF_IO_WORKER 0x10
#define TS_COMPAT 2 /* of x86 */
#define SYS_SETSOCKOPT 54
#define EPERM 1
#define ENOSYS 38

struct thread_info___x {
	__u32 status;
} __attribute__((preserve_access_index));
struct task_struct___x {
	struct thread_info___x thread_info;
	unsigned int flags;
} __attribute__((preserve_access_index));
struct pt_regs___x {
	unsigned long ax, orig_ax;
} __attribute__((preserve_access_index));
struct net___x {
	__u64 net_cookie;
} __attribute__((preserve_access_index));
struct possible_net___x {
	struct net___x *net;
} __attribute__((preserve_access_index));
struct sock_common___n {
	struct possible_net___x skc_net;
	__u16 skc_num;
} __attribute__((preserve_access_index));
struct sock___n {
	struct sock_common___n __sk_common;
	__u16 sk_protocol;
} __attribute__((preserve_access_index));
struct socket___x {
	struct sock___n *sk;
} __attribute__((preserve_access_index));

/* Whether this is within a call of setsockopt(2) of the machine's own architecture. The result in the registers is that of no
 * call as long as it goes on: else what goes on at its end, such as io_uring's, would be taken for it. */
static __always_inline int is_native(void)
{
	struct task_struct___x *task = (void *)bpf_get_current_task_btf();
	struct pt_regs___x *regs = (void *)bpf_task_pt_regs((void *)task);

	return !(task->flags & PF_IO_WORKER) && !(task->thread_info.status & TS_COMPAT) && regs &&
	       regs->orig_ax == SYS_SETSOCKOPT && regs->ax == (unsigned long)-ENOSYS;
}

SEC("fentry/security_socket_setsockopt")
int sameport_compat(__u64 *ctx)
{
	struct socket___x *socket = (void *)ctx[0];
	__u64 netns, owner;
	struct sock___n *sk;
	int before = ctx[3];

	if (before || !is_about_choice(ctx[1], ctx[2]) || is_native())
		return before;
	sk = socket->sk;
	if (!sk)
		return 0;
	netns = sk->__sk_common.skc_net.net->net_cookie;
	if (!bpf_map_lookup_elem(&sp_pods, &netns))
		return 0;
	owner = current_owner();
	if (is_supervisor(owner))
		return 0;
	tell(netns, owner, EVENT_CHOOSES, sk->__sk_common.skc_num, sk->sk_protocol, 0);
	return -EPERM;
}

const char LICENSE[] SEC("license") = "GPL";
