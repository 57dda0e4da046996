"""Published weights are fetched whole into a folder that a local model loads, or not at all; pickles run nothing."""

import hashlib
import http.server
import json
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from embedders.clip import ClipConfig
from embedders.clip import weights as clip_weights
from embedders.clip.weights import DownloadFailed, NotFetchable, fetch_weights, require_tensors
from embedders.contract import QUERY
from embedders.errors import ModelUnusable
from service.cli import app
from tests.embedders.suite import MIXED, vectors
from tests.fakes.models import in_process

MODEL, TAG = "Tiny-For-Fetching", "made_here"


class Site:
    """Files on loopback.

    Attributes:
        files: their bytes by path.
        cut: bytes that are left out at the end of each, without a word.
        paths: what was asked for.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut = 0
        self.paths: list[str] = []
        self.url = ""


@pytest.fixture
def site() -> Iterator[Site]:
    """Serve files over HTTP on a free port of loopback."""
    site = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.paths.append(self.path)
            body = site.files.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write((body or b"")[: len(body or b"") - site.cut])

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        site.url = f"http://127.0.0.1:{server.server_port}"
        yield site
        server.shutdown()
        thread.join()


Publish = Callable[..., None]


@pytest.fixture
def publish(site: Site, tiny_clip: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Return what puts the tiny model into open_clip's registry, with its weights on the site."""
    import open_clip
    from tqdm import tqdm

    config = json.loads((tiny_clip / "open_clip_config.json").read_text())["model_cfg"]

    def put(name: str, content: bytes, *, text: dict[str, Any] | None = None, **published: Any) -> None:
        site.files[f"/{name}"] = content
        settings = {**config, "text_cfg": {**config["text_cfg"], **(text or {})}}
        entry = {
            "url": f"{site.url}/{name}",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.25, 0.25, 0.25),
            "interpolation": "bicubic",
            "resize_mode": "shortest",
            **published,
        }
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, MODEL, settings)
        # A process of its own takes that from the environment, here it was imported before.
        monkeypatch.setattr(open_clip.pretrained, "tqdm", partial(tqdm, disable=True))
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, MODEL, {TAG: entry})

    return put


@pytest.fixture
def safe_weights(tiny_clip: Path) -> bytes:
    return (tiny_clip / "open_clip_model.safetensors").read_bytes()


@pytest.fixture
def pickled_weights(tiny_clip: Path, tmp_path: Path) -> bytes:
    import torch
    from safetensors.torch import load_file

    file = tmp_path / "made.pt"
    torch.save({"state_dict": load_file(tiny_clip / "open_clip_model.safetensors")}, file)
    return file.read_bytes()


def fetch(folder: Path, model: str = MODEL, tag: str = TAG) -> Result:
    return CliRunner().invoke(app, ["weights", "fetch", model, tag, "--to", str(folder)])


def lines_of(result: Result) -> list[str]:
    return result.stderr.splitlines()


@pytest.mark.parametrize("form", ["safetensors", "pt"])
async def test_fetched_weights_load_and_embed_as_the_model_that_they_are_of(
    form: str,
    publish: Publish,
    tmp_path: Path,
    config: ClipConfig,
    request: pytest.FixtureRequest,
) -> None:
    content = request.getfixturevalue("safe_weights" if form == "safetensors" else "pickled_weights")
    publish(f"weights.{form}", content)
    folder = tmp_path / "carried" / "tiny"

    result = fetch(folder)

    digest = hashlib.sha256(content).hexdigest()
    assert result.exit_code == 0, result.output
    assert f"sha256 {digest}" in result.stdout
    assert "VECGATE_EMBEDDERS__CLIP__KIND=clip\n" in result.stdout
    assert f"VECGATE_EMBEDDERS__CLIP__MODEL={folder}\n" in result.stdout
    assert f"VECGATE_EMBEDDERS__CLIP__EXPECTED_DIGEST={digest}\n" in result.stdout
    name = "open_clip_model.safetensors" if form == "safetensors" else "open_clip_pytorch_model.bin"
    assert sorted(each.name for each in folder.iterdir()) == sorted(["manifest.json", name, "open_clip_config.json"])
    assert [each.name for each in folder.parent.iterdir()] == ["tiny"]
    fetched, original = in_process(ClipConfig(model=str(folder), device="cpu")), in_process(config)
    await fetched.start()
    await original.start()
    try:
        assert fetched.spec.weights_digest == digest
        np.testing.assert_array_equal(
            vectors(await fetched.embed(MIXED, QUERY)), vectors(await original.embed(MIXED, QUERY))
        )
    finally:
        await fetched.close()
        await original.close()


