"""Run by infinity's own Python: writes a ViT-B/32 with random weights in the form of transformers.

Arguments: the folder to make, and open_clip's file of byte pairs, which has the tokenizer that all systems share.
"""

import gzip
import json
import sys
from pathlib import Path

from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizerFast
from transformers.models.clip.tokenization_clip import bytes_to_unicode

MERGES = 49152 - 256 - 2


def main(folder: Path, pairs: Path) -> None:
    """Write the model, its tokenizer and its preprocessing."""
    merges = gzip.decompress(pairs.read_bytes()).decode().split("\n")[1 : MERGES + 1]
    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(f"{each}</w>" for each in letters), *("".join(each.split()) for each in merges)]
    vocabulary = {each: number for number, each in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    tokenizer = CLIPTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)
    CLIPProcessor(CLIPImageProcessor(), tokenizer).save_pretrained(folder)
    CLIPModel(CLIPConfig()).save_pretrained(folder)


main(Path(sys.argv[1]), Path(sys.argv[2]))
