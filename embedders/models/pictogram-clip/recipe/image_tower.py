"""First phase: the image tower learns to tell concepts apart, whatever the style, in the teacher's space."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own custom
from augment import augment, plain
from concepts import Concept
from numpy.typing import NDArray
from torch import Tensor, nn
from towers import SEED

BATCH = 256
CHECKPOINT_STEPS = 200
CHECKPOINT = "image.pt"
PICTURES_SHARE = 0.7
# Mirrored, these mean something else.
ONE_SIDED = ("left", "right", "arrow", "clock", "flag", "letter", "button", "east", "west", "square", "symbol", "moon")


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """How long and on what to train: steps of BATCH pictures, and the styles, as indices of STYLES."""

    steps: int
    styles: tuple[int, ...]
    rate: float = 2e-3


def teacher_map(dimension: int) -> Tensor:
    """Return a fixed map from the teacher's space into the model's: (dimension, 1024), orthonormal rows."""
    dice = torch.Generator().manual_seed(SEED)
    return torch.linalg.qr(torch.randn(1024, dimension, generator=dice))[0].T.contiguous()


def train_images(
    model: nn.Module,
    concepts: list[Concept],
    pictures: tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]],
    anchors: Tensor,
    plan: ImagePlan,
    folder: Path,
) -> None:
    """Train the image tower and one prototype for each concept; go on where a checkpoint in the folder stopped.

    The loss is cross-entropy of each picture over all prototypes, with a tenth of the target spread over concepts that
    the teacher finds alike, while the prototypes are held near the teacher's own.

    Args:
        model: the model; its image tower is changed.
        concepts: all concepts.
        pictures: as load_pictures returns them.
        anchors: the teacher's prototypes in the model's space, float32, shape (concepts, 1024), unit length.
        plan: how long and on what.
        folder: where checkpoints are kept.
    """
    rgba, labels, styles = (torch.from_numpy(each) for each in pictures)
    chosen = torch.nonzero(torch.isin(styles, torch.tensor(plan.styles))).squeeze(1)
    mirrored = torch.tensor([not any(word in concept.name for word in ONE_SIDED) for concept in concepts])
    alike = F.softmax(anchors @ anchors.T / 0.1, dim=1)
    prototypes, scale = nn.Parameter(anchors.clone()), nn.Parameter(torch.tensor(math.log(16.0)))
    tower = model.visual.to(memory_format=torch.channels_last)
    optimizer = new_optimizer(tower, [prototypes, scale], plan.rate)
    rates = [group["lr"] for group in optimizer.param_groups]
    first, average = _resume(tower, optimizer, prototypes, scale, folder / CHECKPOINT)
    tower.train()
    started = time.monotonic()
    for step in range(first, plan.steps):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * schedule(step / plan.steps)
        dice = torch.Generator().manual_seed(SEED + step)
        rows = chosen[torch.randint(0, len(chosen), (BATCH,), generator=dice)]
        target = labels[rows]
        inputs = augment(rgba[rows], dice, flip=mirrored[target]).contiguous(memory_format=torch.channels_last)
        loss = _loss(F.normalize(tower(inputs), dim=1), target, prototypes, scale, anchors, alike)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        scale.data.clamp_(max=math.log(50.0))
        follow(average, tower, 0.998 if step > CHECKPOINT_STEPS else 0.9)
        if (step + 1) % CHECKPOINT_STEPS == 0 or step + 1 == plan.steps:
            speed = (step + 1 - first) * BATCH / (time.monotonic() - started)
            print(f"images: step {step + 1}/{plan.steps}, loss {loss.item():.3f}, {speed:.0f} pictures/s", flush=True)
            state = {"step": step + 1, "tower": tower.state_dict(), "average": average, "scale": scale.data}
            torch.save(
                {**state, "optimizer": optimizer.state_dict(), "prototypes": prototypes.data}, folder / CHECKPOINT
            )


def new_optimizer(tower: nn.Module, others: list[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    """Return an optimizer of the tower, and of the other parameters at half the rate; only matrices decay."""
    return torch.optim.AdamW(
        [
            {"params": [p for p in tower.parameters() if p.ndim > 1], "weight_decay": 0.02, "lr": rate},
            {"params": [p for p in tower.parameters() if p.ndim <= 1], "weight_decay": 0.0, "lr": rate},
            {"params": others, "weight_decay": 0.0, "lr": rate / 2},
        ]
    )


def _resume(
    tower: nn.Module, optimizer: torch.optim.Optimizer, prototypes: Tensor, scale: Tensor, checkpoint: Path
) -> tuple[int, dict[str, Tensor]]:
    """Take up the state in a checkpoint, if there is one; return the step to go on with and the running average."""
    if not checkpoint.exists():
        return 0, {name: value.clone() for name, value in tower.state_dict().items()}
    state = torch.load(checkpoint, weights_only=True)
    tower.load_state_dict(state["tower"])
    optimizer.load_state_dict(state["optimizer"])
    prototypes.data, scale.data = state["prototypes"], state["scale"]
    return int(state["step"]), state["average"]


def _loss(z: Tensor, target: Tensor, prototypes: Tensor, scale: Tensor, anchors: Tensor, alike: Tensor) -> Tensor:
    """Return the loss of pictures' unit vectors z, shape (n, 1024), whose concepts are target, shape (n,)."""
    unit = F.normalize(prototypes, dim=1)
    chances = F.log_softmax(scale.exp() * z @ unit.T, dim=1)
    exact = F.nll_loss(chances, target)
    spread = -(alike[target] * chances).sum(1).mean()
    drift = (1 - (unit * anchors).sum(1)).mean()
    return 0.9 * exact + 0.1 * spread + 2.0 * drift


def schedule(progress: float) -> float:
    """Return the share of the learning rate: up over the first 3 %, down along a cosine."""
    return min(progress / 0.03, 1.0) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))) if progress else 0.01


def follow(average: dict[str, Tensor], tower: nn.Module, share: float) -> None:
    """Move a running average towards a tower's state, of which it keeps a share."""
    for name, value in tower.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - share)
        else:
            average[name].copy_(value)


@torch.inference_mode()
def picture_vectors(model: nn.Module, rgba: NDArray[np.uint8]) -> Tensor:
    """Return the vectors of pictures, uint8 of shape (n, h, w, 4), on white: float32, shape (n, 1024), unit length."""
    model.eval()
    batches = [model.visual(plain(torch.from_numpy(rgba[i : i + 512]))) for i in range(0, len(rgba), 512)]
    return F.normalize(torch.cat(batches), dim=1)


def load_image_tower(model: nn.Module, folder: Path) -> Tensor:
    """Give the model the averaged image tower of the checkpoint in a folder.

    Returns:
        The prototypes, float32, shape (concepts, 1024), unit length.
    """
    state = torch.load(folder / CHECKPOINT, weights_only=True)
    model.visual.load_state_dict(state["average"])
    return F.normalize(state["prototypes"], dim=1)


def concept_vectors(vectors: Tensor, labels: NDArray[np.int64], prototypes: Tensor) -> Tensor:
    """Return what a text of each concept should be near: its prototype and the mean of its pictures' vectors.

    Args:
        vectors: pictures' vectors, shape (n, 1024), unit length.
        labels: their concepts, shape (n,).
        prototypes: shape (concepts, 1024), unit length.

    Returns:
        One vector for each concept, shape (concepts, 1024), unit length.
    """
    sums = torch.zeros_like(prototypes).index_add_(0, torch.from_numpy(labels), vectors)
    return F.normalize(prototypes + PICTURES_SHARE * F.normalize(sums, dim=1), dim=1)
