"""A typical program with redis-py's asyncio client, which knows nothing of headrace. It prints
redis' answers.

    python redis_program.py asyncio hiredis PORT TLS_PORT SOCKET AUTHORITY
    headrace run redis_program.py headrace hiredis PORT TLS_PORT SOCKET AUTHORITY

The first argument is whose streams the connections must be made of; all other lines are alike for
both.
"""

import asyncio
import hashlib
import sys

import redis
import redis.asyncio
from redis._parsers import _AsyncHiredisParser, _AsyncRESP2Parser, _AsyncRESP3Parser
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

PARSERS = {
    "python2": (_AsyncRESP2Parser, 2),
    "python3": (_AsyncRESP3Parser, 3),
    "hiredis": (_AsyncHiredisParser, 3),
}
LARGE = hashlib.shake_256(b"large").digest(5_000_000)


def short(value):
    """Return *value*, or the hash of one that nobody wants to read."""
    return value if len(value) < 100 else f"{len(value)} bytes, {hashlib.sha256(value).hexdigest()}"


async def strings(client):
    print(
        "set",
        await client.set("greeting", "hello"),
        await client.append("greeting", " there"),
        await client.get("greeting"),
    )
    print(
        "bytes",
        await client.set("bytes", bytes(range(256)) + b"\r\n"),
        short(await client.get("bytes")),
    )
    print(
        "counter",
        [await client.incr("counter") for _ in range(5)],
        await client.incrbyfloat("counter", 0.5),
    )
    print(
        "nothing",
        await client.get("nothing"),
        await client.set("empty", ""),
        await client.get("empty"),
    )
    print("expiry", await client.set("brief", 1, ex=100), 90 < await client.ttl("brief") <= 100)
    try:
        await client.lpush("greeting", 1)
    except redis.ResponseError as error:
        print("error", error)


async def hashes(client):
    fields = {f"field {number}": "x" * number for number in range(200)}
    print("hset", await client.hset("hash", mapping=fields), await client.hget("hash", "field 3"))
    found = await client.hgetall("hash")
    print("hgetall", {name.decode(): value.decode() for name, value in found.items()} == fields)
    print("hscan", len([name async for name, _ in client.hscan_iter("hash", count=10)]))
    print(
        "zset",
        await client.zadd("scores", {"a": 1.5, "b": 2}),
        await client.zrange("scores", 0, -1, withscores=True),
    )


async def pipelines(client):
    async with client.pipeline(transaction=False) as pipeline:
        for number in range(1000):
            pipeline.set(f"key {number}", number)
            pipeline.get(f"key {number}")
        answers = await pipeline.execute()
    print(
        "pipeline",
        len(answers),
        answers[1::2] == [b"%d" % number for number in range(1000)],
        set(answers[::2]),
    )
    async with client.pipeline(transaction=True) as pipeline:
        print(
            "transaction",
            await pipeline.set("a", 1)
            .incr("a")
            .lrange("a", 0, 1)
            .get("a")
            .execute(raise_on_error=False),
        )
        await pipeline.watch("a")
        await client.set("a", 10)
        pipeline.multi()
        pipeline.incr("a")
        try:
            await pipeline.execute()
        except redis.WatchError as error:
            print("watched", error)


async def blocking(client):
    print("too late", await client.blpop("queue", timeout=0.05))
    waiting = asyncio.create_task(client.blpop(["queue", "other"], timeout=10))
    while not any(each["cmd"] == "blpop" for each in await client.client_list()):
        pass
    print("push", await client.rpush("other", "work"), await waiting)
    waiting = asyncio.create_task(client.blpop("queue", timeout=10))
    while not any(each["cmd"] == "blpop" for each in await client.client_list()):
        pass
    # One more turn: in Python 3.11 wait_for(), which redis-py sends with, swallows a cancellation
    # that comes just as it ends.
    await client.ping()
    waiting.cancel()
    try:
        await waiting
    except asyncio.CancelledError:
        # redis-py drops that connection; redis may take an element for it until it has noticed.
        while any(each["cmd"] == "blpop" for each in await client.client_list()):
            pass
    print("after a cancellation", await client.rpush("queue", "kept"), await client.lpop("queue"))


