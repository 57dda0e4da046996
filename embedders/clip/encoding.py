"""A loaded model that does jobs: reads their inputs, runs forward passes, and splits batches that do not fit."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedders.clip.loading import LoadedModel
from embedders.clip.messages import Answer, CleanedText, Job, Pixels, Row
from embedders.clip.reading import Text
from embedders.clip.sizing import BatchSizer
from embedders.contract import TextInput
from embedders.errors import EmbedderError, EmbedderUnavailable, InputRejected
from embedders.images.pixels import opened


class Encoder:
    """Does jobs, one at a time."""

    def __init__(self, model: LoadedModel) -> None:
        """Run a model that is ready."""
        spec = model.facts.spec
        self._model = model
        self._name = spec.name
        self._texts = BatchSizer(spec.max_batch)
        self._pictures = BatchSizer(spec.max_images or spec.max_batch)

    def answer(self, job: Job) -> Answer:
        """Do a job. What the model or a library raises is an error in the answer."""
        try:
            if isinstance(job.content, Pixels):
                return self._embed_pictures(job.number, job.content)
            return self._embed_texts(job.number, job.content)
        except EmbedderError as error:
            return Answer(job.number, error=error)
        except Exception as error:  # noqa: BLE001 -- the caller is told, and the next job may work
            failed = EmbedderUnavailable(f"the model of {self._name} failed: {type(error).__name__}")
            return Answer(job.number, error=failed)

    def _embed_texts(self, number: int, inputs: Sequence[TextInput | CleanedText]) -> Answer:
        reader = self._model.reader
        texts = [reader.text(each) if isinstance(each, TextInput) else reader.cleaned(each) for each in inputs]
        ready = [each for each in texts if isinstance(each, Text)]
        encoded = iter(self._texts.run(self._model.replica.encode_texts, ready, self._model.own_text))
        return _answer(
            number,
            [
                each if isinstance(each, InputRejected) else (next(encoded), each.count, each.truncated)
                for each in texts
            ],
        )

    def _embed_pictures(self, number: int, pixels: Pixels) -> Answer:
        shape = self._model.own_pixels.shape
        pictures = [opened(pixels.place, each, shape, np.uint8) for each in pixels.slots]
        encoded = self._pictures.run(_stacked(self._model.replica.encode_pictures), pictures, self._model.own_pixels)
        return _answer(number, [(each, None, False) for each in encoded])


def _stacked(encode: Callable[[NDArray[np.uint8]], Any]) -> Callable[[Sequence[NDArray[np.uint8]]], Any]:
    return lambda pictures: encode(np.stack(pictures))


def _answer(number: int, outcomes: Sequence[InputRejected | tuple[Any, int | None, bool]]) -> Answer:
    rows: list[Row] = []
    vectors = []
    for each in outcomes:
        # Rejected before the model saw it, or by the model.
        rejected = each if isinstance(each, InputRejected) else each[0]
        if isinstance(rejected, InputRejected):
            rows.append(rejected)
        elif not isinstance(each, InputRejected):
            vectors.append(each[0])
            rows.append(each[1:])
    return Answer(number, rows, np.stack(vectors) if vectors else None)
