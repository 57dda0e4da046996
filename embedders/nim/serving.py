"""Which model a NIM serves: learnt from /v1/models and from the first answer, and held to afterwards.

A NIM that comes back from an outage may serve another model, under another name, of another dimension, or under the
same name with vectors that have nothing in common with the former ones. Some change so without an outage. None of
these may meet the former vectors in an index: such a NIM is refused until the former model is back. Each check of the
embedder compares, and the server checks at least once a minute, whatever the traffic; until then a change of weights
under the same name and dimension is not noticed. Where only callers have keys, a call after a check compares.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from embedders.contract import EmbedderSpec, Vector
from embedders.errors import AnswerInvalid, ModelGone, ModelUnusable
from embedders.nim.profiles import AUTO, PROFILES, ROLE_SUFFIXES, check_profile, choose_profile

SAME_MODEL_COSINE = 0.9
"""How close two vectors of one text by one model are at least: those of two precisions stay above 0.98, those of two
models are far below."""

NAMES_SHOWN = 5
"""How many of the models that a NIM lists a message names."""

NAME_LENGTH = 200
"""Longer names in a list of models are ignored."""


class ServedModel:
    """What is known of the model that a NIM serves. Requests are written and answers are read by it.

    Attributes:
        spec: the embedder's; until it is learnt, `model` and `space` may be empty, or spelt otherwise than by the NIM,
            and `dimension` may be 0.
        profile: of the model's family.
        dimensions: values of a vector to ask for; None for the model's own.
        listed: the models in the NIM's list when it was last asked.
        answers_as: the name in its answers.
    """

    def __init__(
        self,
        spec: EmbedderSpec,
        *,
        profile: str = AUTO,
        max_batch: int | None = None,
        dimensions: int | None = None,
    ) -> None:
        """Begin with what the settings say.

        Args:
            spec: with the model's name, or an empty one, which is then learnt.
            profile: its name; AUTO for the one of the model's name.
            max_batch: inputs of a request; None for the profile's.
            dimensions: values of a vector to ask for; None for the model's own.

        Raises:
            ValueError: the profile is unknown, or does not take max_batch, dimensions or the model's name.
        """
        self.dimensions = dimensions
        self.listed: Sequence[str] = ()
        self.answers_as = ""
        self._wanted = spec.model
        self._profile = profile
        self._max_batch = max_batch
        self._was_listed = False
        self._ready: Vector | None = None
        self.spec = replace(spec, dimension=dimensions or 0)
        self.profile = choose_profile(profile, spec.model)
        if spec.model or profile != AUTO:
            self._take(spec.model)

    @property
    def learnt(self) -> bool:
        """Whether the NIM has shown a vector, to which it is held."""
        return self._ready is not None

    def identify(self, listed: Sequence[str]) -> None:
        """Take the name of the model from the NIM's list, or hold the NIM to the name that was taken before.

        Args:
            listed: the models that the NIM lists; empty if it lists none, or has no list.

        Raises:
            ModelUnusable: no model is set and the list does not tell which one to use; or the settings do not fit it.
            ModelGone: the model has left the list.
        """
        self.listed = listed
        if self.learnt:
            if self._was_listed and listed and self.spec.model not in listed:
                raise ModelGone(self._changed(f"the NIM serves {_shown(listed)} now instead of {self.spec.model}"))
            return
        name = choose_model(self._wanted, listed)
        try:
            self._take(name)
        except ValueError as error:
            raise ModelUnusable(f"the NIM serves {name}: {error}") from error
        self._was_listed = name in listed

    def hold(self, ready: Vector, answered: str) -> None:
        """Take the vector of Vecgate's own text as the model's, or hold the NIM to the one that was taken before.

        Args:
            ready: float32, shape (dimension,), unit length.
            answered: the model's name in the answer.

        Raises:
            AnswerInvalid: the vector has not the dimension that was asked for.
            ModelGone: it is not of the model that was learnt.
        """
        if self.dimensions is not None and len(ready) != self.dimensions:
            raise AnswerInvalid(
                f"the NIM answered a vector of {len(ready)} values, though dimensions asks for {self.dimensions}; "
                f"leave dimensions out, or use a NIM that shortens the vectors of {self.spec.model}"
            )
        if self._ready is None:
            self._ready = ready
            self.spec = replace(self.spec, dimension=len(ready), learnt=True)
        elif len(ready) != len(self._ready):
            were = len(self._ready)
            raise ModelGone(self._changed(f"the NIM answers vectors of {len(ready)} values, and of {were} before"))
        elif (near := float(ready @ self._ready)) < SAME_MODEL_COSINE:
            raise ModelGone(self._changed(f"the NIM's vector of one text is not what it was: cosine {near:.2f}"))
        self.answers_as = answered

    @property
    def serves(self) -> str:
        """What the NIM lists instead of the model, in words; empty if it lists the model or nothing."""
        return "" if self.spec.model in self.listed or not self.listed else f"; it serves {_shown(self.listed)}"

    def without_modality(self) -> None:
        """Note that the NIM does not know the field `modality`, as older releases for models that read texts only."""
        self.profile = replace(self.profile, modalities=False)

    def _take(self, name: str) -> None:
        profile = choose_profile(self._profile, name)
        check_profile(profile, name, max_batch=self._max_batch, dimensions=self.dimensions)
        self.profile = profile
        self.spec = replace(
            self.spec,
            model=name,
            space=space_of(name, self.dimensions),
            modalities=profile.reads,
            max_batch=self._max_batch or profile.batch,
        )

    def _changed(self, what: str) -> str:
        return (
            f"{what}; its vectors must not meet those of {self.spec.space}: bring that model back, or restart this "
            "server and make new named vectors for the other one"
        )


def space_of(model: str, dimensions: int | None) -> str:
    """Return the space of a NIM's model: its name, with @ and the dimension if one is asked for; empty if unknown.

    A dimension that is asked for is always named, even if it is the model's own, which is not known beforehand.
    """
    return model if dimensions is None or not model else f"{model}@{dimensions}"


def choose_model(wanted: str, listed: Sequence[str]) -> str:
    """Return the name to send: the wanted one as the NIM spells it, or else the one embedding model that it lists.

    Raises:
        ModelUnusable: none is wanted, and the list does not tell which one to use.
    """
    names = [each for each in listed if not any(each == other + end for other in listed for end in ROLE_SUFFIXES)]
    return choose_name(wanted, listed, names, known=lambda each: choose_profile(AUTO, each) is not PROFILES["plain"])


def choose_name(wanted: str, listed: Sequence[str], names: Sequence[str], *, known: Callable[[str], bool]) -> str:
    """Return the wanted name as the NIM spells it, or else the only one that is known, or the only one.

    Args:
        wanted: the name in the settings; empty if none is set.
        listed: the names that the NIM lists.
        names: those to choose among.
        known: whether a name is of a family of models that do what is wanted.

    Raises:
        ModelUnusable: none is wanted, and the list does not tell which one to use.
    """
    if wanted:
        same = [each for each in listed if each.lower() == wanted.lower()]
        return wanted if wanted in listed or not same else same[0]
    fitting = [each for each in names if known(each)]
    for found in (fitting, names):
        if len(found) == 1:
            return found[0]
    if not names:
        raise ModelUnusable("the NIM lists no model at /v1/models; set model to the name of the one to use")
    raise ModelUnusable(f"the NIM serves several models, {_shown(fitting or names)}; set model to the one to use")


def read_models(body: bytes) -> list[str]:
    """Return the names in a list of models; none if the body is no such list."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return []
    data = answer.get("data") if isinstance(answer, dict) else None
    names = [each.get("id") for each in data if isinstance(each, dict)] if isinstance(data, list) else []
    return [name for name in names if isinstance(name, str) and name.isprintable() and 0 < len(name) <= NAME_LENGTH]


def _shown(names: Sequence[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