def test_the_manifest_says_what_was_fetched_from_where(
    publish: Publish, site: Site, safe_weights: bytes, tmp_path: Path
) -> None:
    import open_clip

    publish("weights.safetensors", safe_weights)

    assert fetch(tmp_path / "tiny").exit_code == 0

    manifest = json.loads((tmp_path / "tiny" / "manifest.json").read_text())
    assert "licence" in manifest.pop("licence")
    assert manifest == {
        "model": MODEL,
        "tag": TAG,
        "source": f"{site.url}/weights.safetensors",
        "file": "open_clip_model.safetensors",
        "sha256": hashlib.sha256(safe_weights).hexdigest(),
        "bytes": len(safe_weights),
        "open_clip": open_clip.__version__,
    }


def test_weights_trained_with_another_activation_get_it_in_their_configuration(
    publish: Publish, safe_weights: bytes, tmp_path: Path
) -> None:
    publish("weights.safetensors", safe_weights, quick_gelu=True)

    assert fetch(tmp_path / "tiny").exit_code == 0

    config = json.loads((tmp_path / "tiny" / "open_clip_config.json").read_text())
    assert config["model_cfg"]["quick_gelu"] is True
    assert config["preprocess_cfg"]["resize_mode"] == "shortest"


@pytest.mark.parametrize("cut", [0, 1000])
def test_a_failed_download_leaves_nothing_behind_and_one_line(
    publish: Publish, site: Site, safe_weights: bytes, tmp_path: Path, cut: int
) -> None:
    publish("weights.safetensors", safe_weights)
    site.cut = cut
    if not cut:
        site.files.clear()
    folder = tmp_path / "models" / "tiny"

    result = fetch(folder)

    assert result.exit_code == 1
    (line,) = lines_of(result)
    assert line.startswith(f"error: nothing was fetched: {MODEL} {TAG} from {site.url}")
    assert ("404" in line) == (not cut)
    assert list(folder.parent.iterdir()) == []


def test_a_site_that_cannot_be_reached_is_one_line(publish: Publish, safe_weights: bytes, tmp_path: Path) -> None:
    publish("x.safetensors", safe_weights, url="http://127.0.0.1:9/x.safetensors")

    result = fetch(tmp_path / "tiny")

    assert (result.exit_code, len(lines_of(result))) == (1, 1)
    assert "refused" in result.stderr


def test_a_folder_that_exists_is_not_touched_and_nothing_is_downloaded(
    publish: Publish, site: Site, safe_weights: bytes, tmp_path: Path
) -> None:
    publish("weights.safetensors", safe_weights)
    (tmp_path / "tiny").mkdir()

    result = fetch(tmp_path / "tiny")

    assert result.exit_code == 2
    assert "exists already" in result.stderr
    assert list((tmp_path / "tiny").iterdir()) == []
    assert site.paths == []


