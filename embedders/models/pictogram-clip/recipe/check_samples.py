"""Measures the model in its final form, as any open_clip model is loaded: python check_samples.py tests/data."""

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import open_clip
import torch
from PIL import Image
from torch import Tensor

# Chosen before anything was looked at.
QUERIES = (
    "something cold to drink", "playing music", "money", "a doctor", "wedding", "happy cat", "birthday party", "dog",
    "pizza", "car", "rain", "guitar", "kitty", "automobile", "winter weather", "breakfast", "going to the beach",
    "space travel", "scary monster", "fixing things at home",
)  # fmt: skip


class Model:
    """The model in a folder, loaded by open_clip alone."""

    def __init__(self, folder: Path) -> None:
        source = f"local-dir:{folder}"
        self.clip: Any
        self.clip, _, self.preprocess = open_clip.create_model_and_transforms(source)
        self.clip.eval()
        self.tokenize: Any = open_clip.get_tokenizer(source)

    @torch.inference_mode()
    def pictures(self, files: list[Path]) -> Tensor:
        """Return pictures' vectors, float32, shape (files, 1024), unit length; transparency is put on white."""
        ready = torch.stack([self.preprocess(_on_white(file)) for file in files])
        return torch.cat([self.clip.encode_image(part, normalize=True) for part in ready.split(64)])

    @torch.inference_mode()
    def texts(self, texts: list[str]) -> Tensor:
        """Return texts' vectors, float32, shape (texts, 1024), unit length."""
        return torch.cat([self.clip.encode_text(part, normalize=True) for part in self.tokenize(texts).split(256)])


def _on_white(file: Path) -> Image.Image:
    image = Image.open(file).convert("RGBA")
    ground = Image.new("RGBA", image.size, "white")
    ground.alpha_composite(image)
    return ground.convert("RGB")


def measure(model: Model, data: Path) -> None:
    """Print what the samples give: recall of names, tags and pictures in other styles, speed, and free queries."""
    with (data / "pictures/pictures.csv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    names = [row["name"] for row in rows]
    tags = [set(row["keywords"].split("; ")) - {""} for row in rows]
    started = time.perf_counter()
    vectors = model.pictures([data / "pictures" / row["file"] for row in rows])
    print(f"pictures: {len(rows) / (time.perf_counter() - started):.0f} a second, with decoding")
    started = time.perf_counter()
    ranks = (model.texts(names) @ vectors.T).argsort(dim=1, descending=True)
    print(f"texts: {len(rows) / (time.perf_counter() - started):.0f} a second, padded")
    right = ranks == torch.arange(len(rows))[:, None]
    print(f"name recall@1 {right[:, 0].float().mean():.3f}, recall@10 {right[:, :10].any(1).float().mean():.3f}")
    words = sorted(set().union(*tags))
    best = (model.texts(words) @ vectors.T).topk(10, dim=1).indices.tolist()
    hits = sum(any(word in tags[place] for place in row) for word, row in zip(words, best, strict=True))
    print(f"tags hit@10 {hits / len(words):.3f} of {len(words)} tags")
    for style in ("twemoji", "fluent"):
        files = sorted((data / "queries" / style).glob("*.png"))
        best = (model.pictures(files) @ vectors.T).topk(5, dim=1).indices.tolist()
        found = [[rows[place]["file"] for place in row] for row in best]
        first = sum(five[0] == file.name for file, five in zip(files, found, strict=True))
        among = sum(file.name in five for file, five in zip(files, found, strict=True))
        print(f"{style}: first {first}, in the first five {among} of {len(files)}")
    print("| query | first five |\n| --- | --- |")
    for query in QUERIES:
        first = (model.texts([query]) @ vectors.T)[0].topk(5).indices.tolist()
        print(f"| {query} | {', '.join(names[place] for place in first)} |")


def main() -> None:
    """Parse the command line, load the model and measure it."""
    parser = argparse.ArgumentParser(description="Measure the model on the sample pictures.")
    parser.add_argument("data", type=Path, help="tests/data")
    parser.add_argument("--model", type=Path, default=Path(__file__).parents[1])
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    started = time.perf_counter()
    model = Model(arguments.model)
    print(f"loaded in {time.perf_counter() - started:.2f} s")
    measure(model, arguments.data)


if __name__ == "__main__":
    main()
