"""A client of a line protocol that tries again: each word is a request, each line an answer.

    python examples/line_client.py --port 8888 hello world

What was answered is not asked again. What was not may be asked twice, since nobody knows whether
the server has seen it: do this only with requests that do no harm twice.
"""

import argparse
import asyncio
import random

import headrace

LINE_BYTES = 1000  # no answer is longer


async def ask(host: str, port: int, questions: list[str], answers: list[str], each: float) -> None:
    """Add to *answers* those of the *questions* that have none, each within *each* seconds."""
    async with headrace.connect(host, port, timeout=each) as stream:
        for question in questions[len(answers) :]:
            with stream.deadline(each):
                await stream.write(question.encode(), b"\n")
                line = await stream.readline(limit=LINE_BYTES)
            if not line.endswith(b"\n"):
                raise ConnectionError("the server has ended the connection before its answer")
            answers.append(line.decode(errors="replace").rstrip())


async def main(host: str, port: int, questions: list[str], each: float, tries: int) -> None:
    answers: list[str] = []
    for left in reversed(range(tries)):
        try:
            await ask(host, port, questions, answers, each)
            break
        except OSError as error:  # a lost connection, and every timeout
            if not left:
                raise SystemExit(f"no answer after {tries} tries: {error}") from None
            # Longer each time, and not all clients at the same moment.
            pause = 0.1 * 2 ** (tries - left) * random.uniform(0.5, 1)
            print(f"trying again in {pause:.1f} s: {error}", flush=True)
            await asyncio.sleep(pause)
    for question, answer in zip(questions, answers, strict=True):
        print(f"{question} -> {answer}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="a client of lines that tries again")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8888)
    parser.add_argument("--timeout", type=float, default=5, help="seconds for each answer")
    parser.add_argument("--tries", type=int, default=4)
    parser.add_argument("words", nargs="+")
    options = parser.parse_args()
    asyncio.run(main(options.host, options.port, options.words, options.timeout, options.tries))
