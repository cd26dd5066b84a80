"""A server of one kind, which ends as its library's documentation says: server.py websocket|grpc. hypercorn has a command of its own."""

import asyncio
import os
import signal
import sys

VERSION = os.environ["V"]


async def until_told():
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    await told.wait()


async def websocket():
    from websockets.asyncio.server import serve

    async def echo(connection):
        async for message in connection:
            await connection.send(f"{VERSION} {message}")

    # Leaving it closes every connection with 1001.
    async with serve(echo, "0.0.0.0", 8080):
        await until_told()


async def grpc():
    import grpc

    async def ask(request, context):
        return VERSION.encode()

    async def count(request, context):
        for _ in range(20):
            yield VERSION.encode()
            await asyncio.sleep(0.1)

    # A client opens another connection after two seconds, as gRPC's documentation has it where connections are what is balanced.
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_connection_age_ms", 2000)])
    methods = {
        "Ask": grpc.unary_unary_rpc_method_handler(ask),
        "Count": grpc.unary_stream_rpc_method_handler(count),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", methods),))
    server.add_insecure_port("0.0.0.0:8080")
    await server.start()
    await until_told()
    # GOAWAY, and what is in hand may end.
    await server.stop(8)


asyncio.run({"websocket": websocket, "grpc": grpc}[sys.argv[1]]())
