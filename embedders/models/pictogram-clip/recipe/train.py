"""Trains the bundled model: python train.py STAGE [--out FOLDER] [--cache FOLDER] [--name RUN].

Stages, in order: data (fetch packages, decode pictures), teacher (encode texts), images, texts, match, nearer and
rematch (train the towers by turns), evaluate (print figures), export (write the model). `all` runs them one after
another. Every stage keeps what it made in the cache, so a run that was stopped goes on where it was.
"""

import argparse
import hashlib
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import platformdirs
import torch
from concepts import Concept, load_concepts
from evaluate import evaluate_style, report
from icons import load_icons
from image_tower import (
    ONE_SIDED,
    ImagePlan,
    concept_vectors,
    load_image_tower,
    picture_vectors,
    teacher_map,
    train_images,
)
from nearer import Examples, load_last_layers, load_views, train_last_layers
from pictures import EVALUATION_STYLE, STYLES, load_pictures
from safetensors.torch import load_file, save_file
from sources import fetch
from teacher import DIMENSION, Teacher, further_vectors, load_teacher
from text_tower import Lessons, TextPlan, load_text_tower, start_token_table, text_targets, train_texts
from torch import Tensor
from towers import encode_texts, new_model, write_config
from unseen_words import unseen_words

STAGES = ("data", "teacher", "images", "texts", "match", "nearer", "rematch", "evaluate", "export")


@dataclass(frozen=True, slots=True)
class Steps:
    """How many batches the stages take."""

    images: int = 3000
    texts: int = 2400
    match: int = 1600
    nearer: int = 1100
    rematch: int = 1600


