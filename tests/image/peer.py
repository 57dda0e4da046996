"""What the container under test meets in its network: `nim` serves a NIM, `call ADDRESS` makes an EmbedInputs call."""

import asyncio
import json
import sys

from tests.fakes.embedder import picture
from tests.fakes.nim import FakeNim
from vecgate.client import Client, Health

TEXTS = ("a dog", "a bicycle")


async def serve_nim() -> None:
    """Serve a NIM on a free port of loopback until this process is ended; its address is printed."""
    async with FakeNim() as nim:
        sys.stdout.write(f"{nim.base_url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def call(address: str) -> dict[str, object]:
    """Embed two texts and a picture, and return what came back."""
    with Client(address) as client:
        answer = client.embed([*TEXTS, picture()])
        return {
            "alive": client.health("liveness") is Health.SERVING,
            "embedding": client.health("vecgate.v1.EmbeddingService") is Health.SERVING,
            # Weaviate is not there.
            "whole": client.health() is Health.SERVING,
            "model": answer.embedder.model,
            "shape": list(answer.matrix().shape),
        }


if __name__ == "__main__":
    if sys.argv[1] == "nim":
        asyncio.run(serve_nim())
    else:
        json.dump(call(sys.argv[2]), sys.stdout)
