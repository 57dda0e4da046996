"""Third phase: the image tower's last layers learn to keep what the teacher finds alike, from more drawings."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own custom
from augment import augment, plain
from image_tower import follow, new_optimizer, schedule
from numpy.typing import NDArray
from torch import Tensor, nn
from towers import SEED

CONCEPTS = 96  # in a batch, two pictures of each
THINGS = 64  # in a batch, one picture of each
VIEWS = 3  # of each picture: one plain, the others augmented
CHECKPOINT_STEPS = 100
CHECKPOINT = "nearer.pt"
# Temperature of the teacher's nearness: high enough that a concept's own is about a quarter of it.
NEARNESS = 0.15


@dataclass(frozen=True, slots=True)
class Examples:
    """What the last layers learn from.

    Attributes:
        views: what the layers before them make of each view of each picture, float16, shapes (n, 256, 4, 4).
        shown: what each picture shows, int64, shape (n,): a row of anchors.
        anchors: the teacher's vectors in the model's space, first the concepts' prototypes, then those of the names of
            other things, float32, shape (concepts + things, 1024), unit length.
        concepts: how many of the anchors are concepts'.
    """

    views: list[NDArray[np.float16]]
    shown: Tensor
    anchors: Tensor
    concepts: int

    def draw(self, dice: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return a batch: one picture of each of CONCEPTS concepts, another of each, and one of each of THINGS things.

        Returns:
            The pictures, float32, shape (n, 256, 4, 4), and the rows of anchors that they show, int64, shape (n,).
        """
        order, counts = self.shown.argsort(stable=True), self.shown.bincount(minlength=len(self.anchors))
        drawn = torch.nonzero(counts[: self.concepts]).squeeze(1)
        some = drawn[torch.randperm(len(drawn), generator=dice)[:CONCEPTS]].repeat(2)
        things = self.concepts + torch.randint(0, len(self.anchors) - self.concepts, (THINGS,), generator=dice)
        target = torch.cat([some, things])
        place = torch.rand(len(target), generator=dice)
        # The second picture of a concept is far from the first in the order of styles.
        place[CONCEPTS : 2 * CONCEPTS] = (place[:CONCEPTS] + 0.2 + 0.6 * place[CONCEPTS : 2 * CONCEPTS]) % 1
        begins = counts.cumsum(0) - counts
        rows = order[begins[target] + (place * counts[target]).long()].numpy()
        which = torch.randint(0, len(self.views), (len(target),), generator=dice).tolist()
        return torch.from_numpy(np.stack([self.views[v][r] for v, r in zip(which, rows, strict=True)])).float(), target


@torch.inference_mode()
def load_views(tower: nn.Module, rgba: NDArray[np.uint8], mirrored: Tensor, folder: Path) -> list[NDArray[np.float16]]:
    """Return what the layers before the last make of VIEWS views of each picture, computed at the first call (minutes).

    Args:
        tower: the image tower.
        rgba: pictures, uint8, shape (n, h, w, 4).
        mirrored: bool, shape (n,): which of them may be mirrored.
        folder: where the answers are kept.

    Returns:
        Float16, shape (n, 256, 4, 4), for each view.
    """
    tower.eval()
    for view in range(VIEWS):
        if (file := folder / f"view-{view}.npy").exists():
            continue
        parts = []
        for begin in range(0, len(rgba), 256):
            part = torch.from_numpy(rgba[begin : begin + 256])
            dice = torch.Generator().manual_seed(SEED + view * len(rgba) + begin)
            inputs = augment(part, dice, flip=mirrored[begin : begin + 256]) if view else plain(part)
            x = tower.stem(inputs.contiguous(memory_format=torch.channels_last))
            parts.append(tower.layer3(tower.layer2(tower.layer1(x))).contiguous().half().numpy())
        np.save(file, np.concatenate(parts))
    return [np.load(folder / f"view-{view}.npy") for view in range(VIEWS)]