class Run:
    """One training run: its cache, its checkpoints and what the stages share.

    Args:
        cache: the folder of packages, pictures and the teacher's vectors, which all runs share.
        name: the folder of this run's checkpoints below the cache.
        steps: how many batches the stages take.
        start: weights to begin the stages nearer and rematch with, instead of those of the stages before.
    """

    def __init__(self, cache: Path, name: str, steps: Steps, start: Path | None = None) -> None:
        self.cache = cache
        self.folder = cache / name
        styles = tuple(index for index, style in enumerate(STYLES) if style != EVALUATION_STYLE)
        self.start = start
        self.steps = steps
        self.image_plan = ImagePlan(steps.images, styles)
        self.text_plan = TextPlan(steps.texts, "text.pt")
        self.match_plan = TextPlan(steps.match, "match.pt", table_rate=5e-4, rate=1e-3, top_scale=20.0)
        self.rematch_plan = replace(self.match_plan, steps=steps.rematch, name="rematch.pt")

    @cached_property
    def concepts(self) -> list[Concept]:
        """All concepts."""
        fetch(self.cache)
        return load_concepts(self.cache)

    @cached_property
    def pictures(self) -> tuple[Any, Any, Any]:
        """All pictures, with their concepts and styles, as load_pictures returns them."""
        return load_pictures(self.cache, self.concepts)

    @cached_property
    def icons(self) -> tuple[Any, Any, list[str]]:
        """All icons, what they show, and the names of the things, as load_icons returns them."""
        return load_icons(self.cache, self.concepts, set(unseen_words(self.cache, self.concepts)))

    @cached_property
    def teacher(self) -> Teacher:
        """The teacher's texts and vectors."""
        return load_teacher(self.cache, self.concepts)

    @cached_property
    def map(self) -> Tensor:
        """The map from the teacher's space into the model's, float32, shape (384, 1024)."""
        return teacher_map(DIMENSION)

    @cached_property
    def anchors(self) -> Tensor:
        """The teacher's prototypes of the concepts in the model's space, float32, shape (concepts, 1024)."""
        return torch.from_numpy(self.teacher.prototypes(self.concepts)) @ self.map

    @cached_property
    def model(self) -> Any:
        """The model, with its first weights."""
        return new_model(self.folder / "model")

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        write_config(self.folder / "model")
        return open_clip.get_tokenizer(f"local-dir:{self.folder / 'model'}")

    def tokenize(self, texts: list[str]) -> Tensor:
        """Return texts' tokens, int64, shape (texts, context)."""
        return torch.cat([self.tokenizer(texts[i : i + 4096]) for i in range(0, len(texts), 4096)])

    def data(self) -> None:
        """Fetch the packages and decode the pictures."""
        print(f"{len(self.concepts)} concepts, {len(self.pictures[0])} pictures, {len(self.icons[0])} icons")

    def encode_teacher(self) -> None:
        """Encode the teacher's texts."""
        print(f"{len(self.teacher.texts)} texts")

    def images(self) -> None:
        """Train the image tower."""
        train_images(self.model, self.concepts, self.pictures, self.anchors, self.image_plan, self.folder)

    def texts(self) -> None:
        """Train the text tower against the frozen image tower."""
        prototypes = load_image_tower(self.model, self.folder)
        start_token_table(self.model, self.tokenizer, self.teacher, self.cache / "tokens.npz")
        rgba, labels, styles = self.pictures
        chosen = np.isin(styles, self.image_plan.styles)
        seen = concept_vectors(picture_vectors(self.model, rgba[chosen]), labels[chosen], prototypes)
        train_texts(self.model, self.lessons(seen, torch.ones(len(seen)).long()), self.text_plan, self.folder)

    def match(self) -> None:
        """Train the text tower on, against single pictures, so that their scatter does not drown the meaning."""
        prototypes = load_image_tower(self.model, self.folder)
        load_text_tower(self.model, self.folder / self.text_plan.name)
        self.match_texts(prototypes, self.match_plan)

    def nearer(self) -> None:
        """Train the image tower's last layers to keep what the teacher finds alike."""
        self.begin()
        rgba, labels, styles = self.pictures
        chosen = np.isin(styles, self.image_plan.styles)
        icons, shown, things = self.icons
        names = [*(concept.name for concept in self.concepts), *things]
        mirrored = torch.tensor([not any(word in name for word in ONE_SIDED) for name in names])
        targets = torch.from_numpy(np.concatenate([labels[chosen], shown]))
        pictures = np.concatenate([rgba[chosen], icons])
        taught = torch.from_numpy(further_vectors(self.teacher, things, self.cache / "things.npz")) @ self.map
        views = load_views(self.model.visual, pictures, mirrored[targets], self.folder)
        examples = Examples(views, targets, torch.cat([self.anchors, taught]), len(self.concepts))
        train_last_layers(self.model, examples, self.steps.nearer, self.folder)

    def rematch(self) -> None:
        """Train the text tower on, against what the last layers make of single pictures now."""
        self.begin()
        load_last_layers(self.model, self.folder)
        self.match_texts(self.anchors, self.rematch_plan)

    def begin(self) -> None:
        """Give the model the weights that the stages nearer and rematch begin with."""
        if self.start:
            self.model.load_state_dict(load_file(self.start))
        else:
            load_image_tower(self.model, self.folder)
            load_text_tower(self.model, self.folder / self.match_plan.name)

    def match_texts(self, prototypes: Tensor, plan: TextPlan) -> None:
        """Train the text tower against prototypes and single pictures."""
        rgba, labels, styles = self.pictures
        chosen = np.isin(styles, self.image_plan.styles)
        vectors = torch.cat([prototypes, picture_vectors(self.model, rgba[chosen])])
        owners = torch.cat([torch.arange(len(prototypes)), torch.from_numpy(labels[chosen])])
        seen, counts = vectors[owners.argsort(stable=True)], owners.bincount()
        train_texts(self.model, self.lessons(seen, counts), plan, self.folder)

    def lessons(self, seen: Tensor, counts: Tensor) -> Lessons:
        """Return what the text tower learns from, given what Lessons calls seen and counts."""
        captions = {caption.strip() for concept in self.concepts for caption in concept.captions()}
        places, shares = text_targets(self.teacher, self.concepts, self.cache / "targets.pt")
        return Lessons(
            tokens=self.tokenize(self.teacher.texts),
            taught=torch.from_numpy(self.teacher.vectors).float() @ self.map,
            concepts=places,
            shares=shares,
            seen=seen,
            counts=counts,
            captions=sum(text in captions for text in self.teacher.texts[: len(captions)]),
        )

    def load(self) -> None:
        """Give the model its trained weights."""
        self.begin()
        load_last_layers(self.model, self.folder)
        load_text_tower(self.model, self.folder / self.rematch_plan.name)
        self.model.eval()

    def evaluate(self) -> None:
        """Print the figures of every style as a Markdown table."""
        self.load()
        rgba, labels, styles = self.pictures
        vectors = picture_vectors(self.model, rgba)
        words = unseen_words(self.cache, self.concepts)
        figures = {}
        for index, style in enumerate(STYLES):
            own = styles == index
            other = ~own & (styles != STYLES.index(EVALUATION_STYLE))
            others = (vectors[torch.from_numpy(other)], labels[other])
            pictures = vectors[torch.from_numpy(own)]
            figures[style] = evaluate_style(self.concepts, pictures, labels[own], others, self.encode, words)
        print(report(figures))

    @torch.inference_mode()
    def encode(self, texts: list[str]) -> Tensor:
        """Return texts' vectors, float32, shape (texts, 1024), unit length."""
        return torch.cat([encode_texts(self.model, part) for part in self.tokenize(texts).split(1024)])

    def export(self, out: Path) -> None:
        """Write the model in its final form, half precision; print the digest of its weights."""
        self.load()
        write_config(out)
        state = {name: value.detach().half().contiguous() for name, value in self.model.state_dict().items()}
        file = out / "open_clip_model.safetensors"
        save_file(state, file, metadata={"format": "pt"})
        print(f"{file.stat().st_size} bytes, SHA-256 {hashlib.sha256(file.read_bytes()).hexdigest()}")


def main() -> None:
    """Parse the command line and run the stages."""
    parser = argparse.ArgumentParser(description="Train the bundled model.")
    parser.add_argument("stage", nargs="?", default="all", choices=[*STAGES, "all"])
    parser.add_argument("--cache", type=Path, default=platformdirs.user_cache_path("vecgate") / "model")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1], help="where the model is written")
    parser.add_argument("--name", default="run", help="of the folder with this run's checkpoints, below the cache")
    parser.add_argument("--start", type=Path, help="weights that the stages nearer and rematch begin with")
    for stage in fields(Steps):
        parser.add_argument(f"--{stage.name}-steps", type=int, default=stage.default)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    steps = Steps(**{stage.name: getattr(arguments, f"{stage.name}_steps") for stage in fields(Steps)})
    run = Run(arguments.cache, arguments.name, steps, arguments.start)
    work = {
        "data": run.data,
        "teacher": run.encode_teacher,
        "images": run.images,
        "texts": run.texts,
        "match": run.match,
        "nearer": run.nearer,
        "rematch": run.rematch,
        "evaluate": run.evaluate,
        "export": lambda: run.export(arguments.out),
    }
    for stage in STAGES if arguments.stage == "all" else [arguments.stage]:
        work[stage]()


if __name__ == "__main__":
    main()
