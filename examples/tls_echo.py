"""An echo server over TLS, and its client.

    python examples/tls_echo.py serve --port 8891 --certificate server.pem --key server.key
    python examples/tls_echo.py send --port 8891 --authority ca.pem --name localhost hello

A certificate to try it with: openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -addext
subjectAltName=DNS:localhost -keyout server.key -out server.pem; the client then trusts it with
--authority server.pem.
"""

import argparse
import asyncio
import signal
import ssl

import headrace


async def echo(reader: headrace.StreamReader, writer: headrace.StreamWriter) -> None:
    try:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
    except (ConnectionError, ssl.SSLError) as error:
        print(f"lost a client: {error}", flush=True)
    finally:
        writer.close()


async def serve(options: argparse.Namespace) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(options.certificate, options.key)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with await headrace.start_server(
        echo, options.host, options.port, ssl=context, ssl_handshake_timeout=10
    ) as server:
        host, port = server.sockets[0].getsockname()[:2]
        print(f"listening on {host} {port}", flush=True)
        await stop.wait()
        server.close_clients()


async def send(options: argparse.Namespace) -> None:
    context = ssl.create_default_context(cafile=options.authority)
    reader, writer = await headrace.open_connection(
        options.host, options.port, ssl=context, server_hostname=options.name
    )
    print(f"{writer.get_extra_info('ssl_object').version()}, {writer.get_extra_info('cipher')[0]}")
    writer.write(" ".join(options.words).encode() + b"\n")
    await writer.drain()
    print(f"received {(await reader.readline()).decode().rstrip()!r}")
    writer.close()
    await writer.wait_closed()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="echo over TLS")
    parser.add_argument("what", choices=("serve", "send"))
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8891, help="serve with 0: any that is free")
    parser.add_argument("--certificate", help="serve: file of the certificate chain")
    parser.add_argument("--key", help="serve: file of its key, where that is another")
    parser.add_argument(
        "--authority", help="send: file of the certificates to trust (default: the system's)"
    )
    parser.add_argument(
        "--name", default="localhost", help="send: the server's name in its certificate"
    )
    parser.add_argument("words", nargs="*")
    options = parser.parse_intermixed_args()
    asyncio.run(serve(options) if options.what == "serve" else send(options))
