"""Second phase: the text tower learns which concepts' pictures fit a text, and what the teacher says of it."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own custom
from concepts import Concept
from teacher import Teacher, further_vectors
from torch import Tensor, nn
from towers import SEED, encode_by_length

BATCH = 512
CHECKPOINT_STEPS = 200
TOP = 16
# Large enough that the few steps that a rare word is seen in don't blur what it meant at the start.
TABLE_SCALE = 0.06


@dataclass(frozen=True, slots=True)
class TextPlan:
    """How long to train, and how.

    Attributes:
        steps: of BATCH texts.
        name: of the checkpoint's file.
        table_rate: the first learning rate of the token table.
        rate: the first learning rate of the rest.
        top_scale: how far the scale of the cross-entropy may rise; a high one leaves small margins.
    """

    steps: int
    name: str
    table_rate: float = 1e-3
    rate: float = 2e-3
    top_scale: float = 60.0


@dataclass(frozen=True, slots=True)
class Lessons:
    """What the text tower learns from.

    Attributes:
        tokens: int64, shape (texts, 32).
        taught: the teacher's vectors in the model's space, float32, shape (texts, 1024), unit length.
        concepts: the concepts that fit each text, int64, shape (texts, TOP).
        shares: how well they fit, float32 that sums to 1 over each text, shape (texts, TOP).
        seen: the vectors of the concepts, float32, shape (concepts, 1024), unit length; or, concept after concept,
            those of all pictures, shape (pictures, 1024), of which each batch takes one of each concept by chance.
        counts: how many of seen each concept has, int64, shape (concepts,).
        captions: how many texts at the beginning are captions of concepts; they make half of every batch.
    """

    tokens: Tensor
    taught: Tensor
    concepts: Tensor
    shares: Tensor
    seen: Tensor
    counts: Tensor
    captions: int


def start_token_table(model: nn.Module, tokenizer: Any, teacher: Teacher, file: Path) -> None:
    """Start the token table from what the teacher says of the tokens, by PCA, so that rare words mean something.

    Args:
        model: the model; its token table is changed.
        tokenizer: open_clip's own for it.
        teacher: the teacher.
        file: where the teacher's vectors of the tokens are kept.
    """
    tokens = [token.replace("</w>", "") for _, token in sorted(tokenizer.decoder.items())]
    vectors = torch.from_numpy(further_vectors(teacher, tokens, file))
    centred = vectors - vectors.mean(0)
    torch.manual_seed(SEED)
    _, _, axes = torch.pca_lowrank(centred, q=model.token_embedding.weight.shape[1], center=False)
    reduced = centred @ axes
    model.token_embedding.weight.data = TABLE_SCALE * reduced / reduced.std()


def text_targets(teacher: Teacher, concepts: list[Concept], file: Path) -> tuple[Tensor, Tensor]:
    """Return which concepts fit each of the teacher's texts; found at the first call (a minute).

    A caption fits the concepts that carry it, a name its own concept above all; any text fits the concepts whose
    captions the teacher finds near.

    Returns:
        The TOP concepts of each text, int64, and their shares, float32 that sum to 1, both of shape (texts, TOP).
    """
    if file.exists():
        kept = torch.load(file, weights_only=True)
        return kept["places"], kept["shares"]
    vectors = torch.from_numpy(teacher.vectors).float()
    captions = [(index, caption.strip()) for index, concept in enumerate(concepts) for caption in concept.captions()]
    rows = vectors[[teacher.index[caption] for _, caption in captions]]
    owner = torch.tensor([index for index, _ in captions])
    prototypes = torch.from_numpy(teacher.prototypes(concepts))
    owners = _owners(concepts)
    places, shares = [], []
    for begin in range(0, len(vectors), 512):
        chunk = vectors[begin : begin + 512]
        near = torch.full((len(chunk), len(concepts)), -1.0)
        near.scatter_reduce_(1, owner.expand(len(chunk), -1), chunk @ rows.T, "amax")
        score = F.softmax((0.5 * near + 0.5 * chunk @ prototypes.T) / 0.04, dim=1)
        for row, text in enumerate(teacher.texts[begin : begin + 512]):
            if own := owners.get(text):
                total = sum(own.values())
                score[row] *= 0.3
                for index, weight in own.items():
                    score[row, index] += 0.7 * weight / total
        best = score.topk(TOP, dim=1)
        places.append(best.indices)
        shares.append(best.values / best.values.sum(1, keepdim=True))
    torch.save({"places": torch.cat(places), "shares": torch.cat(shares)}, file)
    return torch.cat(places), torch.cat(shares)


def _owners(concepts: list[Concept]) -> dict[str, dict[int, float]]:
    """Return the concepts that carry each caption, by index, with weights: a name above a tag above a keyword."""
    owners: dict[str, dict[int, float]] = {}
    for index, concept in enumerate(concepts):
        for caption in concept.captions():
            weight = 4.0 if caption == concept.name else 1.0 if caption in concept.tags else 0.7
            owners.setdefault(caption.strip(), {})[index] = weight
    return owners


def train_texts(model: nn.Module, lessons: Lessons, plan: TextPlan, folder: Path) -> None:
    """Train the text tower; go on where a checkpoint in the folder stopped.

    Args:
        model: the model; its text tower is changed, its image tower is not.
        lessons: what to learn from.
        plan: how long.
        folder: where checkpoints are kept.
    """
    parameters = {name: p for name, p in model.named_parameters() if not name.startswith(("visual", "logit"))}
    scale = nn.Parameter(torch.tensor(math.log(min(20.0, plan.top_scale))))
    table = parameters["token_embedding.weight"]
    rest = [p for p in parameters.values() if p is not table]
    groups = [{"params": [table], "lr": plan.table_rate}, {"params": [*rest, scale], "lr": plan.rate}]
    rates = [plan.table_rate, plan.rate]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    first = _resume(model, optimizer, scale, folder / plan.name)
    model.train()
    started = time.monotonic()
    for step in range(first, plan.steps):
        share = min((step + 1) / 100, 1) * 0.5 * (1 + math.cos(math.pi * step / plan.steps))
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * share
        fitting, faithful = _losses(model, lessons, scale, torch.Generator().manual_seed(SEED + step))
        optimizer.zero_grad(set_to_none=True)
        (fitting + 2.0 * faithful).backward()
        nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        scale.data.clamp_(max=math.log(plan.top_scale))
        if (step + 1) % CHECKPOINT_STEPS == 0 or step + 1 == plan.steps:
            speed = (step + 1 - first) * BATCH / (time.monotonic() - started)
            parts = f"fit {fitting.item():.3f}, faithful {faithful.item():.3f}"
            print(f"texts: step {step + 1}/{plan.steps}, {parts}, {speed:.0f} texts/s", flush=True)
            state = {"step": step + 1, "tower": parameters, "scale": scale.data, "optimizer": optimizer.state_dict()}
            torch.save(state, folder / plan.name)
    model.eval()


def _losses(model: nn.Module, lessons: Lessons, scale: Tensor, dice: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the losses of one batch: cross-entropy over the concepts, and distance from the teacher."""
    half = (BATCH // 2,)
    captions = torch.randint(0, lessons.captions, half, generator=dice)
    rows = torch.cat([captions, torch.randint(0, len(lessons.tokens), half, generator=dice)])
    z = encode_by_length(model, lessons.tokens[rows])
    begins = lessons.counts.cumsum(0) - lessons.counts
    chosen = begins + (torch.rand(len(begins), generator=dice) * lessons.counts).long()
    chances = F.log_softmax(scale.exp() * z @ lessons.seen[chosen].T, dim=1)
    fitting = -(lessons.shares[rows] * chances.gather(1, lessons.concepts[rows])).sum(1).mean()
    faithful = (1 - (z * lessons.taught[rows]).sum(1)).mean()
    return fitting, faithful


def _resume(model: nn.Module, optimizer: torch.optim.Optimizer, scale: Tensor, checkpoint: Path) -> int:
    """Take up the state in a checkpoint, if there is one; return the step to go on with."""
    if not checkpoint.exists():
        return 0
    state = torch.load(checkpoint, weights_only=True)
    model.load_state_dict(state["tower"], strict=False)
    optimizer.load_state_dict(state["optimizer"])
    scale.data = state["scale"]
    return int(state["step"])


def load_text_tower(model: nn.Module, checkpoint: Path) -> None:
    """Give the model the text tower of a checkpoint."""
    state = torch.load(checkpoint, weights_only=True)
    model.load_state_dict(state["tower"], strict=False)
