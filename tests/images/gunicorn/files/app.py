"""Every answer names its replica. With LOCK, a port, each worker tries to have that for itself, and says how it went."""
import os
import socket

replica = os.environ.get("REPLICA", "?")

if "LOCK" in os.environ:
    lock = socket.socket()
    try:
        lock.bind(("127.0.0.1", int(os.environ["LOCK"])))
        print(f"worker {os.getpid()}: locked", flush=True)
    except OSError as error:
        print(f"worker {os.getpid()}: {error.strerror}", flush=True)


def app(environ, start_response):
    body = f"replica {replica}\n".encode()
    start_response("200 OK", [("Content-Length", str(len(body))), ("X-Replica", replica)])
    return [body]
