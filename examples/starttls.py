"""A connection that begins in plain text and is upgraded to TLS, as in SMTP, IMAP and LDAP.

    python examples/starttls.py serve --port 8892 --certificate server.pem --key server.key
    python examples/starttls.py talk --port 8892 --authority ca.pem

See tls_echo.py for a certificate to try it with.
"""

import argparse
import asyncio
import signal
import ssl

import headrace


async def converse(
    reader: headrace.StreamReader, writer: headrace.StreamWriter, context: ssl.SSLContext
) -> None:
    """Answer commands; STARTTLS upgrades, and only then is there a secret."""
    secure = False
    try:
        while line := await reader.readline():
            command = line.strip().upper()
            if command == b"STARTTLS" and not secure:
                writer.write(b"220 go ahead\n")
                await writer.drain()
                await writer.start_tls(context)
                secure = True
            elif command == b"SECRET":
                writer.write(b"250 the answer is 42\n" if secure else b"530 STARTTLS first\n")
            elif command == b"QUIT":
                writer.write(b"221 bye\n")
                break
            else:
                writer.write(b"500 what?\n")
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
        lambda r, w: converse(r, w, context), options.host, options.port
    ) as server:
        host, port = server.sockets[0].getsockname()[:2]
        print(f"listening on {host} {port}", flush=True)
        await stop.wait()
        server.close_clients()


async def talk(options: argparse.Namespace) -> None:
    reader, writer = await headrace.open_connection(options.host, options.port)

    async def say(command: str) -> None:
        writer.write(command.encode() + b"\n")
        await writer.drain()
        print(f"{command}: {(await reader.readline()).decode().rstrip()}")

    await say("SECRET")
    await say("STARTTLS")
    await writer.start_tls(
        ssl.create_default_context(cafile=options.authority), server_hostname=options.name
    )
    print(f"now {writer.get_extra_info('ssl_object').version()}")
    await say("SECRET")
    await say("QUIT")
    writer.close()
    await writer.wait_closed()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="an upgrade to TLS")
    parser.add_argument("what", choices=("serve", "talk"))
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8892, help="serve with 0: any that is free")
    parser.add_argument("--certificate", help="serve: file of the certificate chain")
    parser.add_argument("--key", help="serve: file of its key, where that is another")
    parser.add_argument(
        "--authority", help="talk: file of the certificates to trust (default: the system's)"
    )
    parser.add_argument(
        "--name", default="localhost", help="talk: the server's name in its certificate"
    )
    options = parser.parse_args()
    asyncio.run(serve(options) if options.what == "serve" else talk(options))
