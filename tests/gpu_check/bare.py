"""The bare model: torch alone, from a batch that is on the device, with random weights; and the service's own pass.

Run as: python -m tests.gpu_check.bare ARCHITECTURE PRECISION DEVICE SECONDS FOLDER. It leaves the model in the folder,
in open_clip's form, unless it is there.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from embedders.clip.graphs import CudaRecorder, RecordedPasses, Recorder
from embedders.clip.packed import PackedTower
from embedders.clip.reading import Reader, Text
from embedders.clip.replica import Replica
from embedders.contract import InputLimits, TextInput
from tests.fakes.tiny_clip import write_tiny_clip
from tests.gpu_check.children import say, time_for
from tests.gpu_check.inputs import Inputs

TINY, COMPILED = "tiny", "ViT-B-32"
BATCHES = (1, 8, 32, 128)
CPU_BATCHES = (1, 32)
COMPILE_S = 50.0
"""Seconds that torch.compile may take for one shape."""

SERVED_BATCH = 32
"""The service's largest batch by default."""


def main(architecture: str, precision: str, device: str, seconds: float, folder: Path) -> None:
    """Measure a model in one precision."""
    import open_clip
    import torch

    say(**machine(device))
    if device == "cpu":
        torch.set_num_threads(1)  # what is run there is small
    began_s = time.perf_counter()
    model = made(architecture, precision, device, folder)
    say(part="made", seconds=time.perf_counter() - began_s)
    reader = Reader(open_clip.SimpleTokenizer(), limits=InputLimits())
    measure = partial(_measure, precision=precision, device=device, seconds=seconds)
    tower = PackedTower.of(model)
    assert tower is not None
    with torch.inference_mode():
        for batch in BATCHES if device != "cpu" else CPU_BATCHES:
            measure(model.encode_image, _pixels(model, precision, device, batch), what="pictures")
            measure(tower.encode_padded, _tokens(reader, device, batch), what="texts")
    _measure_steps(model, reader, device, seconds)
    for graphs in (False, True):
        _measure_replica(model, reader, precision, device, seconds, graphs=graphs)
    if device != "cpu" and architecture == COMPILED:
        with torch.inference_mode():
            _measure_compiled(model, measure, _pixels(model, precision, device, SERVED_BATCH))


def machine(device: str) -> dict[str, Any]:
    """Return what the figures depend on: GPU and versions."""
    import open_clip
    import torch
    import torchvision

    gpu = {} if device == "cpu" else {"gpu": torch.cuda.get_device_name(0), "gpus": torch.cuda.device_count()}
    return {
        "part": "machine",
        **gpu,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "torchvision": torchvision.__version__,
        "open_clip": open_clip.__version__,
    }


def made(architecture: str, precision: str, device: str, folder: Path) -> Any:
    """Return a model with random weights, and leave it in a folder.

    Weights are made on the device: a CPU takes many seconds for the random numbers of a large model.
    """
    import open_clip
    import torch
    from safetensors.torch import save_file

    if architecture == TINY:
        if not folder.exists():
            write_tiny_clip(folder, text={"context_length": 77})
        source = f"local-dir:{folder}"
    else:
        source = architecture
    torch.manual_seed(0)
    with torch.device(device):
        model = open_clip.create_model(source, device=device, precision=precision)
    if not folder.exists():
        unfinished = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        config = {"model_cfg": open_clip.get_model_config(architecture), "preprocess_cfg": model.visual.preprocess_cfg}
        (unfinished / "open_clip_config.json").write_text(json.dumps(config))
        state = {name: each.to("cpu", torch.float16).contiguous() for name, each in model.state_dict().items()}
        save_file(state, unfinished / "open_clip_model.safetensors")
        unfinished.rename(folder)
    return model.eval()


def _pixels(model: Any, precision: str, device: str, batch: int) -> Any:
    import open_clip
    import torch

    side = _side(model)
    return torch.randn(batch, 3, side, side, device=device, dtype=open_clip.get_input_dtype(precision))


def _side(model: Any) -> int:
    size = model.visual.image_size
    return int(size if isinstance(size, int) else size[0])


def _texts(reader: Reader, batch: int) -> list[Text]:
    inputs = Inputs("texts", side=1)
    read = reader.texts([TextInput(str(inputs.one())) for _ in range(batch)])
    return [each for each in read if isinstance(each, Text)]


def _tokens(reader: Reader, device: str, batch: int) -> Any:
    """Return token ids cut to the longest text, which changes no vector of these models."""
    import torch

    texts = _texts(reader, batch)
    ids = torch.zeros(batch, max(len(each.ids) for each in texts), dtype=torch.long)
    for row, each in zip(ids, texts, strict=True):
        row[: len(each.ids)] = torch.tensor(each.ids)
    return ids.to(device)


