"""An application for hypercorn: `/` answers at once, `/upload` counts what it is sent, `/events` tells something for two seconds."""

import asyncio
import os

VERSION = os.environ["V"].encode()


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = await receive()
            await send({"type": event["type"] + ".complete"})
            if event["type"] == "lifespan.shutdown":
                return
    length = 0
    while True:
        event = await receive()
        if event["type"] != "http.request":
            return
        length += len(event.get("body", b""))
        if not event.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/events":
        for _ in range(20):
            await send({"type": "http.response.body", "body": b"data: " + VERSION + b"\n\n", "more_body": True})
            await asyncio.sleep(0.1)
        await send({"type": "http.response.body"})
    else:
        await send({"type": "http.response.body", "body": VERSION + b" %d" % length})
