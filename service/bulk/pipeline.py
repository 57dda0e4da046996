"""The pipeline on Ray Data: read, decode, embed, write, all at the same time and each as far ahead as there is room."""

import logging
import math
import os
import pickle
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

# Ray reads these when it is loaded. It would send statistics to its makers, and tell of what Ray Data does by itself;
# and a busy machine needs longer than it waits to start a process that loads our modules.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
os.environ.setdefault("RAY_worker_register_timeout_seconds", "300")
if not os.environ.get("RAY_ADDRESS"):
    # Everyone who reaches a Ray can run programs there: it listens on loopback alone, and asks for a token.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)

import ray
import ray.data
import ray.exceptions
from ray.data import ActorPoolStrategy

from embedders.clip.config import ClipConfig
from embedders.contract import EmbedderSpec
from embedders.errors import EmbedderError
from embedders.images.likeness import Threshold
from embedders.images.scaling import Scaling
from service.bulk.likeness import Measuring, measure
from service.bulk.patience import BulkStopped
from service.bulk.reading import Reading, read_fragment
from service.bulk.stages import Decode, Embed, Target, Write
from service.domain import Collection, NamedVector
from service.errors import CollectionNotBound, ServiceError, SpaceMismatch
from service.settings import ClipSettings, Settings
from service.sources.fragments import Fragment
from service.wiring import local_models

MAX_BLOCKS = 10_000
"""Blocks of fragments that Ray keeps track of; of more fragments, several share one."""
DECODE_ROWS = 64
"""Rows that a decoding process takes at a time."""
EMBED_ROWS = 256
WRITE_ROWS = 400
START_ATTEMPTS = 4
MAX_CAUSES = 20
"""Errors that are followed to the one that began."""
EMBED_SHARE, DECODE_SHARE, WRITE_SHARE, READ_SHARE = 1 / 2, 1 / 4, 1 / 8, 1 / 8
"""Of a machine's processors: what a stage's least processes count as together, at most. With GPUs, of those of the
smallest machine that has one. Ray starts no process for which there is no room, and says nothing."""
PARTS = 10_000
"""Parts of a processor or a GPU that Ray counts in."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many processes each stage has, and how many rows they take at a time; 0 lets `fitting` decide.

    Attributes:
        decoders: processes that decode, at most.
        embedders: processes with an embedder.
        writers: processes that write.
        batch_rows: rows that an embedder takes at a time.
    """

    decoders: int = 0
    embedders: int = 0
    writers: int = 0
    batch_rows: int = 0


@dataclass(frozen=True, slots=True)
class Machine:
    """The processors and the GPUs that Ray may use on one machine."""

    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True, slots=True)
class Layout:
    """How a pipeline is laid out over the machines: processes, and the processors that each one counts as."""

    sizes: Sizes
    read_cpus: float
    decode_cpus: float
    embed_cpus: float
    embed_gpus: float
    write_cpus: float


@dataclass(frozen=True, slots=True)
class LocalModel:
    """What a local model is, once it has been loaded, and how it wants its pictures."""

    spec: EmbedderSpec
    scaling: Scaling


