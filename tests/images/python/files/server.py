"""Python's own server; every answer names its replica."""
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

replica = os.environ.get("REPLICA", "?")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"replica {replica}\n".encode()
        self.send_response(200)
        self.send_header("X-Replica", replica)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


# Like `python3 -m http.server --bind 0.0.0.0`; a thread for each connection.
server = ThreadingHTTPServer(("0.0.0.0", 8080), Handler)
# shutdown() waits for the loop that this signal interrupts, so it cannot be called here.
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever(poll_interval=0.05)
server.server_close()
# What is being answered gets a second; a connection that asks nothing must not hold up the end.
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join(1)
