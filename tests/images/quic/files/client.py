"""python3 client.py ADDRESS KEPT: asks 8443/udp of that address by HTTP/3, some requests each on a connection of its own and
others on so many connections that are kept. Prints `kept` and who answered there first; after a line on its standard input
it ends those, and after the end of the input it ends, and prints as JSON what came of it."""

import asyncio, json, os, ssl, sys, time

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated

AT = sys.argv[1]
TOLD = {'fresh': {}, 'failures': [], 'kept': [{'answers': {}, 'end': None} for _ in range(int(sys.argv[2]))]}
BEGIN = time.monotonic()


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http, self.waiting, self.closed = H3Connection(self._quic), {}, None

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated):
            self.closed = f'closed: {event.error_code} {event.reason_phrase}'
            for answer in self.waiting.values():
                if not answer.done():
                    answer.set_exception(ConnectionError(self.closed))
        for received in self.http.handle_event(event):
            answer = self.waiting.get(received.stream_id)
            if answer is None or answer.done():
                continue
            if isinstance(received, HeadersReceived) and dict(received.headers)[b':status'] != b'200':
                answer.set_exception(ConnectionError(str(received.headers)))
            elif isinstance(received, DataReceived) and received.stream_ended:
                answer.set_result(received.data.decode())

    async def get(self):
        if self.closed:
            raise ConnectionError(self.closed)
        stream = self._quic.get_next_available_stream_id()
        answer = self.waiting[stream] = asyncio.get_running_loop().create_future()
        self.http.send_headers(stream, [(b':method', b'GET'), (b':scheme', b'https'), (b':authority', b'test'),
                                        (b':path', b'/')], end_stream=True)
        self.transmit()
        return await asyncio.wait_for(answer, 5)


def connection():
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE)
    return connect(AT, 8443, configuration=configuration, create_protocol=Client)


async def fresh():
    while True:
        try:
            async with asyncio.timeout(10):
                async with connection() as client:
                    who = await client.get()
            TOLD['fresh'][who] = TOLD['fresh'].get(who, 0) + 1
        except Exception as error:
            TOLD['failures'].append([round(time.monotonic() - BEGIN, 1), repr(error)])
        await asyncio.sleep(0.1)


async def kept(seen, ended):
    async with connection() as client:
        while not ended.is_set():
            try:
                who = await client.get()
            except Exception as error:
                seen['end'] = repr(error)
                return
            seen['answers'][who] = seen['answers'].get(who, 0) + 1
            await asyncio.sleep(0.2)


async def main():
    ended = asyncio.Event()
    keeps = [asyncio.create_task(kept(seen, ended)) for seen in TOLD['kept']]
    others = [asyncio.create_task(fresh()) for _ in range(2)]
    while not all(seen['answers'] or seen['end'] for seen in TOLD['kept']):
        await asyncio.sleep(0.05)
    print('kept', json.dumps([list(seen['answers']) for seen in TOLD['kept']]), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    ended.set()
    await asyncio.gather(*keeps)
    print('ended', flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for task in others:
        task.cancel()
    # One that closes its connection waits for the other end, which may be gone: what came of it all is known without.
    await asyncio.wait(others, timeout=2)
    print(json.dumps(TOLD), flush=True)
    os._exit(0)


asyncio.run(asyncio.wait_for(main(), 120))
