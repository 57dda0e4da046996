"""What a model loads of the libraries behind it."""

import json
import subprocess
import sys
from pathlib import Path

from tests.fakes.tiny_clip import write_tiny_clip, write_wordpiece_tokenizer

PROGRAM = """
import asyncio, json, sys
from embedders.clip import ClipConfig
from embedders.contract import QUERY, Embedding, TextInput
from tests.fakes.models import in_process

async def embeds(model):
    embedder = in_process(ClipConfig(model=model))
    await embedder.start()
    (outcome,) = await embedder.embed([TextInput("two red cars")], QUERY)
    await embedder.close()
    return isinstance(outcome, Embedding)

def loaded():
    return [name for name in ("timm", "transformers", "torch._dynamo") if name in sys.modules]

first = asyncio.run(embeds(sys.argv[1]))
before = loaded()
others = [asyncio.run(embeds(each)) for each in sys.argv[2:]]
import torch._dynamo.utils, torchvision.ops
print(json.dumps({
    "embedded": [first, *others],
    "before": before,
    "after": loaded(),
    "compiler": torch._dynamo.utils.is_compile_supported.__module__,
}))
"""


def report_of(*models: Path) -> dict[str, object]:
    """Return what a fresh process says that loads these models one after the other."""
    command = [sys.executable, "-c", PROGRAM, *map(str, models)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    report: dict[str, object] = json.loads(said.splitlines()[-1])
    return report


def test_a_plain_model_loads_neither_libraries_of_other_towers_nor_the_compiler_and_later_models_get_them(
    tmp_path: Path,
) -> None:
    bert = tmp_path / "bert"
    bert.mkdir()
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    (bert / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": 1000, **sizes}))
    plain = write_tiny_clip(tmp_path / "plain")
    by_timm = write_tiny_clip(
        tmp_path / "timm",
        vision_cfg={"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 160},
    )
    text = {"hf_model_name": str(bert), "hf_model_pretrained": False, "hf_tokenizer_name": "bert", "vocab_size": 1000}
    by_transformers = write_tiny_clip(tmp_path / "transformers", text={**text, "hf_proj_type": "mlp"})
    write_wordpiece_tokenizer(by_transformers)

    report = report_of(plain, by_timm, by_transformers)

    assert report == {
        "embedded": [True, True, True],
        "before": [],
        "after": ["timm", "transformers", "torch._dynamo"],
        "compiler": "torch._dynamo.utils",
    }
