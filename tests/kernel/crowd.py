"""Many small servers and the networks that they are in, forked from one process so that they share their memory.

It reads a line of JSON for each and answers with the process that it has begun: ["network"] is one in a network of its own;
["serve", NETWORK, GROUP, NAME], in the network of that process and in that control group, answers everybody on port 8080 with
its name. All end with this process, and this process with its input.
"""

import ctypes, fcntl, json, os, signal, socket, struct, sys

CLONE_NEWNET, PR_SET_PDEATHSIG, SIOCSIFFLAGS, IFF_UP = 0x40000000, 1, 0x8914, 1
libc = ctypes.CDLL(None, use_errno=True)


def check(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def network():
    check(libc.unshare(CLONE_NEWNET))
    with socket.socket() as lo:
        fcntl.ioctl(lo, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    return signal.pause


def serve(network, group, name):
    with open(f"{group}/cgroup.procs", "w") as procs:
        procs.write(str(os.getpid()))
    with open(f"/proc/{network}/ns/net") as there:
        check(libc.setns(there.fileno(), CLONE_NEWNET))
    listener = socket.socket()
    listener.bind(("", 8080))
    listener.listen()

    def loop():
        while True:
            with listener.accept()[0] as client:
                client.sendall(name.encode())

    return loop


def begin(kind, *arguments):
    done, told = os.pipe()
    if child := os.fork():
        os.close(told)
        with open(done) as answer:
            return child, answer.read()
    try:
        os.close(done)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
        work = {"network": network, "serve": serve}[kind](*arguments)
        os.close(told)
        os.close(1)
        work()
    except BaseException as error:
        os.write(told, str(error).encode())
    finally:
        os._exit(1)


signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    child, error = begin(*json.loads(line))
    print(json.dumps({"error": error} if error else {"pid": child}), flush=True)
