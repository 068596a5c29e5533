"""A proxy that speaks TLS to its clients and plain TCP to the server behind it.

    python examples/tls_proxy.py --port 8895 --certificate server.pem --to 127.0.0.1:8888

The file has the private key and the chain of certificates, as PEM. The end of each direction is
passed on by itself; a connection that moves nothing for five minutes is ended.
"""

import argparse
import asyncio
import functools
import ssl

import headrace

IDLE_SECONDS = 300
CONNECT_SECONDS = 10


async def pass_on(client: headrace.Stream, host: str, port: int) -> None:
    """Connect *client* with the server, until both have said everything."""
    try:
        async with headrace.connect(host, port, timeout=CONNECT_SECONDS) as server:
            moved = await headrace.relay(client, server, idle_timeout=IDLE_SECONDS)
            print(f"{moved.a_to_b} bytes there, {moved.b_to_a} back", flush=True)
    except OSError as error:  # cannot connect, a lost connection, every timeout
        print(f"{client.peername}: {error}", flush=True)
        client.abort()  # not an end that looks as if all had come


async def main(options: argparse.Namespace) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(options.certificate)
    host, _, port = options.to.rpartition(":")
    server = headrace.serve(
        functools.partial(pass_on, host=host, port=int(port)),
        options.host,
        options.port,
        ssl=context,
        max_connections_per_peer=100,
        grace=10,
    )
    async with server:
        listening = "listening on {} {}".format(*server.sockets[0].getsockname())
        # Said when serve_forever() has begun to listen to signals.
        asyncio.get_running_loop().call_soon(lambda: print(listening, flush=True))
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="TLS in front of a server without it")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8895, help="0: any that is free")
    parser.add_argument("--certificate", required=True, metavar="FILE")
    parser.add_argument("--to", required=True, metavar="HOST:PORT")
    asyncio.run(main(parser.parse_args()))
