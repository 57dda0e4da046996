"""torch and open_clip, loaded without what most models do not use: that is two thirds of loading them."""

import gc
import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from embedders.errors import ModelUnusable

_LEFT_OUT = ("timm", "transformers")
"""open_clip does without them where they are not installed. It builds the towers of some models with them."""

_COMPILER = "torch._dynamo"
"""The half of torch that compiles models. torchvision asks it one question, for a detector of objects."""


def import_open_clip() -> tuple[Any, Any]:
    """Return torch and open_clip, which is told not to download anything.

    Raises:
        ModelUnusable: a package is not installed.
    """
    # The libraries behind open_clip fetch what they miss unless they are told otherwise, before their import or after.
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    # A torch thread that waits for another one spins, and takes the core that the other one needs; asleep it leaves the
    # core, but wakes late. So it spins for about 0.1 ms and then sleeps. On two cores, beside sleeping at once, one
    # caller alone got 1.55 times as many texts and 1.2 times as many pictures, 8 and 64 callers as many as before; with
    # one core taken by another program, 0.74 and 0.86.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    # What is loaded stays, and looking through it again and again is a tenth of loading it.
    gc.disable()
    try:
        import huggingface_hub.constants  # noqa: PLC0415 -- a gateway without a local model has no torch
        import torch

        with _left_out():
            import open_clip
    except ImportError as error:
        raise ModelUnusable(
            f"a local model needs packages that are not installed ({error.name}): pip install 'vecgate[clip]'"
        ) from error
    finally:
        gc.enable()
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    return torch, open_clip


def load_towers(model: Mapping[str, Any]) -> None:
    """Load what open_clip builds the towers of a model with, by its configuration, where that was left out.

    Raises:
        ModuleNotFoundError: a package is not installed.
    """
    if "timm_model_name" in model["vision_cfg"]:
        _catch_up("open_clip.timm_model", "timm")
    if "hf_model_name" in model["text_cfg"]:
        _catch_up("open_clip.hf_model", "transformers")


def _catch_up(module: str, package: str) -> None:
    user = importlib.import_module(module)
    if getattr(user, package) is None:
        importlib.import_module(package)
        importlib.reload(user)


@contextmanager
def _left_out() -> Iterator[None]:
    """Keep modules that are not loaded yet from being loaded; afterwards they can be."""
    absent: dict[str, ModuleType | None] = dict.fromkeys(_LEFT_OUT)
    compiler, answers = ModuleType(_COMPILER), ModuleType(f"{_COMPILER}.utils")
    answers.is_compile_supported = lambda _device: False  # type: ignore[attr-defined]
    absent |= {compiler.__name__: compiler, answers.__name__: answers}
    absent = {name: stand_in for name, stand_in in absent.items() if name not in sys.modules}
    modules: dict[str, Any] = sys.modules
    modules.update(absent)
    try:
        yield
    finally:
        for name in absent:
            del modules[name]
