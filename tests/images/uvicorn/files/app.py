"""Every answer names its replica."""
import os

replica = os.environ.get("REPLICA", "?").encode()


async def app(scope, receive, send):
    assert scope["type"] == "http"
    body = b"replica " + replica + b"\n"
    headers = [(b"content-length", b"%d" % len(body)), (b"x-replica", replica)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
