"""An FTP server on port 2121 that names its replica at the beginning; PASSIVE=FIRST-LAST are its ports for data."""
import os
import signal

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer

authorizer = DummyAuthorizer()
for number in range(10):
    user = f"u{number}"
    home = f"/tmp/{user}"
    os.makedirs(home, exist_ok=True)
    with open(f"{home}/name", "w") as file:
        file.write(user)
    authorizer.add_user(user, user, home, perm="elr")

first, last = os.environ["PASSIVE"].split("-")
FTPHandler.authorizer = authorizer
FTPHandler.banner = "replica " + os.environ.get("REPLICA", "?")
FTPHandler.passive_ports = range(int(first), int(last) + 1)


def end(*_):
    raise KeyboardInterrupt


signal.signal(signal.SIGTERM, end)
FTPServer(("0.0.0.0", 2121), FTPHandler).serve_forever()