def fitting(asked: Sizes, machines: Sequence[Machine], *, local: bool) -> Layout:
    """Return a layout for the machines there are.

    Args:
        asked: what was asked for.
        machines: those that work, at least one.
        local: whether the embedder is a local model, and not a NIM.
    """
    count, cpus, gpus = len(machines), sum(each.cpus for each in machines), sum(each.gpus for each in machines)
    on_gpu = local and gpus >= 1
    embedders = asked.embedders or (int(gpus) if on_gpu else count if local else max(1, min(8, int(cpus) // 4)))
    writers = asked.writers or max(1, min(8, 2 * count, int(cpus) // 4))
    size, embedders_on_one, writers_on_one = cpus / count, math.ceil(embedders / count), math.ceil(writers / count)
    if on_gpu:
        # Embedders are where the GPUs are, and Ray may put all writers beside them.
        with_gpus = [each for each in machines if each.gpus]
        size, writers_on_one = min(each.cpus for each in with_gpus), writers
        on_one_gpu = math.ceil(embedders / gpus)
        embedders_on_one = min(embedders, math.ceil(on_one_gpu * max(each.gpus for each in with_gpus)))

    def each_of(on_one: int, share: float, most: float) -> float:
        """Return what each of so many processes on one machine counts as."""
        found = min(most, share * size / on_one)
        return float(math.floor(found)) if found >= 1 else _rounded(found)

    # A model on a CPU has the half of each machine; with a GPU, or a NIM, processors are for decoding.
    embed_cpus = each_of(embedders_on_one, EMBED_SHARE, cpus if local and not on_gpu else 1.0)
    embed_gpus = _rounded(1 / on_one_gpu) if on_gpu else 0.0
    decode_cpus, write_cpus = each_of(1, DECODE_SHARE, 1.0), each_of(writers_on_one, WRITE_SHARE, 0.5)
    read_cpus = each_of(1, READ_SHARE, 0.5)
    left = cpus - embedders * embed_cpus - writers * write_cpus - 2 * read_cpus
    sizes = Sizes(asked.decoders or max(1, int(left / decode_cpus)), embedders, writers, asked.batch_rows or EMBED_ROWS)
    return Layout(sizes, read_cpus, decode_cpus, embed_cpus, embed_gpus, write_cpus)


def _rounded(part: float) -> float:
    """Return a part of a processor or a GPU as Ray counts it, and no more."""
    return max(1, math.floor(part * PARTS)) / PARTS


def working_machines(nodes: Sequence[Mapping[str, Any]]) -> list[Machine]:
    """Return the machines of a cluster that work, of what Ray says of all: a head may have no processors for work."""
    resources = [each["Resources"] for each in nodes if each["Alive"]]
    found = [Machine(each["CPU"], each.get("GPU", 0.0)) for each in resources if each.get("CPU", 0.0) > 0]
    return found or [Machine(1.0)]


def start_ray() -> None:
    """Join the cluster of RAY_ADDRESS, or start Ray on this machine alone, on loopback; does nothing if it runs.

    Raises:
        BulkStopped: there is no such cluster.
    """
    if ray.is_initialized():
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if os.environ.get("RAY_ADDRESS"):
        where = quiet
    else:
        cpus = max(2, os.cpu_count() or 1)
        where = {**quiet, "address": "local", "num_cpus": cpus, "include_dashboard": False}
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            ray.init(**where)
            break
        except Exception as error:  # Ray raises bare ones
            ray.shutdown()
            # It waits half a minute for its own processes, which is too little on a busy machine.
            if attempt == START_ATTEMPTS:
                raise BulkStopped(f"Ray does not start: {error}") from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Everything that is done with a fragment.

    Attributes:
        settings: the embedders.
        target: where objects go.
        reading: how rows become objects.
        sizes: how many processes there are, as far as that was asked for.
        truncate: whether texts may be cut to what the model reads.
    """

    settings: Settings
    target: Target
    reading: Reading
    sizes: Sizes
    truncate: bool

    def outcomes(self, fragments: Mapping[str, Fragment]) -> Iterator[pa.Table]:
        """Run it, and yield the results of rows: tables as service.bulk.rows describes, without objects.

        Args:
            fragments: what to read, by names of entries of the ledger.

        Raises:
            BulkStopped: a stage cannot go on.
            SpaceMismatch: the model has none of the spaces of the collection's vectors, or not that by which duplicates
                are found.
        """
        start_ray()
        layout = _layout(self.settings, self.sizes)
        with stopping():
            model = self._look_at_model(layout)
            if model is not None:
                check_space(self.target.collection, model.spec, self._compared())
            yield from self._rows(fragments, layout, model).iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=1
            )

    def _compared(self) -> str:
        """Return the named vector by which duplicates are found, if the embedder has to make it; else empty."""
        supplied = {name for name, _ in self.reading.plan.vectors.values()}
        return "" if self.target.compared in supplied else self.target.compared

    def _look_at_model(self, layout: Layout) -> LocalModel | None:
        """Load the local model once, where it will run, and return what it is; None where there are NIMs, or several.

        Raises:
            RayError: it cannot be used.
        """
        if len(self.settings.ordered) > 1 or not (models := local_models(self.settings)):
            return None
        task = ray.remote(num_cpus=layout.embed_cpus, num_gpus=layout.embed_gpus, max_retries=1)(load_model)
        found: LocalModel = ray.get(task.remote(models[0]))
        return found

    def _rows(self, fragments: Mapping[str, Fragment], layout: Layout, model: LocalModel | None) -> ray.data.Dataset:
        """Return the rows as they come out of the last stage."""
        sizes = layout.sizes
        items = [{"name": name, "fragment": pickle.dumps(each)} for name, each in fragments.items()]
        read: Any = read_fragment
        reading = self.reading
        if model is not None:
            # A picture of another vector, which nobody makes here, must not cost a row.
            reading = reading.of_vectors({each.name for each in vectors_of(self.target.collection, model.spec)})
        rows = ray.data.from_items(items, override_num_blocks=min(len(items), MAX_BLOCKS)).map_batches(
            read, batch_size=1, batch_format="pyarrow", num_cpus=layout.read_cpus, fn_args=(reading,)
        )
        if model is not None:
            rows = rows.map_batches(
                Decode,
                batch_size=DECODE_ROWS,
                batch_format="pyarrow",
                num_cpus=layout.decode_cpus,
                compute=ActorPoolStrategy(min_size=1, max_size=sizes.decoders),
                fn_constructor_args=(
                    model.spec.limits,
                    model.scaling,
                    _pictures_for(self.target, model),
                    self.target.patience_s,
                ),
            )
        return rows.map_batches(
            Embed,
            batch_size=sizes.batch_rows,
            batch_format="pyarrow",
            num_cpus=layout.embed_cpus,
            num_gpus=layout.embed_gpus,
            compute=ActorPoolStrategy(size=sizes.embedders),
            fn_constructor_args=(self.settings, self.target),
            fn_constructor_kwargs={"truncate": self.truncate},
        ).map_batches(
            Write,
            batch_size=WRITE_ROWS,
            batch_format="pyarrow",
            num_cpus=layout.write_cpus,
            compute=ActorPoolStrategy(size=sizes.writers),
            fn_constructor_args=(self.target,),
        )


def measured_threshold(what: Measuring, sizes: Sizes) -> Threshold:
    """Return from which cosine on pictures are near-duplicates, measured where the embedders will run.

    Args:
        what: what is measured.
        sizes: of the pipeline.

    Raises:
        BulkStopped: it cannot be measured.
    """
    start_ray()
    layout = _layout(what.settings, sizes)
    with stopping():
        task = ray.remote(num_cpus=layout.embed_cpus, num_gpus=layout.embed_gpus, max_retries=1)(measure)
        found: Threshold = ray.get(task.remote(what))
    return found


def _layout(settings: Settings, sizes: Sizes) -> Layout:
    machines = working_machines(ray.nodes())  # type: ignore[no-untyped-call]
    local = any(isinstance(each, ClipSettings) for each in settings.ordered.values())
    return fitting(sizes, machines, local=local)


@contextmanager
def stopping() -> Iterator[None]:
    """Turn what Ray raises into one error that says what is wrong, without the frames of Ray's processes.

    Raises:
        BulkStopped: a stage raised it, or something nobody expects.
    """
    try:
        yield
    except ray.exceptions.RayError as error:
        own = _own_cause(error)
        raise BulkStopped(own or f"a process of the pipeline failed: {_last_line(error)}") from error


def _own_cause(error: BaseException | None) -> str | None:
    """Return the words of the error of this project that is behind one of Ray's; None if there is none."""
    seen = 0
    while error is not None and seen < MAX_CAUSES:
        if isinstance(error, BulkStopped | EmbedderError | ServiceError):
            return str(error.args[0]) if error.args else str(error)
        error, seen = getattr(error, "cause", None) or error.__cause__, seen + 1
    return None


def _last_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[-1][:500] if str(error).strip() else type(error).__name__


def load_model(config: ClipConfig) -> LocalModel:
    """Load a model and forget it. Runs in a process of Ray."""
    from embedders.clip.loading import load  # noqa: PLC0415 -- torch, where there is a local model only

    facts = load(config).facts
    return LocalModel(facts.spec, facts.scaling)


def _pictures_for(target: Target, model: LocalModel) -> list[str]:
    """Return the properties whose pictures the model embeds."""
    vectors = vectors_of(target.collection, model.spec)
    return sorted({field.name for vector in vectors for field in vector.image_fields})


def vectors_of(collection: Collection, spec: EmbedderSpec) -> list[NamedVector]:
    """Return the named vectors that a model makes."""
    return [each for each in collection.vectors if each.space and each.space.id in (spec.space, spec.model)]


def check_space(collection: Collection, spec: EmbedderSpec, needed: str = "") -> None:
    """Check that the embedder has the space of one of the collection's vectors, before any work is done.

    Args:
        collection: where objects go.
        spec: the embedder's.
        needed: a named vector that it has to make; empty if any will do.

    Raises:
        CollectionNotBound: no named vector is bound to a space.
        SpaceMismatch: all are bound to others, or the one that is needed.
    """
    bound = [each for each in collection.vectors if each.space is not None]
    if not bound:
        raise CollectionNotBound(collection.name, collection.vectors[0].name if collection.vectors else "")
    made = [each for each in bound if (each.name == needed if needed else each.image_fields or each.text_fields)]
    if made and not any(each in made for each in vectors_of(collection, spec)):
        first = made[0]
        assert first.space is not None, "it is bound"
        raise SpaceMismatch(
            vector=first.name,
            bound=first.space.id,
            given=spec.space,
            bound_dimension=first.space.dimension,
            given_dimension=spec.dimension,
        )
