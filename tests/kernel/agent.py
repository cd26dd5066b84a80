"""Does with sockets what it is told to, and tells what came of it: servers and clients of all kinds in one program.

In comes a line of JSON, [function, {arguments}]; out goes one: {"ok": ...}, {"error": "EADDRINUSE"} or {"bug": "..."}.
It ends with its standard input, so nothing of it outlives a test."""

import ctypes, errno, json, mmap, os, resource, select, signal, socket, struct, sys, threading, time, traceback
from collections import Counter
from socket import AF_INET, AF_INET6, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET, SO_REUSEADDR, SO_REUSEPORT

ME = os.environ['REPLICA']
IP_PKTINFO, IP_RECVERR, IPV6_RECVERR, IPV6_RECVPKTINFO, IPV6_PKTINFO, MPTCP = 8, 11, 25, 49, 50, 262
TCP_SYNCNT = 7
SO_BINDTODEVICE, SO_ATTACH_REUSEPORT_CBPF, SO_ATTACH_REUSEPORT_EBPF, SO_DETACH_REUSEPORT_BPF = 25, 51, 52, 68
SERVED = {}
HELD = []
HOARD = []
libc = ctypes.CDLL(None, use_errno=True)


def family(address):
    return AF_INET6 if ':' in address else AF_INET


def name(error):
    if error.errno in (errno.EAGAIN, errno.EINPROGRESS, errno.ETIMEDOUT):
        return 'timeout'
    return errno.errorcode.get(error.errno, str(error))


# Servers

def opened(kind, address, port, v6only=0, reuseport=0, reuseaddr=0, proto=0, device=''):
    s = socket.socket(family(address), kind, proto)
    try:
        if device:
            s.setsockopt(SOL_SOCKET, SO_BINDTODEVICE, device.encode())
        if s.family == AF_INET6:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
        if reuseport:
            s.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)
        if reuseaddr:
            s.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        s.bind((address, port))
    except OSError:
        s.close()
        raise
    return s


class Server:
    """A socket that a thread serves. It waits with poll: in a blocking accept the kernel would keep the socket open."""

    def __init__(self, sock, label):
        self.sock, self.label, self.thread = sock, label, None

    def serve(self):
        self.ends, self.end = os.pipe()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        self.sock.setblocking(False)
        if self.sock.type == SOCK_DGRAM:
            datagrams_tell_where_to(self.sock)
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        poll.register(self.ends, select.POLLIN)
        while not any(fd == self.ends for fd, _ in poll.poll()):
            try:
                (answer_datagram if self.sock.type == SOCK_DGRAM else answer_connection)(self.sock, self.label)
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno == errno.EINVAL:  # It does not listen any more.
                    return

    def stop(self):
        if self.thread:
            os.write(self.end, b'.')
            self.thread.join()
            os.close(self.ends)
            os.close(self.end)
            self.thread = None


def answer_connection(listener, label):
    connection, peer = listener.accept()
    with connection:
        answer_on(connection, peer, label)


def answer_on(connection, peer, label):
    connection.setblocking(True)
    connection.settimeout(5 * float(os.environ.get("SAMEPORT_SLOWNESS", 1)))
    told = dict(who=ME, label=label, at=connection.getsockname()[0], peer=peer[:2])
    try:
        connection.sendall(json.dumps(told).encode() + b'\n')
        while connection.recv(100):  # The client goes first, with a reset: no port is left in TIME_WAIT.
            pass
    except OSError:
        pass


def datagrams_tell_where_to(s):
    if s.family == AF_INET:
        s.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    else:
        s.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)


def answer_datagram(s, label):
    """Answers from the address that was asked, as servers do that are bound to all of them."""
    data, ancillary, _, peer = s.recvmsg(4096, 256)
    at, source = '?', []
    for level, kind, value in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
            at = socket.inet_ntop(AF_INET, value[8:12])
            source = [(level, kind, struct.pack('i4s4x', 0, value[8:12]))]
        if (level, kind) == (socket.IPPROTO_IPV6, IPV6_PKTINFO):
            at = socket.inet_ntop(AF_INET6, value[:16])
            source = [(level, kind, value[:16] + struct.pack('i', 0))]
    told = dict(who=ME, label=label, at=at, peer=peer[:2], token=data.decode())
    s.sendmsg([json.dumps(told).encode()], source, 0, peer)


