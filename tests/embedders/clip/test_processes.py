"""The processes that run a model: what ends one costs the batch that it was working on, and nothing is left of them."""

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import psutil
import pytest

from embedders.clip import ClipConfig, ClipEmbedder, processes, running
from embedders.clip.files import MODELS_DIR
from embedders.clip.messages import Job
from embedders.clip.model_process import turn_to_load
from embedders.contract import DOCUMENT, QUERY, Embedding, EmbedOptions, ImageInput, Priority, Purpose, TextInput
from embedders.errors import EmbedderUnavailable, ModelUnusable
from tests.embedders.suite import CAT, DOG, MIXED, EmbedderSuite, vectors
from tests.fakes.embedder import picture
from tests.fakes.models import ServedModels

BULK = EmbedOptions(Purpose.DOCUMENT, Priority.BULK)
TEXTS = [TextInput(f"number {number} of many") for number in range(16)]


class TestContractOverProcesses(EmbedderSuite):
    """The contract, with the model where a server has it."""

    @pytest.fixture
    async def embedder(self, config: ClipConfig, served: ServedModels) -> AsyncIterator[ClipEmbedder]:
        embedder = ClipEmbedder(served(config))
        await embedder.start()
        yield embedder
        await embedder.close()


@dataclass
class Served:
    """An embedder, and the processes that run its model."""

    embedder: ClipEmbedder
    loader: Callable[[], psutil.Process]

    @property
    def serving(self) -> list[psutil.Process]:
        """Those that run it."""
        return self.loader().children()

    @property
    def given(self) -> int:
        """How many jobs they have been given."""
        model = self.embedder._model
        assert isinstance(model, running.ServedModel)
        return sum(len(each.running) for each in model._processes)

    @property
    def waiting(self) -> int:
        """How many jobs wait for a process."""
        model = self.embedder._model
        assert isinstance(model, running.ServedModel)
        return len(model._queue)

    async def hold(self) -> list[psutil.Process]:
        """Let jobs begin and not end: as soon as there are two processes, stop them."""
        await until(lambda: len(self.serving) == 2)
        stopped = self.serving
        for each in stopped:
            each.suspend()
        return stopped


@pytest.fixture
async def two(config: ClipConfig, served: ServedModels) -> AsyncIterator[Served]:
    """Two processes, whatever the number of cores."""
    shared = served(replace(config, device="cpu,cpu", max_batch=16))
    embedder = ClipEmbedder(shared)
    await embedder.start()
    yield Served(embedder, lambda: served.loader(shared))
    await embedder.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


def loaders(parent: int | None = None) -> list[psutil.Process]:
    """Return the processes that loaded a model for this process, or for another one, of this test alone."""
    children = psutil.Process(parent).children()
    return [each for each in children if "model_process" in " ".join(_command(each))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline()) if process.status() != psutil.STATUS_ZOMBIE else []
    except psutil.NoSuchProcess:
        return []


async def test_vectors_are_those_of_a_model_in_this_process(two: Served, embedder: ClipEmbedder) -> None:
    # Not to the bit: a call of sixteen texts is divided.
    np.testing.assert_allclose(
        vectors(await two.embedder.embed([*TEXTS, *MIXED], DOCUMENT)),
        vectors(await embedder.embed([*TEXTS, *MIXED], DOCUMENT)),
        atol=1e-6,
    )
    np.testing.assert_array_equal(
        vectors(await two.embedder.embed([CAT], DOCUMENT)), vectors(await embedder.embed([CAT], DOCUMENT))
    )
    assert (two.embedder.spec.space, two.embedder.spec.slots) == (embedder.spec.space, 2)


