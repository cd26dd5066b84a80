"""One worker on a shared port, or with SHARE=no on its own; every answer names its replica. KEEPALIVE is in seconds."""
import os

bind = "0.0.0.0:8080"
reuse_port = os.environ.get("SHARE") != "no"
workers = 1
worker_class = "gthread"
threads = 4
keepalive = int(os.environ.get("KEEPALIVE", "0"))
worker_tmp_dir = "/dev/shm"


def post_worker_init(worker):
    replica = os.environ.get("REPLICA", "?")
    inner = worker.wsgi

    def named(environ, start_response):
        def start(status, headers, *rest):
            return start_response(status, [*headers, ("X-Replica", replica)], *rest)

        return inner(environ, start)

    worker.wsgi = named
