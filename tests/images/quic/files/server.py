"""Answers each request of HTTP/3 with the value of REPLICA. On SIGTERM it closes its connections and ends."""

import asyncio, datetime, os, signal, tempfile

from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ME = os.environ.get('REPLICA', '?').encode()


class Server(QuicConnectionProtocol):
    http = None

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(self._quic)
        if self.http is None:
            return
        for received in self.http.handle_event(event):
            if isinstance(received, HeadersReceived):
                self.http.send_headers(received.stream_id, [(b':status', b'200'), (b'x-replica', ME)])
                self.http.send_data(received.stream_id, ME, end_stream=True)
                self.transmit()


def certificate():
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, 'localhost')])
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
    made = made.sign(key, hashes.SHA256())
    folder = tempfile.mkdtemp()
    with open(folder + '/cert.pem', 'wb') as file:
        file.write(made.public_bytes(serialization.Encoding.PEM))
    with open(folder + '/key.pem', 'wb') as file:
        file.write(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                     serialization.NoEncryption()))
    return folder


async def main():
    configuration = QuicConfiguration(alpn_protocols=H3_ALPN, is_client=False, idle_timeout=30)
    folder = certificate()
    configuration.load_cert_chain(folder + '/cert.pem', folder + '/key.pem')
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    server = await serve(os.environ.get('ADDRESS', '0.0.0.0'), 8443, configuration=configuration, create_protocol=Server)
    await ended.wait()
    server.close()
    await asyncio.sleep(0.05)


asyncio.run(main())