@pytest.mark.parametrize(
    ("model", "tag", "message"),
    [
        ("ViT-B-23", "openai", "no weights for a model ViT-B-23; did you mean ViT-B-32 or"),
        ("no such thing at all", "openai", "no weights for a model no such thing at all"),
        ("ViT-B-32", "laion2b_s34b", "no weights laion2b_s34b for the model ViT-B-32; did you mean laion2b_s34b_b79k"),
        ("roberta-ViT-B-32", "laion2b_s12b_b32k", "which open_clip does not load from a folder"),
    ],
)
def test_what_cannot_be_fetched_is_explained(model: str, tag: str, message: str, tmp_path: Path) -> None:
    result = fetch(tmp_path / "models" / "x", model, tag)

    assert result.exit_code == 2
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_numpy_weights_are_refused(publish: Publish, tmp_path: Path) -> None:
    publish("weights.npz", b"PK")

    with pytest.raises(NotFetchable, match="numpy arrays"):
        fetch_weights(MODEL, TAG, tmp_path / "tiny", watch=nullcontext)
    assert not (tmp_path / "tiny").exists()


def test_the_tokenizer_of_a_hub_is_put_into_the_folder(
    publish: Publish, safe_weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import open_clip

    class Tokenizer:
        def save_pretrained(self, folder: Path) -> None:
            (folder / "tokenizer.json").write_text("{}")

    publish("weights.safetensors", safe_weights, text={"hf_tokenizer_name": "some/words"})
    monkeypatch.setattr(clip_weights, "find_spec", lambda _: True)
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda *_, **__: Tokenizer())

    assert fetch(tmp_path / "tiny").exit_code == 0

    assert (tmp_path / "tiny" / "tokenizer.json").is_file()


def test_a_tokenizer_of_a_hub_without_transformers_is_refused_before_anything_is_downloaded(
    publish: Publish, site: Site, safe_weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("weights.safetensors", safe_weights, text={"hf_tokenizer_name": "some/words"})
    monkeypatch.setattr(clip_weights, "find_spec", lambda _: None)

    result = fetch(tmp_path / "models" / "tiny")

    assert (result.exit_code, "pip install 'vecgate[clip]'" in result.stderr) == (2, True)
    assert (site.paths, list(tmp_path.iterdir())) == ([], [])


class Evil:
    """What a pickle may hold: a call that is made when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def evil_files(folder: Path) -> dict[str, Path]:
    """Return weights files, in torch's forms and as a bare pickle, that would make a file named `ran`."""
    import torch

    evil, tensor = Evil(folder / "ran"), torch.zeros(2)
    files = {name: folder / f"{name}.pt" for name in ("zip", "legacy", "bare")}
    torch.save({"state_dict": {"a": tensor}, "evil": evil}, files["zip"])
    torch.save({"a": tensor, "evil": evil}, files["legacy"], _use_new_zipfile_serialization=False)
    files["bare"].write_bytes(pickle.dumps(evil, protocol=2))
    return files


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
async def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(
    form: str, publish: Publish, tmp_path: Path, config: ClipConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = evil_files(tmp_path)[form]
    publish("weights.pt", evil.read_bytes())

    result = fetch(tmp_path / "models" / "tiny")
    with pytest.raises(DownloadFailed, match="loading it could run code"):
        require_tensors(evil)
    embedder = in_process(ClipConfig(model=MODEL, checkpoint=evil, device="cpu"))
    with pytest.raises(ModelUnusable):
        await embedder.start()
    await embedder.close()

    assert result.exit_code == 1
    assert "loading it could run code" in result.stderr
    assert not (tmp_path / "ran").exists()
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\3\4" + bytes(50)])
def test_what_is_no_weights_file_is_refused(content: bytes, tmp_path: Path) -> None:
    for suffix in ("pt", "safetensors"):
        file = tmp_path / f"weights.{suffix}"
        file.write_bytes(content)
        with pytest.raises(DownloadFailed):
            require_tensors(file)


def test_a_file_of_plain_values_without_tensors_is_refused(tmp_path: Path) -> None:
    import torch

    torch.save([1, 2, {"a": "b"}], tmp_path / "list.pt")
    with pytest.raises(DownloadFailed, match="no tensors by name"):
        require_tensors(tmp_path / "list.pt")
