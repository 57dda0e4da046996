"""Run by clip-server's own Python: serves a ViT-B/32 with random weights, or writes requests as its client sends them.

Arguments: `write`, a folder for weights and requests, and files of inputs, each of a text a line or an image; then
`serve`, the weights, and a port. clip-server has a list of weights to download, in the place of which come these.
"""

import os
import sys
from pathlib import Path

os.environ.update(NO_VERSION_CHECK="1", JINA_OPTOUT_TELEMETRY="1")

MODEL = "ViT-B-32::laion2b_e16"


def serve(weights: str, port: int) -> None:
    """Serve until a signal."""
    from clip_server.executors.clip_torch import CLIPEncoder
    from clip_server.model import openclip_model
    from jina import Flow

    openclip_model.get_model_url_md5 = lambda _name: ("", None)
    openclip_model.download_model = lambda *_, **__: weights
    flow = Flow(port=port, host="127.0.0.1").add(uses=CLIPEncoder, uses_with={"name": MODEL}, timeout_ready=-1)
    with flow:
        flow.block()


def write(folder: Path, files: "list[Path]") -> None:
    """Write random weights, and a request for each file: of all texts in it, or of its image."""
    # Not where it serves: that process forks, which a torch that has worked does not survive.
    import open_clip
    import torch
    from docarray import Document, DocumentArray
    from jina.types.request.data import DataRequest

    torch.save(open_clip.create_model("ViT-B-32").state_dict(), folder / "weights.pt")
    for file in files:
        request = DataRequest()
        request.header.exec_endpoint = "/"
        if file.suffix == ".txt":
            documents = [Document(text=line) for line in file.read_text().splitlines()]
        else:
            documents = [Document(blob=file.read_bytes())]
        request.data.docs = DocumentArray(documents)
        (folder / f"{file.name}.request").write_bytes(request.SerializePartialToString())


if sys.argv[1] == "serve":
    serve(sys.argv[2], int(sys.argv[3]))
else:
    write(Path(sys.argv[2]), [Path(each) for each in sys.argv[3:]])
