"""What a local CLIP embedder is made from."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from embedders.contract import InputLimits

Precision = Literal["auto", "fp32", "fp16", "bf16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipConfig:
    """Which model to run, and where.

    Attributes:
        name: the embedder's name.
        model: a bundled model's name, an open_clip model's name, or a folder with open_clip_config.json and weights.
        checkpoint: the weights file of an open_clip model, or of a folder that has none.
        expected_digest: SHA-256 of the weights in hex; other weights are refused. None takes any.
        device: auto (every GPU, else the CPU), cpu, cuda (every GPU), or a list such as "cuda:0,cuda:1", a worker each.
        precision: what the model computes in; auto is fp16 on a GPU and fp32 on a CPU.
        graphs: whether a GPU runs the model by CUDA graphs; see embedders.clip.graphs.
        max_batch: inputs in one forward pass.
        jpeg_draft_factor: large JPEGs are decoded scaled down to no less than so many times what the model reads; 0
            decodes them at full size.
        limits: bounds on one input.
        served_by: a folder with the sockets of processes that run this model for several servers; see
            embedders.clip.processes. None: the embedder has its own.
    """

    name: str = "clip"
    model: str = "pictogram-clip"
    checkpoint: Path | None = None
    expected_digest: str | None = None
    device: str = "auto"
    precision: Precision = "auto"
    graphs: bool = False
    max_batch: int = 32
    jpeg_draft_factor: int = 4
    limits: InputLimits = field(default_factory=InputLimits)
    served_by: Path | None = None
