"""The systems that are compared, each with what it is asked in its own words."""

import base64
import itertools
import json
import os
import subprocess
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path

import grpc
import psutil

from service.process.ports import free_ports
from tests.bench.peers.bare import BareLoop as OpenClip
from tests.bench.peers.inputs import Inputs
from tests.bench.peers.load import Call, Sample, grpc_callers, http_callers, run_callers
from tests.bench.serving import server
from tests.bench.web import process
from tests.environments import python_with
from vecgate.v1 import embedding_service_pb2 as embedding_pb
from vecgate.v1.input_pb2 import Image, Input

HERE = Path(__file__).parent
PATIENCE_S = 600.0
VECTOR_BYTES = 24 * 4
"""Of the smallest model; an answer without vectors is shorter."""

Content = Sequence[str] | bytes


class System(ABC):
    """A running system: it is asked through bytes made beforehand, and its processes' CPU and memory are counted."""

    name: str
    pid: int

    def __init__(self, inputs: Inputs) -> None:
        self._requests = {
            what: itertools.cycle([self.request(each) for each in inputs.of(what)]) for what in inputs.files
        }

    @abstractmethod
    def request(self, content: Content) -> bytes:
        """Return the request for the texts or the image of a file."""

    @abstractmethod
    def callers(self, count: int) -> AbstractAsyncContextManager[list[Call]]:
        """Connect callers."""

    async def load(self, what: str, callers: int, batch: int, seconds: float) -> Sample:
        """Embed inputs of a kind for some seconds, for callers of one file a call."""
        del batch
        items = Inputs.items(what)
        async with self.callers(callers) as connected:
            before_s = self.cpu_s()
            sample = await run_callers(connected, self._requests[what], items, items * VECTOR_BYTES, seconds)
            sample.server_cpu_s = self.cpu_s() - before_s
        return sample

    def processes(self) -> Iterator[psutil.Process]:
        """Yield the system's processes."""
        parent = psutil.Process(self.pid)
        yield from (parent, *parent.children(recursive=True))

    def cpu_s(self) -> float:
        """Return the CPU seconds of all processes so far."""
        total_s = 0.0
        for each in self.processes():
            with suppress(psutil.Error):
                times = each.cpu_times()
                total_s += times.user + times.system
        return total_s

    def pss_mb(self) -> float:
        """Return the memory of all processes; what several share counts once."""
        total = 0
        for each in self.processes():
            with suppress(psutil.Error):
                total += each.memory_full_info().pss
        return total / 2**20


class Vecgate(System):
    """This checkout over gRPC, without its cache."""

    name = "Vecgate"

    def __init__(self, model: Path, inputs: Inputs, ends: ExitStack) -> None:
        super().__init__(inputs)
        running = ends.enter_context(server(model))
        running.wait_for("serving", PATIENCE_S)
        self._address = running.address
        self.pid = running.process.pid

    def request(self, content: Content) -> bytes:
        if isinstance(content, bytes):
            inputs = [Input(image=Image(content=content))]
        else:
            inputs = [Input(text=text) for text in content]
        return embedding_pb.EmbedInputsRequest(inputs=inputs).SerializeToString()

    def callers(self, count: int) -> AbstractAsyncContextManager[list[Call]]:
        return grpc_callers(self._address, "/vecgate.v1.EmbeddingService/EmbedInputs", count)


