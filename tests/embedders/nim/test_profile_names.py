"""What each family of models takes, and which family a model's name means."""

import itertools

import pytest

from embedders.contract import DOCUMENT, QUERY, EmbedOptions, ImageInput, Input, Modality, TextImageInput, TextInput
from embedders.nim.embedder import NimConfig, NimEmbedder
from embedders.nim.profiles import PROFILES, NimProfile, check_profile, choose_profile
from embedders.nim.wire import Kind, request_fields, request_kind

TEXT, CUT, PICTURE = TextInput("a cat"), TextInput("a cat", truncate=True), ImageInput(b"...")
PAIR, CUT_PAIR = TextImageInput("a cat", b"..."), TextImageInput("a cat", b"...", truncate=True)
VL = PROFILES["nemotron-vl"]

IDS = {
    "nvclip": "nvidia/nvclip nvidia/nvclip-vit-h-14 nvclip",
    "nemotron-3.5": "nvidia/Nemotron-3.5-Embed-1B-BF16 nvidia/Nemotron-3.5-Embed-1B-NVFP4 "
    "nvidia/Nemotron-3.5-Embed-8B-BF16 nvidia/nemotron-3.5-embed-1b nvidia/nemotron-3.5-embed-8b "
    "nvidia/nemotron-3.5-embed-1b-bf16-EA",
    "nemotron-vl": "nvidia/llama-nemotron-embed-vl-1b-v2 nvidia/llama-nemotron-embed-vl-1b-v2-fp8",
    "nemoretriever-vlm": "nvidia/llama-3.2-nemoretriever-1b-vlm-embed-v1 "
    "nvidia/llama-3_2-nemoretriever-1b-vlm-embed-v1",
    "llama-nemotron": "nvidia/llama-nemotron-embed-1b-v2 nvidia/llama-nemotron-embed-300m-v2 "
    "nvidia/llama-3.2-nv-embedqa-1b-v2 nvidia/llama-3.2-nemoretriever-300m-embed-v1",
    "text": "nvidia/nemotron-3-embed-1b nvidia/nv-embedqa-e5-v5 nvidia/nv-embedqa-mistral-7b-v2 nvidia/nv-embed-v1 "
    "baai/bge-m3 bge-large-zh snowflake/arctic-embed-l",
    "plain": "somebody/else nvidia/llama-nemotron-rerank-vl-1b-v2 nvidia/Nemotron-3.5-Rerank-8B-BF16 nvidia/clip",
}
"""Served and hosted ids of each family, and ids of none."""


@pytest.mark.parametrize(
    ("model", "profile"), [(model, name) for name, models in IDS.items() for model in models.split()]
)
def test_auto_goes_by_the_models_name(model: str, profile: str) -> None:
    short = model.rpartition("/")[2]
    publishers = (model, short, f"nvidia/{short}", f"nvcr.io/nim/nvidia/{short}")
    for name, suffix, spell in itertools.product(publishers, ("", "-query", "-passage"), (str, str.upper, str.lower)):
        assert choose_profile("auto", spell(name + suffix)).name == profile


def test_no_name_is_plain() -> None:
    assert choose_profile("auto", "").name == "plain"


def test_a_named_profile_is_taken_whatever_the_models_name() -> None:
    assert choose_profile("nemotron-vl", "nvidia/nvclip") is VL


def test_a_name_of_no_profile_is_refused_with_those_there_are() -> None:
    names = "auto, nvclip, nemotron-3.5, nemotron-vl, nemoretriever-vlm, llama-nemotron, text, plain"
    with pytest.raises(ValueError, match=names):
        choose_profile("clip", "nvidia/nvclip")


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_a_batch_is_no_more_than_a_request_takes(profile: NimProfile) -> None:
    assert 1 <= profile.batch <= profile.max_inputs
    assert Modality.TEXT in profile.reads


