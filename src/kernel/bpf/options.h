/* Options of sockets. One unprivileged call is enough to give the choice among all listeners of a port to another program, or to
 * nobody: within a pod such a call has no effect, and no error, since some servers end when it fails. */
#ifndef SAMEPORT_OPTIONS_H
#define SAMEPORT_OPTIONS_H

#define SO_ATTACH_REUSEPORT_CBPF 51
#define SO_ATTACH_REUSEPORT_EBPF 52
#define SO_DETACH_REUSEPORT_BPF 68

static __always_inline int is_about_choice(int level, int option)
{
	return level == SOL_SOCKET && (option == SO_ATTACH_REUSEPORT_CBPF || option == SO_ATTACH_REUSEPORT_EBPF ||
				       option == SO_DETACH_REUSEPORT_BPF);
}

#endif