class Infinity(System):
    """infinity-emb over HTTP, its only way in."""

    name = "infinity"

    def __init__(self, folder: Path, inputs: Inputs, ends: ExitStack) -> None:
        super().__init__(inputs)
        python = python_with(HERE / "requirements-infinity.txt", name="peers/infinity")
        import open_clip

        model = folder / "infinity"
        pairs = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
        write = [python, "-W", "ignore", HERE / "write_infinity.py", model, pairs]
        subprocess.run(write, check=True, capture_output=True, text=True)
        (self._port,) = free_ports(1)
        command = [python.parent / "infinity_emb", "v2", "--model-id", model, "--served-model-name", "clip"]
        command += ["--engine", "torch", "--device", "cpu", "--dtype", "float32", "--no-model-warmup"]
        command += ["--no-vector-disk-cache", "--host", "127.0.0.1", "--port", str(self._port)]
        offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        quiet = {"DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
        running = ends.enter_context(program(command, **offline, **quiet))
        self.pid = running.pid
        wait_for(running, self._answers)

    def _answers(self) -> None:
        urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health", timeout=5).close()

    def request(self, content: Content) -> bytes:
        if isinstance(content, bytes):
            image = f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
            return json.dumps({"model": "clip", "input": [image], "modality": "image"}).encode()
        return json.dumps({"model": "clip", "input": list(content)}).encode()

    def callers(self, count: int) -> AbstractAsyncContextManager[list[Call]]:
        return http_callers(self._port, "/embeddings", count)


class ClipServer(System):
    """clip-server over gRPC, with the requests that its client's library writes."""

    name = "clip-server"

    def __init__(self, folder: Path, inputs: Inputs, ends: ExitStack) -> None:
        python = python_with(HERE / "requirements-clip-server.txt", name="peers/clip-server")
        script = [python, "-W", "ignore", HERE / "serve_clip.py"]
        requests = folder / "clip-server"
        requests.mkdir()
        files = [file for each in inputs.files.values() for file in each]
        subprocess.run([*script, "write", requests, *files], check=True, capture_output=True, text=True)
        self._requests = {
            what: itertools.cycle([(requests / f"{file.name}.request").read_bytes() for file in files])
            for what, files in inputs.files.items()
        }
        (self._port,) = free_ports(1)
        running = ends.enter_context(program([*script, "serve", requests / "weights.pt", str(self._port)]))
        self.pid = running.pid
        wait_for(running, self._answers)

    def _answers(self) -> None:
        with grpc.insecure_channel(f"127.0.0.1:{self._port}") as channel:
            answer = channel.unary_unary("/jina.JinaSingleDataRequestRPC/process_single_data")
            assert len(answer(next(self._requests["text"]), timeout=60)) > VECTOR_BYTES

    def request(self, content: Content) -> bytes:
        raise NotImplementedError

    def callers(self, count: int) -> AbstractAsyncContextManager[list[Call]]:
        return grpc_callers(f"127.0.0.1:{self._port}", "/jina.JinaSingleDataRequestRPC/process_single_data", count)


class BareLoop(System):
    """open_clip by itself in a process of its own, batch after batch: nobody calls it."""

    name = "bare loop"

    def __init__(self, model: Path, inputs: Inputs, ends: ExitStack) -> None:
        self._pipe = ends.enter_context(process(serve_bare, model, inputs))
        self.pid = self._pipe.recv()

    def request(self, content: Content) -> bytes:
        raise NotImplementedError

    def callers(self, count: int) -> AbstractAsyncContextManager[list[Call]]:
        raise NotImplementedError

    async def load(self, what: str, callers: int, batch: int, seconds: float) -> Sample:
        """Embed inputs of a kind for some seconds."""
        del callers
        before_s = self.cpu_s()
        self._pipe.send((what, batch, seconds))
        sample: Sample = self._pipe.recv()
        sample.server_cpu_s = self.cpu_s() - before_s
        return sample


def serve_bare(pipe: Connection) -> None:
    """Run the bare loop's measurements until told to end; the pipe brings the model, the inputs, and what to do."""
    bare = OpenClip(pipe.recv())
    inputs: Inputs = pipe.recv()
    single = {what: inputs.of(what) for what in inputs.files}
    pipe.send(os.getpid())
    while (asked := pipe.recv()) is not None:
        what, batch, seconds = asked
        flat = [each for file in single[what] for each in ([file] if isinstance(file, bytes) else file)]
        endless = itertools.cycle(flat)
        sample, began = Sample(), time.perf_counter()
        while (now := time.perf_counter()) - began < seconds:
            taken = list(itertools.islice(endless, batch))
            (bare.pictures if isinstance(taken[0], bytes) else bare.texts)(taken)
            sample.calls_s.append(time.perf_counter() - now)
            sample.items += batch
        sample.took_s = time.perf_counter() - began
        pipe.send(sample)


@contextmanager
def program(command: Sequence[str | Path], **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a peer, and end it with all that it started."""
    nowhere = subprocess.DEVNULL
    running = subprocess.Popen(command, env=os.environ | environment, stdout=nowhere, stderr=nowhere)
    try:
        yield running
    finally:
        below = psutil.Process(running.pid).children(recursive=True)
        running.terminate()
        with suppress(subprocess.TimeoutExpired):
            running.wait(20)
        for each in below:
            with suppress(psutil.Error):
                each.kill()
        running.kill()
        running.wait()


def wait_for(running: "subprocess.Popen[bytes]", ask: Callable[[], None]) -> None:
    """Wait until a peer answers."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return ask()
        except (OSError, grpc.RpcError, AssertionError):
            assert running.poll() is None, f"{running.args} ended"
            assert time.monotonic() < end, f"{running.args} does not answer"
            time.sleep(0.5)