async def publish_and_subscribe(client):
    async with client.pubsub() as pubsub:
        await pubsub.subscribe("news")
        await pubsub.psubscribe("n*")
        for _ in range(2):
            print("subscribed", await pubsub.get_message(timeout=10))
        print("published", await client.publish("news", "first"))
        print("heard", [await pubsub.get_message(timeout=10) for _ in range(2)])
        print("silence", await pubsub.get_message(timeout=0.05))
        async with client.pipeline(transaction=False) as pipeline:
            for number in range(500):
                pipeline.publish("news", "x" * number)
            print("published", set(await pipeline.execute()))
        print(
            "heard", sum([len((await pubsub.get_message(timeout=10))["data"]) for _ in range(1000)])
        )
        await pubsub.unsubscribe()
        await pubsub.punsubscribe()
        print("unsubscribed", [(await pubsub.get_message(timeout=10))["type"] for _ in range(2)])


async def large_values(client):
    print("large", await client.set("large", LARGE), short(await client.get("large")))
    async with client.pipeline(transaction=False) as pipeline:
        for number in range(4):
            pipeline.set(f"large {number}", LARGE[number:]).get(f"large {number}")
        answers = await pipeline.execute()
    print("large pipeline", [short(value) for value in answers[1::2]])
    print("part", short(await client.getrange("large", 1_000_000, 3_999_999)))


async def concurrently(client, count):
    async def work(number):
        for turn in range(20):
            await client.set(f"c{number}", "x" * (number * turn))
            assert await client.get(f"c{number}") == b"x" * (number * turn)
            await client.incr("together")
        return number

    print(
        "at once", sum(await asyncio.gather(*map(work, range(count)))), await client.get("together")
    )
    print(
        "waiting",
        set(
            await asyncio.gather(
                *(client.blpop(f"never {number}", timeout=0.1) for number in range(count))
            )
        ),
    )
    print("connections", len(await client.client_list()) >= count)


async def killed(make):
    victim, killer = make(single_connection_client=True), make()
    number = await victim.client_id()
    print("kill", await killer.client_kill_filter(_id=number))
    try:
        await victim.get("greeting")
    except redis.ConnectionError as error:
        print("killed", type(error).__name__)
    print("again", await victim.get("greeting"), await victim.client_id() != number)

    number = await victim.client_id()
    waiting = asyncio.create_task(victim.blpop("never", timeout=10))
    while not any(each["cmd"] == "blpop" for each in await killer.client_list()):
        pass
    print("kill", await killer.client_kill_filter(_id=number))
    try:
        await waiting
    except redis.ConnectionError as error:
        print("killed", type(error).__name__)
    print("again", await victim.get("greeting"))
    await victim.aclose()
    await killer.aclose()


async def exercise(make, streams, connections):
    client = make()
    print("ping", await client.ping())
    connection = await client.connection_pool.get_connection()
    for stream in (connection._reader, connection._writer):
        assert type(stream).__module__.split(".")[0] == streams, type(stream)
    await client.connection_pool.release(connection)
    await client.flushall()
    for part in (strings, hashes, pipelines, blocking, publish_and_subscribe, large_values):
        await part(client)
    await concurrently(client, connections)
    await killed(make)
    await client.aclose()
    print("closed", await make().client_list() != [])


async def main(streams, parser, port, tls_port, path, authority):
    parser_class, protocol = PARSERS[parser]
    common = {"parser_class": parser_class, "protocol": protocol, "retry": Retry(NoBackoff(), 0)}
    tls = {"connection_class": redis.asyncio.SSLConnection, "ssl_ca_certs": authority}
    for name, options in {
        "tcp": {"host": "127.0.0.1", "port": int(port)},
        "unix": {"connection_class": redis.asyncio.UnixDomainSocketConnection, "path": path},
        "tls": {**tls, "host": "localhost", "port": int(tls_port)},
    }.items():
        pools = []

        def make(options=options, pools=pools, **more):
            pools.append(redis.asyncio.ConnectionPool(**common, **options))
            return redis.asyncio.Redis(connection_pool=pools[-1], **more)

        print("====", name)
        # redis-py reads the system's authorities anew for every connection over TLS.
        await exercise(make, streams, connections=10 if name == "tls" else 50)
        for pool in pools:
            await pool.disconnect()


asyncio.run(main(*sys.argv[1:]))