def train_last_layers(model: nn.Module, examples: Examples, steps: int, folder: Path, rate: float = 3e-3) -> None:
    """Train the image tower's last layers; go on where a checkpoint in the folder stopped.

    The teacher's vectors stay as they are. A picture learns to be near its own (a cosine), to tell the concepts apart
    (cross-entropy over their prototypes), and to find alike what the teacher finds alike (a divergence from the
    teacher's nearness, to the prototypes and to another picture of each concept in the batch).

    Args:
        model: the model; the last layers of its image tower are changed.
        examples: what to learn from.
        steps: how many batches.
        folder: where checkpoints are kept.
        rate: the highest learning rate.
    """
    scale = nn.Parameter(torch.tensor(math.log(16.0)))
    last = nn.Sequential(model.visual.layer4, model.visual.attnpool)
    optimizer = new_optimizer(last, [scale], rate)
    rates = [group["lr"] for group in optimizer.param_groups]
    first, average = _resume(last, optimizer, scale, folder / CHECKPOINT)
    last.train()
    started = time.monotonic()
    for step in range(first, steps):
        for group, highest in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = highest * schedule(step / steps)
        pictures, target = examples.draw(torch.Generator().manual_seed(SEED + step))
        losses = _losses(F.normalize(last(pictures), dim=1), target, scale, examples)
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(last.parameters(), 1.0)
        optimizer.step()
        scale.data.clamp_(max=math.log(30.0))
        follow(average, last, min(0.995, (step + 1) / (step + 10)))
        if (step + 1) % CHECKPOINT_STEPS == 0 or step + 1 == steps:
            speed = (step + 1 - first) * len(target) / (time.monotonic() - started)
            parts = ", ".join(f"{name} {value.item():.3f}" for name, value in losses.items())
            print(f"nearer: step {step + 1}/{steps}, {parts}, {speed:.0f} pictures/s", flush=True)
            state = {"step": step + 1, "layers": last.state_dict(), "average": average, "scale": scale.data}
            torch.save({**state, "optimizer": optimizer.state_dict()}, folder / CHECKPOINT)


def _losses(z: Tensor, target: Tensor, scale: Tensor, examples: Examples) -> dict[str, Tensor]:
    """Return the parts of the loss of the unit vectors z, shape (n, 1024), of a batch, drawn by Examples.draw."""
    prototypes, own = examples.anchors[: examples.concepts], examples.anchors[target]
    chances = scale.exp() * z[: 2 * CONCEPTS] @ prototypes.T
    one, other, taught = z[:CONCEPTS], z[CONCEPTS : 2 * CONCEPTS], own[:CONCEPTS]
    return {
        "exact": 0.5 * F.cross_entropy(chances, target[: 2 * CONCEPTS]),
        "near": 4.0 * (1 - (z * own).sum(1)).mean(),
        "alike": _divergence(z @ prototypes.T, own @ prototypes.T),
        "pairs": 0.5 * _divergence(one @ other.T, taught @ taught.T),
    }


def _divergence(found: Tensor, taught: Tensor) -> Tensor:
    """Return how far nearness found is from nearness taught, both cosines of shape (n, m); 0 where they are equal."""
    return F.kl_div(
        F.log_softmax(found / NEARNESS, 1), F.log_softmax(taught / NEARNESS, 1), reduction="batchmean", log_target=True
    )


def _resume(
    last: nn.Module, optimizer: torch.optim.Optimizer, scale: Tensor, checkpoint: Path
) -> tuple[int, dict[str, Tensor]]:
    """Take up the state in a checkpoint, if there is one; return the step to go on with and the running average."""
    if not checkpoint.exists():
        return 0, {name: value.clone() for name, value in last.state_dict().items()}
    state = torch.load(checkpoint, weights_only=True)
    last.load_state_dict(state["layers"])
    optimizer.load_state_dict(state["optimizer"])
    scale.data = state["scale"]
    return int(state["step"]), state["average"]


def load_last_layers(model: nn.Module, folder: Path) -> None:
    """Give the model the averaged last layers of the checkpoint in a folder."""
    state = torch.load(folder / CHECKPOINT, weights_only=True)
    nn.Sequential(model.visual.layer4, model.visual.attnpool).load_state_dict(state["average"])
