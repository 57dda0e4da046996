"""What the process of a GPU does otherwise than that of a CPU, with a model on the CPU that says it is on a GPU."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from embedders.clip import ClipConfig
from embedders.clip.loading import load
from embedders.clip.messages import Answer
from embedders.clip.running import ServedModel
from embedders.contract import Priority, TextInput
from embedders.errors import EmbedderUnavailable

PROGRAM = """
import socket, sys, threading
from dataclasses import replace
from pathlib import Path
from embedders.clip.config import ClipConfig
from embedders.clip.loading import load
from embedders.clip.model_process import _Owner, _Server, _listener

model_folder, path, owner, broken = sys.argv[1:]
model = load(ClipConfig(model=model_folder, device="cpu"))
together = threading.Barrier(2)

class OnGpu:
    on_cpu = False
    works = broken != "broken"

    def compute_on(self, cores):
        pass

    def encode_texts(self, texts):
        if not self.works:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        together.wait(60)
        return model.replica.encode_texts(texts)

facts = replace(model.facts, devices=("cuda:0",))
held = _Owner(socket.socket(fileno=int(owner)), Path(path).parent)
server = _Server(replace(model, replica=OnGpu()), facts, _listener(Path(path)), held)
print("ready", flush=True)
server.run()
"""


@contextmanager
def gpu_process(model: Path, folder: Path, state: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a process whose socket is 0.sock in a folder."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(model), str(folder / "0.sock"), str(theirs.fileno()), state],
        pass_fds=[theirs.fileno()],
        start_new_session=True,  # it ends its whole group
        stdout=subprocess.PIPE,
        text=True,
    )
    theirs.close()
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        ours.close()  # its owner is gone, so it ends
        process.wait(30)
        process.stdout.close()


async def test_a_gpu_is_given_the_next_batch_while_it_computes_one(tiny_clip: Path, tmp_path: Path) -> None:
    texts = [[TextInput("a red bicycle")], [TextInput("two cars"), TextInput("a dog")]]
    loaded = load(ClipConfig(model=str(tiny_clip), device="cpu"))

    with gpu_process(tiny_clip, tmp_path, "works"):
        model = ServedModel("clip", tmp_path)
        await model.start()
        # Each waits in the model for the other one.
        answers: list[Answer] = await asyncio.gather(*(model.run(each, Priority.BULK) for each in texts))
        await model.close()

    for inputs, answer in zip(texts, answers, strict=True):
        assert answer.vectors is not None
        expected = loaded.replica.encode_texts([loaded.reader.text(each) for each in inputs])  # type: ignore[misc]
        np.testing.assert_allclose(answer.vectors, expected, atol=1e-6)


async def test_a_process_whose_gpu_does_not_answer_any_more_ends_so_that_another_one_follows(
    tiny_clip: Path, tmp_path: Path
) -> None:
    with gpu_process(tiny_clip, tmp_path, "broken") as process:
        model = ServedModel("clip", tmp_path)
        await model.start()
        with pytest.raises(EmbedderUnavailable, match="the model failed: RuntimeError"):
            await model.run([TextInput("a dog")], Priority.BULK)
        assert await asyncio.to_thread(process.wait, 60) == 1
        await model.close()