def listen(address, port, label, serve=True, backlog=128, reuseaddr=1, **options):
    s = opened(SOCK_STREAM, address, port, reuseaddr=reuseaddr, **options)
    s.listen(backlog)
    return keep(s, label, serve)


def udp(address, port, label, serve=True, **options):
    return keep(opened(SOCK_DGRAM, address, port, **options), label, serve)


def udp_connected(address, port, to, to_port, label):
    """A socket of the server's port for one client alone, as servers have that accept flows."""
    s = opened(SOCK_DGRAM, address, port, reuseport=1)
    s.connect((to, to_port))
    keep(s, label, True)


def bound(kind, address, port, label, **options):
    """Binds, and nothing more."""
    return keep(opened(SOCK_STREAM if kind == 'tcp' else SOCK_DGRAM, address, port, **options), label, False)


def many(kind, address, first, count, label, reuseport=0, again=False):
    """Opens so many sockets that nobody serves, on one port each or all `again` on the first. How many there are."""
    kind = SOCK_STREAM if kind == 'tcp' else SOCK_DGRAM
    for n in range(count):
        s = opened(kind, address, first if again else first + n, reuseport=reuseport)
        if kind == SOCK_STREAM:
            s.listen(16)
        keep(s, f'{label} {n}', False)
    return count


def close_many(count, label):
    for n in range(count):
        close(f'{label} {n}')


def listen_unbound(label):
    s = socket.socket()
    s.listen(5)
    return keep(s, label, False)


def keep(s, label, serve):
    SERVED[label] = server = Server(s, label)
    if serve:
        server.serve()
    return s.getsockname()[1]


def close(label):
    server = SERVED.pop(label)
    server.stop()
    server.sock.close()


def long_option():
    """Sets an option by a value that is longer than a page, and reads it."""
    with socket.socket() as s:
        s.setsockopt(SOL_SOCKET, SO_BINDTODEVICE, b'lo' + bytes(8192))
        return s.getsockopt(SOL_SOCKET, SO_BINDTODEVICE, 16).rstrip(b'\0').decode()


def serve(label):
    SERVED[label].serve()


def shutdown(label):
    SERVED[label].stop()
    SERVED[label].sock.shutdown(socket.SHUT_RDWR)


def listen_again(label):
    SERVED[label].sock.listen(128)
    SERVED[label].serve()


def expect(path):
    """Awaits a socket that another process gives away."""
    expect.at = socket.socket(socket.AF_UNIX, SOCK_DGRAM)
    expect.at.bind(path)


def give(label, path):
    server = SERVED.pop(label)
    server.stop()
    with socket.socket(socket.AF_UNIX, SOCK_DGRAM) as to:
        to.connect(path)
        socket.send_fds(to, [b'.'], [server.sock.fileno()])
    server.sock.close()


def take(label):
    fd = socket.recv_fds(expect.at, 1, 1)[1][0]
    keep(socket.socket(fileno=fd), label, True)


def become_another_program():
    """Another program goes on with the sockets, as after the exec of an entry point or of a manager of services."""
    state = {}
    for label, server in SERVED.items():
        server.stop()
        os.set_inheritable(server.sock.fileno(), True)
        state[label] = server.sock.fileno()
    text = open('/proc/self/cmdline').read().split('\0')[4]
    os.execv(sys.executable, [sys.executable, '-I', '-S', '-c', text, json.dumps(state)])


def fork_holder(label):
    """A child that keeps the socket open; it ends when its standard input, a pipe of ours, is closed."""
    ends, end = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(end)
        os.read(ends, 1)
        os._exit(0)
    os.close(ends)
    HELD.append((pid, end))


def end_holders():
    while HELD:
        pid, end = HELD.pop()
        os.close(end)
        os.waitpid(pid, 0)


# Users

