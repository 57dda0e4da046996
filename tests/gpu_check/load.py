"""A process of callers: reads one load a line, runs it, and prints what came of it.

Callers are closed loops: each sends its next call when the last one is answered. Calls that are refused count apart.
"""

import asyncio
import itertools
import json
import statistics
import sys
import time
from collections import Counter
from typing import Any

import grpc

from tests.gpu_check.inputs import Inputs
from vecgate.v1 import embedding_service_pb2 as embedding_pb
from vecgate.v1.embedding_service_pb2_grpc import EmbeddingServiceStub

PATIENCE_S = 20.0
"""The least time-out of a call."""

CHANNELS = 8
"""Connections of a process: one alone carries no more calls at the same time than its server allows."""

OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Connections of their own, or several servers of one port would all get the calls of one.
    ("grpc.use_local_subchannel_pool", 1),
]


async def run(load: dict[str, Any]) -> dict[str, Any]:
    """Run a load: `address`, `kind` and `side` of the inputs, `inputs` a call, `callers`, `seconds`, `seed`."""
    inputs = Inputs(load["kind"], side=load["side"], seed=load["seed"]).messages()
    answered, refused, took_s = 0.0, Counter[str](), list[float]()
    channels = [
        grpc.aio.insecure_channel(load["address"], options=OPTIONS) for _ in range(min(CHANNELS, load["callers"]))
    ]
    stubs = itertools.cycle([EmbeddingServiceStub(channel) for channel in channels])
    began_s = time.perf_counter()
    end_s = began_s + load["seconds"]

    async def caller(stub: Any) -> None:
        nonlocal answered
        while (sent_s := time.perf_counter()) < end_s:
            request = embedding_pb.EmbedInputsRequest(inputs=list(itertools.islice(inputs, load["inputs"])))
            try:
                response = await stub.EmbedInputs(request, timeout=max(PATIENCE_S, 4 * load["seconds"]))
            except grpc.aio.AioRpcError as error:
                refused[error.code().name] += 1
                await asyncio.sleep(0.02)
                continue
            took_s.append(time.perf_counter() - sent_s)
            good = sum(each.HasField("embedding") for each in response.results)
            # Answers behind the end count for the rate as far as they were worked on before it.
            answered += good * min(1.0, (end_s - sent_s) / took_s[-1])
            refused["invalid"] += len(response.results) - good

    await asyncio.gather(*(caller(next(stubs)) for _ in range(load["callers"])))
    for channel in channels:
        await channel.close()
    return {
        "rate": answered / load["seconds"],
        "calls": len(took_s),
        "p50_ms": 1000 * statistics.median(took_s) if took_s else None,
        "p99_ms": 1000 * sorted(took_s)[int(0.99 * (len(took_s) - 1))] if took_s else None,
        "refused": dict(+refused),
    }


if __name__ == "__main__":
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(asyncio.run(run(json.loads(line)))), flush=True)