async def test_one_call_of_many_texts_is_divided_among_processes_with_nothing_to_do(
    two: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[Job] = []
    write = running._Process._write

    def note(process: running._Process, message: Job) -> None:
        jobs.append(message)
        write(process, message)

    monkeypatch.setattr(running._Process, "_write", note)
    await two.embedder.embed(TEXTS, QUERY)
    await two.embedder.embed(TEXTS[:2], QUERY)

    assert [(len(list(each.content)), each.alone) for each in jobs] == [(8, False), (8, False), (2, True)]  # type: ignore[arg-type]


async def test_a_process_that_is_killed_fails_its_batch_with_the_signal_and_what_waits_is_done(two: Served) -> None:
    stopped = await two.hold()
    begun = [asyncio.create_task(two.embedder.embed([CAT], QUERY)) for _ in range(2)]
    await until(lambda: two.given == 2)
    waiting = [asyncio.create_task(two.embedder.embed([DOG], QUERY)) for _ in range(4)]
    await until(lambda: two.waiting == 4)

    stopped[0].kill()
    done, _ = await asyncio.wait(begun, return_when=asyncio.FIRST_COMPLETED, timeout=60)

    with pytest.raises(EmbedderUnavailable, match="was ended by SIGKILL: try again"):
        await done.pop()
    for each in waiting:
        assert len(vectors(await asyncio.wait_for(each, 60))) == 1
    stopped[1].resume()
    results = await asyncio.gather(*begun, return_exceptions=True)
    assert sorted(isinstance(each, EmbedderUnavailable) for each in results) == [False, True]
    await two.embedder.check()
    assert len(two.serving) == 2


async def works_again(embedder: ClipEmbedder) -> None:
    async with asyncio.timeout(120):
        while True:
            with contextlib.suppress(EmbedderUnavailable):
                await embedder.check()
                break
            await asyncio.sleep(0.1)
    assert len(vectors(await embedder.embed([CAT], QUERY))) == 1


async def test_processes_that_die_idle_are_replaced(two: Served) -> None:
    before = two.serving
    for each in before:
        each.kill()
    await until(lambda: len(two.serving) == 2 and not set(two.serving) & set(before))

    await works_again(two.embedder)


async def test_while_nothing_runs_the_model_checks_fail_and_calls_are_told_until_it_is_loaded_again(
    two: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "PATIENCE_S", 0.1)
    await two.hold()
    running_call = asyncio.create_task(two.embedder.embed([CAT], QUERY))
    await until(lambda: two.given == 1)

    two.loader().kill()

    with pytest.raises(EmbedderUnavailable, match="try again"):
        await asyncio.wait_for(running_call, 60)
    with pytest.raises(EmbedderUnavailable, match="no process runs the model"):
        await two.embedder.check()
    await works_again(two.embedder)


async def test_urgent_work_overtakes_bulk_work_that_waits_and_cancelled_work_is_never_done(two: Served) -> None:
    stopped = await two.hold()
    order: list[str] = []

    async def embed(name: str, options: EmbedOptions) -> None:
        await two.embedder.embed([CAT], options)
        order.append(name)

    begun = [asyncio.create_task(embed("begun", BULK)) for _ in range(2)]
    await until(lambda: two.given == 2)
    cancelled = asyncio.create_task(embed("cancelled", BULK))
    bulk = [asyncio.create_task(embed("bulk", BULK)) for _ in range(2)]
    urgent = [asyncio.create_task(embed("urgent", QUERY)) for _ in range(2)]
    await until(lambda: two.waiting == 5)
    cancelled.cancel()
    stopped[0].resume()  # one by one
    await asyncio.gather(begun[0], *bulk, *urgent)
    stopped[1].resume()
    await begun[1]

    assert order == ["begun"] + ["urgent"] * 2 + ["bulk"] * 2 + ["begun"]


async def test_servers_that_share_processes_each_get_their_answers_and_one_that_leaves_takes_its_jobs_along(
    config: ClipConfig, served: ServedModels
) -> None:
    one, other = (ClipEmbedder(served(config)) for _ in range(2))
    await asyncio.gather(one.start(), other.start())

    calls = [asyncio.create_task(each.embed(MIXED, QUERY)) for each in (one, other) for _ in range(8)]
    leaving = asyncio.create_task(one.embed(MIXED * 8, QUERY))
    answers = [vectors(each) for each in await asyncio.gather(*calls)]
    await one.close()

    with contextlib.suppress(EmbedderUnavailable):
        await leaving
    for each in answers:
        np.testing.assert_allclose(each, answers[0], atol=1e-6)
    assert len(vectors(await other.embed(MIXED, QUERY))) == len(MIXED)
    await other.close()


async def test_closing_fails_calls_and_leaves_no_process_even_if_one_hangs(config: ClipConfig) -> None:
    embedder = ClipEmbedder(replace(config, device="cpu,cpu"))
    await embedder.start()
    processes, model = embedder._processes, embedder._model
    assert processes is not None
    assert isinstance(model, running.ServedModel)
    loader = processes._loaders[0]._process
    assert loader is not None
    running_there = [psutil.Process(loader.pid), *psutil.Process(loader.pid).children()]
    for each in running_there[1:]:
        each.suspend()
    hanging = asyncio.create_task(embedder.embed([CAT], QUERY))
    await until(lambda: any(each.running for each in model._processes))

    await embedder.close()

    with pytest.raises(EmbedderUnavailable):
        await hanging
    _, alive = await asyncio.to_thread(psutil.wait_procs, running_there, 60)
    assert len(running_there) == 3
    assert not alive
    assert not processes.folder.exists()


@contextlib.asynccontextmanager
async def server_of(config: ClipConfig, files: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a server with two processes for a model, and its temporary files in a folder; it says when it is ready."""
    code = (
        "import asyncio, sys; from embedders.clip import ClipConfig, ClipEmbedder\n"
        "async def run():\n"
        f"    embedder = ClipEmbedder(ClipConfig(model={config.model!r}, device='cpu,cpu'))\n"
        "    await embedder.start(); print('ready', flush=True)\n"
        "    await embedder.embed([], None); await asyncio.sleep(600)\n"
        "asyncio.run(run())"
    )
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=subprocess.PIPE, env=os.environ | {"TMPDIR": files}
    )
    try:
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.kill()
        await server.wait()


@pytest.fixture
def files() -> Iterator[str]:
    """A folder whose path is short enough for sockets in it."""
    with tempfile.TemporaryDirectory() as folder:
        yield folder


@pytest.mark.parametrize("template_first", [False, True])
async def test_a_server_that_is_killed_leaves_no_process_and_no_file(
    config: ClipConfig, files: str, *, template_first: bool
) -> None:
    async with server_of(config, files) as server:
        assert server.stdout is not None
        assert await asyncio.wait_for(server.stdout.readline(), 120) == b"ready\n"
        (loader,) = loaders(server.pid)
        processes = [loader, *loader.children()]
        processes[1].suspend()  # as one that hangs
        sockets = [name for _, _, names in os.walk(files) for name in names]

        if template_first:
            server.send_signal(signal.SIGSTOP)
            processes[1].resume()
            loader.kill()
        server.kill()
        await server.wait()

    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, 60)
    assert len(processes) == 3
    assert len(sockets) == 2
    assert not alive
    assert not [name for _, *names in os.walk(files) for name in chain(*names)]


async def test_a_server_that_is_killed_while_its_model_is_loaded_leaves_no_process_and_no_file(
    config: ClipConfig, files: str
) -> None:
    async with server_of(config, files) as server:
        await until(lambda: bool(loaders(server.pid)))
        (loader,) = loaders(server.pid)
        server.kill()
        await server.wait()

    _, alive = await asyncio.to_thread(psutil.wait_procs, [loader], 120)
    assert not alive
    assert not [name for _, *names in os.walk(files) for name in chain(*names)]


@pytest.mark.skipif(sys.platform != "linux", reason="processes have other parents elsewhere")
async def test_the_first_process_of_a_container_leaves_no_zombies_of_a_loader_that_was_killed(
    config: ClipConfig,
) -> None:
    code = (
        "import asyncio, ctypes, os, psutil; from embedders.clip import ClipConfig\n"
        "from embedders.clip.processes import ModelProcesses\n"
        "ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: orphans become its children\n"
        "async def run():\n"
        f"    processes = ModelProcesses(ClipConfig(model={config.model!r}, device='cpu,cpu'))\n"
        "    await processes.start()\n"
        "    (loader,) = psutil.Process().children()\n"
        "    while len(served := loader.children()) < 2:\n"
        "        await asyncio.sleep(0.01)\n"
        "    loader.kill()\n"
        "    while any(each.is_running() and each.status() != 'zombie' for each in (loader, *served)):\n"
        "        await asyncio.sleep(0.01)\n"
        "    await processes.close()\n"
        "    print(len(served), len(psutil.Process().children()))\n"
        "asyncio.run(run())"
    )
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
    out, _ = await asyncio.wait_for(server.communicate(), 120)
    assert out == b"2 0\n"


async def test_a_model_that_cannot_be_loaded_is_explained_as_in_this_process(config: ClipConfig) -> None:
    embedder = ClipEmbedder(replace(config, model="ViT-B-23"))

    with pytest.raises(ModelUnusable, match=r"embedder clip: .*did you mean ViT-B-32"):
        await embedder.start()

    await embedder.close()


async def test_a_process_that_ends_while_it_loads_is_not_taken_for_a_broken_model(
    config: ClipConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A busy machine may need longer than that to run even this program.
    monkeypatch.setattr(processes, "END_S", 60)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    failing = ClipEmbedder(config)
    with pytest.raises(EmbedderUnavailable, match=r"ended with exit code 1"):
        await failing.start()
    await failing.close()

    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    missing = ClipEmbedder(config)
    with pytest.raises(EmbedderUnavailable, match="cannot be started"):
        await missing.start()
    await missing.close()


async def test_closing_while_the_model_loads_ends_the_process(config: ClipConfig) -> None:
    embedder = ClipEmbedder(config)
    start = asyncio.create_task(embedder.start())
    before = set(loaders())
    await until(lambda: bool(set(loaders()) - before) or start.done())

    await embedder.close()

    with pytest.raises(EmbedderUnavailable):
        await start
    assert not set(loaders()) - before


async def test_the_processes_know_no_secret_and_the_server_has_no_torch() -> None:
    code = (
        "import asyncio, os, sys; from embedders.clip import ClipConfig, ClipEmbedder\n"
        "from embedders.contract import QUERY, TextInput\n"
        "import psutil\n"
        "async def run():\n"
        "    embedder = ClipEmbedder(ClipConfig(device='cpu'))\n"
        "    await embedder.start()\n"
        "    await embedder.embed([TextInput('a dog')], QUERY)\n"
        "    (loader,) = psutil.Process().children()\n"
        "    known = {value for each in [loader, *loader.children()] for value in each.environ().values()}\n"
        "    heavy = {'torch', 'open_clip', 'transformers', 'torchvision'}\n"
        "    print(sorted(heavy & set(sys.modules)), 'sesame' in known)\n"
        "    await embedder.close()\n"
        "asyncio.run(run())"
    )
    environment = os.environ | {"VECGATE_EMBEDDERS__NIM__API_KEY": "sesame"}
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    out, errors = await asyncio.wait_for(server.communicate(), 120)
    assert out == b"[] False\n", errors


async def test_a_close_that_is_cancelled_leaves_no_process_and_no_folder() -> None:
    before = set(loaders())
    model = processes.ModelProcesses(ClipConfig(device="cpu"))
    await model.start()
    watch = model._loaders[0]._watch
    assert watch is not None
    close = asyncio.create_task(model.close())
    async with asyncio.timeout(60):
        while not watch.cancelling():
            await asyncio.sleep(0)
    close.cancel()

    with pytest.raises(asyncio.CancelledError):
        await close

    assert not set(loaders()) - before
    assert not model.folder.exists()


async def test_models_load_one_after_the_other() -> None:
    turns: list[str] = []
    second_waits = threading.Event()

    def second() -> None:
        second_waits.set()
        with turn_to_load():
            turns.append("second")

    with turn_to_load():
        waiting = asyncio.create_task(asyncio.to_thread(second))
        assert await asyncio.to_thread(second_waits.wait, 60)
        await asyncio.sleep(0.05)
        turns.append("first")
    await waiting

    assert turns == ["first", "second"]


async def test_the_bundled_model_has_what_its_process_leaves_out_of_the_libraries(
    served: ServedModels,
) -> None:
    embedder = ClipEmbedder(served(ClipConfig(device="cpu")))
    await embedder.start()
    picture = (MODELS_DIR.parents[1] / "tests" / "data" / "pictures" / "dog.png").read_bytes()

    outcomes = await embedder.embed([TextInput("a dog"), ImageInput(picture), TextInput("a pizza")], QUERY)
    await embedder.close()

    assert all(isinstance(each, Embedding) for each in outcomes)


async def test_a_picture_whose_call_was_cancelled_gives_its_slot_back_without_a_collection_of_garbage(
    embedder: ClipEmbedder,
) -> None:
    memory = embedder._memory
    assert memory is not None
    free = len(memory._free)
    gc.disable()
    try:
        for _ in range(3):
            call = asyncio.create_task(embedder.read(ImageInput(picture())))
            while len(memory._free) == free:
                await asyncio.sleep(0)
            call.cancel()
            # As the pool of readers leaves it: nobody asks how it ended.
            await asyncio.wait([call])
            assert call.cancelled()
            del call
            await until(lambda: len(memory._free) == free)
    finally:
        gc.enable()
