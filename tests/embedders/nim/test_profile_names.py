"""What each family of models takes."""

from typing import get_args

import pytest

from embedders.contract import DOCUMENT, QUERY, EmbedOptions, ImageInput, Input, TextInput
from embedders.nim.profiles import PROFILES, choose_profile
from embedders.nim.wire import Kind, request_fields, request_kind
from service.settings.embedders import ProfileName

TEXT, CUT, PICTURE = TextInput("a cat"), TextInput("a cat", truncate=True), ImageInput(b"...")
VL = PROFILES["nemotron-vl"]


@pytest.mark.parametrize(
    ("model", "profile"),
    [
        ("nvidia/nvclip", "nvclip"),
        ("nvidia/nvclip-vit-h-14", "nvclip"),
        ("NVIDIA/NVCLIP", "nvclip"),
        ("nvclip", "nvclip"),
        ("nvidia/llama-nemotron-embed-vl-1b-v2", "nemotron-vl"),
        ("nvidia/llama-3.2-nemoretriever-1b-vlm-embed-v1", "nemoretriever-vlm"),
        ("nvidia/llama-3_2-nemoretriever-1b-vlm-embed-v1", "nemoretriever-vlm"),
        ("nvidia/llama-nemotron-embed-1b-v2", "plain"),
        ("somebody/else", "plain"),
        ("", "plain"),
    ],
)
def test_auto_goes_by_the_models_name(model: str, profile: str) -> None:
    assert choose_profile("auto", model).name == profile


def test_a_named_profile_is_taken_whatever_the_models_name() -> None:
    assert choose_profile("nemotron-vl", "nvidia/nvclip") is VL


def test_a_name_of_no_profile_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="auto, nvclip, nemotron-vl, nemoretriever-vlm, plain"):
        choose_profile("clip", "nvidia/nvclip")


def test_the_setting_offers_every_profile() -> None:
    assert get_args(ProfileName) == ("auto", *PROFILES)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_a_batch_is_no_more_than_a_request_takes(profile: object) -> None:
    assert 1 <= profile.batch <= profile.max_inputs  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["nvclip", "plain"])
@pytest.mark.parametrize("each", [TEXT, CUT, PICTURE])
@pytest.mark.parametrize("options", [QUERY, DOCUMENT])
def test_models_with_one_role_get_one_kind_of_request_without_further_fields(
    name: str, each: Input, options: EmbedOptions
) -> None:
    profile = PROFILES[name]

    assert request_kind(profile, each, options) == Kind()
    assert request_fields(profile, Kind(), ["text"]) == {}


@pytest.mark.parametrize(
    ("each", "options", "kind"),
    [
        (TEXT, QUERY, Kind("query", "NONE")),
        (TEXT, DOCUMENT, Kind("passage", "NONE")),
        (CUT, QUERY, Kind("query", "END")),
        (CUT, DOCUMENT, Kind("passage", "END")),
        (PICTURE, QUERY, Kind("passage", "NONE")),
        (PICTURE, DOCUMENT, Kind("passage", "NONE")),
    ],
)
def test_nemotron_vl_tells_queries_from_passages_and_knows_pictures_as_passages(
    each: Input, options: EmbedOptions, kind: Kind
) -> None:
    assert request_kind(VL, each, options) == kind


def test_nemotron_vl_says_of_each_input_what_it_is() -> None:
    assert request_fields(VL, Kind("passage", "END"), ["text", "image"]) == {
        "input_type": "passage",
        "modality": ["text", "image"],
        "truncate": "END",
    }