def _measure(
    run: Callable[[Any], Any], batch: Any, *, what: str, precision: str, device: str, seconds: float, by: str = ""
) -> None:
    """Say how many inputs a second a pass takes, as it is and, on a GPU, recorded."""
    cell = {"part": "bare", "what": what, "batch": len(batch)}
    if not time_for(4 * seconds + 2, **cell):
        return
    say(**cell, by=by or "eager", rate=_rate(partial(run, batch), len(batch), seconds))
    if not by:
        recorded = RecordedPasses(run, [tuple(batch.shape)], dtype=batch.dtype, device=device, record=_recorder(device))
        replay = partial(recorded.run, batch, tuple(batch.shape))
        say(**cell, by="graphs", rate=_rate(replay, len(batch), seconds))


class _Unrecorded:
    """Stands for CUDA graphs on a CPU, so that the check does the same there: it runs passes as they are."""

    held_bytes = 0

    def __call__(self, run: Callable[[Any], Any], still: Any) -> Callable[[], Any]:
        return lambda: run(still)


def _recorder(device: str) -> Recorder:
    return CudaRecorder(device) if device != "cpu" else _Unrecorded()


def _measure_compiled(model: Any, measure: Callable[..., None], pixels: Any) -> None:
    """Say what torch.compile would bring, and what it takes to begin; it needs a C compiler."""
    import torch

    if shutil.which("cc") is None and shutil.which("gcc") is None:
        say(part="compile", skipped="there is no C compiler")
        return
    if not time_for(COMPILE_S, part="compile"):
        return
    began_s = time.perf_counter()
    compiled = torch.compile(model.encode_image, dynamic=False)
    compiled(pixels)
    say(part="compile", seconds=time.perf_counter() - began_s, batch=len(pixels))
    measure(compiled, pixels, what="pictures", by="compile")


def _rate(run: Callable[[], object], batch: int, seconds: float) -> float:
    """Return the inputs a second of a pass, of which the next one is started before the last one has ended."""
    _synchronize(run())
    passes, began_s = 0, time.perf_counter()
    last: object = None
    while (took_s := time.perf_counter() - began_s) < seconds or not passes:
        last = run()
        passes += 1
        if passes % 16 == 0:  # else hours of work could be started in a second
            _synchronize(last)
    _synchronize(last)
    took_s = time.perf_counter() - began_s
    return batch * passes / took_s


def _synchronize(result: Any) -> None:
    import torch

    if result.device.type == "cuda":
        torch.cuda.synchronize()


def _measure_steps(model: Any, reader: Reader, device: str, seconds: float) -> None:
    """Say how many inputs a second the steps beside the pass take by themselves, each in one thread."""
    import torch

    pictures = [np.zeros((_side(model), _side(model), 3), np.uint8) for _ in range(SERVED_BATCH)]
    inputs = Inputs("texts", side=1)
    texts = [TextInput(str(inputs.one())) for _ in range(SERVED_BATCH)]

    def copy() -> None:
        batch = torch.from_numpy(np.stack(pictures))
        if device != "cpu":
            batch.pin_memory().to(device, non_blocking=True)
            torch.cuda.synchronize()

    for step, work in (("tokenizing", lambda: reader.texts(texts)), ("copying pixels", copy)):
        if time_for(2 * seconds, part="step", what=step):
            say(part="step", what=step, rate=_rate_of_threads(work, SERVED_BATCH, 1, seconds))


def _measure_replica(model: Any, reader: Reader, precision: str, device: str, seconds: float, *, graphs: bool) -> None:
    """Say how many inputs a second the service's own pass takes: pixels from this machine's memory, vectors back."""
    replica = Replica(model, device=device, reader=reader, precision=precision)
    if graphs:
        began_s = time.perf_counter()
        replica.record(SERVED_BATCH, (_side(model), _side(model)), _recorder(device))
        say(part="recorded", seconds=time.perf_counter() - began_s, held_bytes=replica.held_bytes)
    rng, side = np.random.default_rng(0), _side(model)
    for batch in (each for each in (BATCHES if device != "cpu" else CPU_BATCHES) if each <= SERVED_BATCH):
        pixels = rng.integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
        texts = _texts(reader, batch)
        works = {"pictures": partial(replica.encode_pictures, pixels), "texts": partial(replica.encode_texts, texts)}
        for what, work in works.items():
            for threads in (1, 2):
                by = "graphs" if graphs else "eager"
                cell = {"part": "replica", "what": what, "batch": batch, "by": by, "threads": threads}
                if time_for(3 * seconds, **cell):
                    say(**cell, rate=_rate_of_threads(work, batch, threads, seconds))


def _rate_of_threads(work: Callable[[], object], batch: int, threads: int, seconds: float) -> float:
    """Return the inputs a second of several threads that do the same work."""
    work()

    def some() -> float:
        passes, began_s = 0, time.perf_counter()
        while time.perf_counter() - began_s < seconds or not passes:
            work()
            passes += 1
        return batch * passes / (time.perf_counter() - began_s)

    with ThreadPoolExecutor(threads) as pool:
        return sum(each.result() for each in [pool.submit(some) for _ in range(threads)])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), Path(sys.argv[5]))
