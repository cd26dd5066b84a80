"""Clients of one kind: client.py websocket|grpc|http2|upload|events HOST:PORT CLIENTS. Prints `begun` when as many requests were
answered as there are clients, goes on until its standard input ends, and then prints as JSON how many requests, or messages, each version answered, how often a server closed a connection in good order,
and every error."""

import asyncio
import json
import sys
import threading
import time
from collections import Counter

kind, address, clients = sys.argv[1], sys.argv[2], int(sys.argv[3])
begin = time.monotonic()
answers, errors = Counter(), []
closed = 0
input_ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), input_ended.set()), daemon=True).start()


def goes_on():
    return not input_ended.is_set()


def failed(error):
    errors.append(f"after {time.monotonic() - begin:.1f} s: {type(error).__name__}: {error}")


async def websocket():
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed

    global closed
    while goes_on():
        try:
            async with connect(f"ws://{address}") as connection:
                while goes_on():
                    await connection.send("hello")
                    answers[(await connection.recv()).split()[0]] += 1
                    await asyncio.sleep(0.02)
        except ConnectionClosed as error:
            if error.rcvd is not None and error.rcvd.code in (1001, 1012):
                closed += 1
            else:
                failed(error)


async def grpc():
    import grpc

    async with grpc.aio.insecure_channel(address) as channel:
        ask, count = channel.unary_unary("/test.Test/Ask"), channel.unary_stream("/test.Test/Count")
        while goes_on():
            for _ in range(50):
                answers[(await ask(b"")).decode()] += 1
                await asyncio.sleep(0.02)
            received = [message async for message in count(b"")]
            if len(received) != 20:
                raise RuntimeError(f"{len(received)} of 20 messages")
            answers[received[0].decode()] += 1


async def http2():
    import httpx

    async with httpx.AsyncClient(http1=False, http2=True, timeout=30) as client:
        while goes_on():
            answer = await client.get(f"http://{address}/")
            answers[answer.raise_for_status().text.split()[0]] += 1
            await asyncio.sleep(0.02)


async def slow_body():
    for _ in range(40):
        yield b"x" * 10000
        await asyncio.sleep(0.1)


async def upload():
    import httpx

    while goes_on():
        async with httpx.AsyncClient(timeout=30) as client:
            answer = await client.post(f"http://{address}/upload", content=slow_body())
        version, length = answer.raise_for_status().text.split()
        if length != "400000":
            raise RuntimeError(f"{length} of 400000 bytes")
        answers[version] += 1


async def events():
    import httpx

    while goes_on():
        async with httpx.AsyncClient(timeout=30) as client:
            async with client.stream("GET", f"http://{address}/events") as answer:
                lines = [line async for line in answer.aiter_lines() if line]
        if len(lines) != 20:
            raise RuntimeError(f"{len(lines)} of 20 events")
        answers[lines[0].split()[1]] += 1


async def one(of):
    while goes_on():
        try:
            await of()
        except Exception as error:
            failed(error)
            await asyncio.sleep(0.1)


async def begun():
    while goes_on() and answers.total() < clients:
        await asyncio.sleep(0.1)
    print("begun")


async def main():
    of = {"websocket": websocket, "grpc": grpc, "http2": http2, "upload": upload, "events": events}[kind]
    await asyncio.gather(begun(), *(one(of) for _ in range(clients)))
    print(json.dumps({"answers": answers, "closed": closed, "errors": errors}))


asyncio.run(main())