def become(user):
    """All of it is that user's from now on."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def at_last(function, arguments, seconds, pause=0.02):
    """Tries as long as it gets EADDRINUSE, as some servers do; how often it got it."""
    end, failures = time.monotonic() + seconds, 0
    while True:
        try:
            globals()[function](**arguments)
            return failures
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > end:
                raise
        failures += 1
        time.sleep(pause)


def without_reuseaddr(label):
    SERVED[label].sock.setsockopt(SOL_SOCKET, SO_REUSEADDR, 0)


# What changes who gets connections, where the kernel alone decides

def attach_cbpf(label, index):
    """A program of the group that chooses its socket of that index."""
    filter = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, index))  # ret #index
    program = struct.pack('HxxxxxxP', 1, ctypes.addressof(filter))
    SERVED[label].sock.setsockopt(SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, program)


def attach_ebpf(label, index):
    code = ctypes.create_string_buffer(struct.pack('<BBhi', 0xb7, 0, 0, index) + struct.pack('<BBhi', 0x95, 0, 0, 0))
    licence = ctypes.create_string_buffer(b'GPL')
    attributes = ctypes.create_string_buffer(
        struct.pack('<IIQQ', 1, 2, ctypes.addressof(code), ctypes.addressof(licence)) + bytes(96))  # a socket filter
    fd = libc.syscall(321, 5, attributes, len(attributes) - 1)
    if fd < 0:
        raise OSError(ctypes.get_errno(), 'bpf')
    try:
        SERVED[label].sock.setsockopt(SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, fd)
    finally:
        os.close(fd)


def detach(label):
    SERVED[label].sock.setsockopt(SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0)


def detach_as_32_bit(label):
    """By the call of a 32-bit program (x86): number 366, arguments in ebx, ecx, edx, esi, edi, which lie below 4 GiB."""
    code = bytes.fromhex('53'            # push rbx
                         '89fb'          # mov ebx, edi
                         'b901000000'    # mov ecx, SOL_SOCKET
                         'ba44000000'    # mov edx, SO_DETACH_REUSEPORT_BPF
                         'bf04000000'    # mov edi, 4
                         'b86e010000'    # mov eax, 366
                         'cd80'          # int 0x80
                         '5b' 'c3')      # pop rbx; ret
    low = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | 0x40, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)  # MAP_32BIT
    low.write(code)
    at = ctypes.addressof(ctypes.c_char.from_buffer(low))
    result = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_uint)(at)(SERVED[label].sock.fileno(), at + 1024)
    if result < 0:
        raise OSError(-result, 'setsockopt')


def detach_by_io_uring(label, how):
    """As SOCKET_URING_OP_SETSOCKOPT, which there is since Linux 6.7; EOPNOTSUPP where it is not."""
    ring, value = Ring(2 if how == 'io_uring polled' else 0), ctypes.c_int(0)
    ring.do(46, SERVED[label].sock.fileno(), SOL_SOCKET | SO_DETACH_REUSEPORT_BPF << 32, 3, 0, 4, ctypes.addressof(value))


# Clients

class Closed(Exception):
    pass


def mapped(address):
    return address[7:] if address.startswith('::ffff:') and '.' in address else address


def described(told, peer, local):
    agree = 'agree' if local[1] == told['peer'][1] else 'differ'
    return [told['who'], told['label'], f"answered at {mapped(told['at'])}, sees {mapped(told['peer'][0])}; "
            f"peer {peer[0]}, local {local[0]}, ports {agree}"]


def client(kind, to, source, timeout, proto=0):
    s = socket.socket(family(to), kind, proto)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        s.setsockopt(SOL_SOCKET, option, struct.pack('ll', int(timeout), int(timeout % 1 * 1e6)))
    if source:
        s.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        s.bind((source[0], source[1]))
    return s


def ask_stream(how, to, port, source, timeout):
    with client(SOCK_STREAM, to, source, timeout, MPTCP if how == 'mptcp' else 0) as s:
        if how != 'mptcp':
            s.setsockopt(socket.IPPROTO_TCP, TCP_SYNCNT, 1)
        s.setsockopt(SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        if how == 'fast open':
            s.sendto(b'?', socket.MSG_FASTOPEN, (to, port))
        elif how.startswith('io_uring'):
            uring_connect(s, to, port, how)
        else:
            s.connect((to, port))
        text = b''
        while not text.endswith(b'\n'):
            part = s.recv(4096)
            if not part:
                raise Closed
            text += part
        return described(json.loads(text), s.getpeername(), s.getsockname())


def ask_datagram(how, to, port, source, timeout):
    with client(SOCK_DGRAM, to, source, timeout) as s:
        # Who is not connected is told of a refusal, too, if it asks for that.
        s.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        if s.family == AF_INET6:
            s.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        if how == 'udp reconnected':
            # As `getaddrinfo` does when it sorts what it found.
            s.connect((to, port + 1000))
            libc.connect(s.fileno(), bytes(16), 16)
        if how == 'udp sendto':
            return exchange(s, lambda token: s.sendto(token, (to, port)))
        s.connect((to, port))
        return exchange(s, s.send)


def exchange(s, send):
    token = os.urandom(4).hex()
    send(token.encode())
    while True:
        data, peer = s.recvfrom(4096)
        told = json.loads(data)
        if told['token'] == token:
            return described(told, peer, s.getsockname())


def ask_once(how, to, port, source=None, timeout=3):
    work = ask_datagram if how.startswith('udp') else ask_stream
    try:
        return work(how, to, port, source, timeout)
    except OSError as error:
        return [None, '', name(error)]
    except Closed:
        return [None, '', 'closed without an answer']


def ask_named(how, to, **rest):
    """By name it goes on to the next address, as in a container whose /etc/hosts has both for localhost."""
    if to != 'localhost':
        return ask_once(how, to, **rest)
    for address in ('::1', '127.0.0.1'):
        seen = ask_once(how, address, **rest)
        if seen[0]:
            break
    return seen


def ask(questions, times=1):
    """What came of each question, and how often."""
    told, patience = [], 3
    for question in questions:
        seen = Counter()
        for _ in range(times):
            # Where much is not answered there is no need to wait long for the rest.
            who, label, text = ask_named(**question, timeout=3 if patience else 0.2)
            seen[(who, label, text)] += 1
            if text == 'timeout':
                patience -= patience > 0
                break
        told.append([list(key) + [count] for key, count in seen.items()])
    return told


def load(connections, seconds, places):
    """Asks again and again at all places in turn; what came of it, by place."""
    seen, deadline = Counter(), time.monotonic() + seconds
    for n in range(connections):
        if time.monotonic() > deadline:
            break
        to, port = places[n % len(places)]
        who, _, text = ask_once('tcp', to, port, None, 5)
        seen[(to, who or text)] += 1
    return [list(key) + [count] for key, count in seen.items()]


# io_uring, by its system calls

class Ring:
    """One that does one thing at a time. The kernel looks at its ends at any moment, and `pack_into` writes zeros first: they
    are integers of ctypes."""

    def __init__(self, flags=0):
        params = ctypes.create_string_buffer(120)
        struct.pack_into('<III', params, 8, flags, 0, 5)  # Its thread stops looking after so many ms.
        self.fd = libc.syscall(425, 8, params)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), 'io_uring_setup')
        self.flags = flags
        sq_entries, cq_entries = struct.unpack_from('<II', params, 0)
        sq, cq = struct.unpack_from('<10I', params, 40), struct.unpack_from('<10I', params, 80)
        self.sq_array, self.cqes = sq[6], cq[5]
        self.sq_ring = mmap.mmap(self.fd, self.sq_array + 4 * sq_entries, offset=0)
        self.cq_ring = mmap.mmap(self.fd, self.cqes + 16 * cq_entries, offset=0x8000000)
        self.sqes = mmap.mmap(self.fd, 64 * sq_entries, offset=0x10000000)
        self.sq_head, self.sq_tail = (ctypes.c_uint32.from_buffer(self.sq_ring, at) for at in sq[:2])
        self.cq_head, self.cq_tail = (ctypes.c_uint32.from_buffer(self.cq_ring, at) for at in cq[:2])
        self.sq_mask, self.cq_mask = sq_entries - 1, cq_entries - 1

    def do(self, opcode, fd, address=0, offset=0, length=0, splice=0, more=0):
        """One operation, and its result."""
        slot = self.sq_tail.value & self.sq_mask
        self.sqes[64 * slot:64 * slot + 64] = bytes(64)
        fields = opcode, 0, 0, fd, offset, address, length, 0, 0, 0, 0, splice, more
        struct.pack_into('<BBHiQQIIQHHiQ', self.sqes, 64 * slot, *fields)
        struct.pack_into('<I', self.sq_ring, self.sq_array + 4 * slot, slot)
        before = self.sq_tail.value
        self.sq_tail.value = before + 1
        while self.cq_tail.value == self.cq_head.value:
            left = 1 if self.sq_head.value == before else 0
            if libc.syscall(426, self.fd, left, 1, 1 | (2 if self.flags & 2 else 0), None, 0) < 0:
                if ctypes.get_errno() != errno.EINTR:
                    raise OSError(ctypes.get_errno(), 'io_uring_enter')
        at = self.cqes + 16 * (self.cq_head.value & self.cq_mask)
        _, result, _ = struct.unpack_from('<QiI', self.cq_ring, at)
        self.cq_head.value += 1
        if result < 0:
            raise OSError(-result, 'io_uring')
        return result


RINGS = {}


def uring_connect(s, to, port, how):
    if how not in RINGS:
        RINGS[how] = Ring(2 if how == 'io_uring polled' else 0)  # IORING_SETUP_SQPOLL
    address = sockaddr(to, port)
    RINGS[how].do(16, s.fileno(), ctypes.addressof(address), len(address))


def sockaddr(to, port):
    if family(to) == AF_INET:
        raw = struct.pack('<H', AF_INET) + struct.pack('>H', port) + socket.inet_pton(AF_INET, to) + bytes(8)
    else:
        raw = struct.pack('<H', AF_INET6) + struct.pack('>HI', port, 0) + socket.inet_pton(AF_INET6, to) + bytes(4)
    return ctypes.create_string_buffer(raw, len(raw))


def uring_listen(address, port, label):
    """Binds, listens and accepts by io_uring, as far as this kernel has it."""
    ring, s = Ring(), socket.socket(family(address), SOCK_STREAM)
    s.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    raw = sockaddr(address, port)
    try:
        ring.do(56, s.fileno(), ctypes.addressof(raw), len(raw))
        ring.do(57, s.fileno(), length=128)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        s.bind((address, port))
        s.listen(128)

    def run():
        while True:
            with socket.socket(fileno=ring.do(13, s.fileno())) as connection:
                answer_on(connection, connection.getpeername(), label)
    SERVED[label] = Server(s, label)
    threading.Thread(target=run, daemon=True).start()


# What a second bind gives

def outcome(work):
    try:
        work()
        return 'ok'
    except OSError as error:
        return name(error)


def pair(kind, first, second, listening, port, hold=False):
    """Binds twice; what each step gave. Each of them is [address, V6ONLY, SO_REUSEPORT, SO_REUSEADDR]."""
    release()
    kind, sockets, told = (SOCK_STREAM if kind == 'tcp' else SOCK_DGRAM), [], []
    for number, (address, v6only, reuseport, reuseaddr) in enumerate((first, second)):
        told.append(outcome(lambda: sockets.append(opened(kind, address, port, v6only, reuseport, reuseaddr))))
        if told[-1] == 'ok' and kind == SOCK_STREAM and (listening or number == 1):
            told.append(outcome(lambda: sockets[-1].listen(1)))
    release.held = sockets
    if not hold:
        release()
    return told


def release():
    for s in getattr(release, 'held', []):
        s.close()
    release.held = []


def pairs(questions):
    return [pair(*question) for question in questions]


def race(workers, kind, address, port, listening):
    """What each of so many processes gets that bind to one address at the same moment."""
    start_r, start_w = os.pipe()
    end_r, end_w = os.pipe()
    told_r, told_w = os.pipe()
    pids = []
    for _ in range(workers):
        pid = os.fork()
        if not pid:
            os.close(start_w)
            os.close(end_w)
            os.read(start_r, 1)
            s = socket.socket(family(address), SOCK_STREAM if kind == 'tcp' else SOCK_DGRAM)
            told = outcome(lambda: s.bind((address, port)))
            if told == 'ok' and listening:
                told = outcome(lambda: s.listen(1))
            os.write(told_w, told.encode() + b'\n')
            os.read(end_r, 1)
            os._exit(0)
        pids.append(pid)
    for fd in (start_r, start_w, end_r, told_w):
        os.close(fd)
    told = b''
    while told.count(b'\n') < workers:
        told += os.read(told_r, 4096)
    os.close(end_w)
    os.close(told_r)
    for pid in pids:
        os.waitpid(pid, 0)
    return sorted(told.decode().split())


def again_and_again(times, kind, address, port, second):
    """Binds and closes so often, each time with a second one that may fail; what was seen, and how often."""
    kind, seen = (SOCK_STREAM if kind == 'tcp' else SOCK_DGRAM), Counter()
    for n in range(times):
        try:
            s = opened(kind, address, port)
        except OSError as error:
            seen[name(error)] += 1
            continue
        if kind == SOCK_STREAM and n % 2:
            s.listen(1)
        if second:
            seen['second ' + outcome(lambda: opened(kind, address, port).close())] += 1
        seen['ok'] += 1
        s.close()
    return dict(seen)


def any_ports(times, kind, address):
    """The ports that it gets when it asks for any."""
    kind = SOCK_STREAM if kind == 'tcp' else SOCK_DGRAM
    got = [opened(kind, address, 0) for _ in range(times)]
    if kind == SOCK_STREAM:
        for s in got[::2]:
            s.listen(1)
    any_ports.held = getattr(any_ports, 'held', []) + got
    return [s.getsockname()[1] for s in got]


# What a hostile replica does

def hoard(kind, address, ports, reuseport=0):
    """Listens on all of these ports, as far as it may; on how many."""
    kind, before = (SOCK_STREAM if kind == 'tcp' else SOCK_DGRAM), len(HOARD)
    for port in ports:
        try:
            HOARD.append(opened(kind, address, port, reuseport=reuseport))
            if kind == SOCK_STREAM:
                HOARD[-1].listen(1)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
                raise
    return len(HOARD) - before


def churn(kind, address, port, reuseport=0):
    """Binds, listens and closes until it ends, in a process of its own."""
    kind = SOCK_STREAM if kind == 'tcp' else SOCK_DGRAM
    if not child():
        return
    while True:
        try:
            with opened(kind, address, port, reuseport=reuseport) as s:
                if kind == SOCK_STREAM:
                    s.listen(1)
        except OSError:
            time.sleep(0.001)


def many_users(kind, address, port, listening):
    """Binds as ever other users until it ends, in a process of its own."""
    kind = SOCK_STREAM if kind == 'tcp' else SOCK_DGRAM
    if not child():
        return
    user = 20000
    while True:
        user += 1
        os.seteuid(user)
        s = socket.socket(family(address), kind)
        os.seteuid(0)
        try:
            s.bind((address, port))
            if listening:
                s.listen(1)
        except OSError:
            pass
        s.close()


def crowd(processes, descriptors):
    """So many processes that sleep, and so many open descriptors, as far as it may."""
    for _ in range(processes):
        if child():
            signal.pause()
    descriptors = min(descriptors, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 100)
    HOARD.extend(os.open('/dev/null', os.O_RDONLY) for _ in range(descriptors))


def child():
    """Forks; true in the child, which ends with its parent."""
    parent = os.getpid()
    if os.fork():
        return False
    libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(0)
    return True


def main():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for label, fd in json.loads(sys.argv[1] if len(sys.argv) > 1 else '{}').items():
        keep(socket.socket(fileno=fd), label, True)
    told = {'ok': os.getpid()}
    while True:
        sys.stdout.write(json.dumps(told) + '\n')
        sys.stdout.flush()
        line = sys.stdin.readline()
        if not line:
            os._exit(0)
        function, arguments = json.loads(line)
        try:
            told = {'ok': globals()[function](**arguments)}
        except OSError as error:
            told = {'error': name(error)}
        except Exception:
            told = {'bug': traceback.format_exc()}


main()