@pytest.mark.parametrize(
    ("model", "dimensions", "words"),
    [
        ("nvidia/nvclip", 512, "profile nvclip has vectors of one length; leave dimensions out"),
        ("nvidia/nemotron-3-embed-1b", 512, "profile text has vectors of one length"),
        ("somebody/else", 512, "profile plain .* or set the profile of the model's family"),
        ("nvidia/llama-nemotron-embed-1b-v2", 500, "takes 384, 512, 768, 1024, 2048"),
        ("nvidia/nemotron-3.5-embed-1b", 0, "takes 1 to 65536"),
        ("nvidia/nemotron-3.5-embed-1b", 65_537, "takes 1 to 65536"),
    ],
)
def test_dimensions_are_refused_where_the_family_has_none_or_others(model: str, dimensions: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        NimEmbedder(NimConfig(base_url="http://nim", model=model, dimensions=dimensions))


@pytest.mark.parametrize("model", ["nvidia/llama-nemotron-embed-1b-v2", "nvidia/Nemotron-3.5-Embed-1B-NVFP4"])
def test_dimensions_are_a_part_of_the_space(model: str) -> None:
    spec = NimEmbedder(NimConfig(base_url="http://nim", model=model, dimensions=512)).spec

    assert (spec.model, spec.space) == (model, f"{model}@512")


@pytest.mark.parametrize("suffix", ["-query", "-passage", "-PASSAGE"])
def test_a_name_that_fixes_the_role_is_refused(suffix: str) -> None:
    with pytest.raises(ValueError, match="give the name without it"):
        NimEmbedder(NimConfig(base_url="http://nim", model=f"nvidia/nv-embedqa-e5-v5{suffix}"))


def test_such_a_name_is_a_name_where_models_have_one_role() -> None:
    check_profile(PROFILES["plain"], "somebody/image-query", max_batch=None, dimensions=None)


@pytest.mark.parametrize("name", ["nvclip", "plain"])
@pytest.mark.parametrize("each", [TEXT, CUT, PICTURE])
@pytest.mark.parametrize("options", [QUERY, DOCUMENT])
def test_models_with_one_role_get_one_kind_of_request_without_further_fields(
    name: str, each: Input, options: EmbedOptions
) -> None:
    profile = PROFILES[name]

    assert request_kind(profile, each, options) == Kind()
    assert request_fields(profile, Kind(), ["text"]) == {}


@pytest.mark.parametrize("profile", [each for each in PROFILES.values() if each.roles], ids=lambda each: each.name)
@pytest.mark.parametrize(
    ("each", "options", "kind"),
    [
        (TEXT, QUERY, Kind("query", "NONE")),
        (TEXT, DOCUMENT, Kind("passage", "NONE")),
        (CUT, QUERY, Kind("query", "END")),
        (CUT, DOCUMENT, Kind("passage", "END")),
        (PICTURE, QUERY, Kind("passage", "NONE")),
        (PICTURE, DOCUMENT, Kind("passage", "NONE")),
        (PAIR, QUERY, Kind("passage", "NONE")),
        (CUT_PAIR, DOCUMENT, Kind("passage", "END")),
    ],
)
def test_retrievers_tell_queries_from_passages_and_know_pictures_as_passages(
    profile: NimProfile, each: Input, options: EmbedOptions, kind: Kind
) -> None:
    assert request_kind(profile, each, options) == kind


@pytest.mark.parametrize(
    ("modalities", "sent"),
    [
        (["text", "image", "text_image"], ["text", "image", "text_image"]),
        (["text", "text"], "text"),
        (["image"], "image"),
        (["text_image", "text_image"], "text_image"),
    ],
)
def test_a_request_says_of_each_input_what_it_is_and_once_if_all_are_the_same(
    modalities: list[str], sent: str | list[str]
) -> None:
    assert request_fields(VL, Kind("passage", "END"), modalities) == {
        "input_type": "passage",
        "modality": sent,
        "truncate": "END",
    }


def test_dimensions_are_sent_only_when_asked_for() -> None:
    for profile, dimensions in itertools.product((VL, PROFILES["nvclip"]), (None, 512)):
        fields = request_fields(profile, Kind(), ["text"], dimensions)
        assert fields.get("dimensions") == dimensions
        assert ("dimensions" in fields) is (dimensions is not None)
