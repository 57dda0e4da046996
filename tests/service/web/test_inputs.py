"""What the strings of a request stand for."""

import base64
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedders.contract import (
    SEPARATE,
    EmbedderSpec,
    ImageInput,
    Input,
    InputLimits,
    Modality,
    TextImageInput,
    TextInput,
)
from service.errors import MAX_VIOLATIONS, InvalidRequest
from service.web.inputs import AT_ONCE, WINDOW, InputReader
from tests.fakes.embedder import picture
from tests.fakes.web import data_uri

BOTH = EmbedderSpec(
    name="e",
    model="m",
    space="s",
    dimension=4,
    modalities=frozenset(Modality),
    limits=InputLimits(),
    max_batch=64,
)
CLIP = replace(BOTH, modalities=SEPARATE)
TEXTS = replace(BOTH, modalities=frozenset({Modality.TEXT}))
PNG = picture()
URL = data_uri(PNG)


def read(item: str, declared: Modality | None = None, spec: EmbedderSpec = BOTH) -> Input:
    (each,) = InputReader().read([item], [declared], spec, truncate=True)
    return each


def refusal(item: str, declared: Modality | None = None, spec: EmbedderSpec = BOTH) -> str:
    with pytest.raises(InvalidRequest) as caught:
        read(item, declared, spec)
    (violation,) = caught.value.violations
    assert violation.field == "input[0]"
    return violation.description


@pytest.mark.parametrize("separator", [" ", "\n", "\r\n", "\t", "  \n "])
def test_a_text_white_space_and_a_data_url_are_one_input_of_both(separator: str) -> None:
    joint = TextImageInput("a red bag", PNG, truncate=True)

    assert read(f"a red bag{separator}{URL}") == joint
    assert read(f"a red bag{separator}{URL}\n", Modality.TEXT_IMAGE) == joint


@pytest.mark.parametrize(
    ("spec", "fix"),
    [
        (CLIP, "each as an input of its own, not text and picture as one input; send them as two inputs, or set"),
        (TEXTS, "reads texts only, not text and picture as one input; leave the image out, or set"),
    ],
    ids=["clip", "texts-only"],
)
def test_a_text_with_an_image_is_refused_where_the_model_does_not_read_both_at_once(
    spec: EmbedderSpec, fix: str
) -> None:
    assert fix in refusal(f"a red bag {URL}", spec=spec)


def test_an_image_is_refused_where_the_model_reads_texts_only() -> None:
    assert "reads texts only, not pictures; leave the image out, or set" in refusal(URL, spec=TEXTS)


@pytest.mark.parametrize("item", [URL, f"a red bag {URL}", f"<img src='{URL}'>", "data:images are free", "a cat"])
@pytest.mark.parametrize("spec", [BOTH, CLIP, TEXTS], ids=["both", "clip", "texts-only"])
def test_what_is_declared_a_text_is_one_to_the_letter(item: str, spec: EmbedderSpec) -> None:
    assert read(item, Modality.TEXT, spec) == TextInput(item, truncate=True)


@pytest.mark.parametrize(
    "item",
    [
        f"<img src='{URL}'>",
        f"![a bag]({URL})",
        f"bag{URL}",
        f"a red bag {URL} and a blue one",
        f"a red bag {URL} {URL}",
        f"{URL} {URL}",
        f"{URL} a red bag",
        f"a red bag {URL.upper().replace('BASE64', 'base64')}>",
        "x" * (WINDOW - 9) + f"'{URL}'",
    ],
    ids=range(9),
)
def test_a_data_url_anywhere_else_is_never_letters_and_never_a_picture(item: str) -> None:
    message = refusal(item)

    assert re.search("where it is not read|not base64", message)


PACKED = base64.b64encode(PNG).decode()


@pytest.mark.parametrize(
    "url",
    [
        f"data:image/png;name=a%20b.png;base64,{PACKED}",
        f'data:image/png;name="x.png";base64,{PACKED}',
        f'data:image/png;name="a, b: c.png";base64,{PACKED}',
        f"data:image/png;name=my file.png;base64,{PACKED}",
        f"data:image/png;name={'x' * 900};base64,{PACKED}",
        f"data:image/png; base64,{PACKED}",
        f"data:image/png ;base64 , {PACKED}",
        f"data:image/png;\r\n base64,{PACKED}",
        f"data:image/png;a=1;b=2;c=3;d=4;e=5;base64,{PACKED}",
        f"data:image/png;base64;q=1;base64,{PACKED}",
        f"data:image/png;base64%2C{PACKED}",
        f"data:image/png;base64&#44;{PACKED}",
        f"data%3Aimage%2Fpng%3Bbase64%2C{PACKED}",
        f"DATA:IMAGE\\/PNG;BASE64,{PACKED}",
        f"data:image/{'x' * 50};base64,{PACKED}",
        f"data:image;base64,{PACKED}",
        "data:image/png;base64,_-8A",
        "data:image/svg+xml;utf8,<svg xmlns='http://www.w3.org/2000/svg'/>",
        "data:image/svg+xml; charset=utf-8,<svg/>",
        "data:image/svg+xml,%3Csvg/%3E",
        "data:image/png,%89PNG",
    ],
)
@pytest.mark.parametrize("form", ["a cat\n{}", "a cat {} and more", "<img src='{}'>", "see data: {}", "{}"])
def test_a_data_url_of_an_image_in_any_other_form_is_never_letters(url: str, form: str) -> None:
    item = form.format(url)

    assert re.search("image, whose form is data:image/png;base64,|not base64|where it is not read", refusal(item))
    assert read(item, Modality.TEXT) == TextInput(item, truncate=True)


@pytest.mark.parametrize("end", ["", " ", "\n"])
@pytest.mark.parametrize("words", ["a cat", "x" * (WINDOW - 30), "x" * (WINDOW + 1536 - 23)])
def test_a_text_with_a_data_url_without_content_has_an_empty_image(words: str, end: str) -> None:
    assert read(f"{words} data:image/png;base64,{end}") == TextImageInput(words, b"", truncate=True)
    assert read(f"{words} data:image/png;base64,... {end}") == TextInput(
        f"{words} data:image/png;base64,... {end}", truncate=True
    )


@pytest.mark.parametrize("url", [f"data:;base64,{PACKED}", f"data:name=x.png;base64,{PACKED}"])
def test_a_data_url_that_does_not_say_that_it_is_of_an_image_is_refused(url: str) -> None:
    assert "not of an image by its media type" in refusal(f"a cat\n{url}")


@pytest.mark.parametrize("blank", ["\ufeff", "\u200b ", "\u200b\n", " \u2060", "\u200b" * (WINDOW + 9)])
def test_what_cannot_be_seen_before_a_data_url_is_no_text(blank: str) -> None:
    assert read(blank + URL) == ImageInput(PNG)
    assert read(f"{blank}a{blank} {URL}") == TextImageInput(f"{blank}a{blank}".rstrip(), PNG, truncate=True)


@pytest.mark.parametrize("item", [f"{URL} a cat", f"{URL} https://example.com", f"a cat {URL} and", f"a {URL} b: c"])
def test_a_text_behind_a_data_url_is_told_where_it_stands(item: str) -> None:
    assert "send the text, a space or a line end, and one data URL at the end" in refusal(item)


@pytest.mark.parametrize("at", range(WINDOW - 40, WINDOW + 10))
def test_a_data_url_across_the_end_of_a_window_is_found(at: int) -> None:
    assert read("x" * (at - 1) + " " + URL) == TextImageInput("x" * (at - 1), PNG, truncate=True)


@pytest.mark.parametrize(
    "item", ["data:application/pdf;base64,JVBERi0x", "see data:video/mp4;base64,AAAA", "DATA:TEXT/HTML;BASE64,PGI+"]
)
def test_a_data_url_of_another_kind_is_refused(item: str) -> None:
    assert "not of an image" in refusal(item)
    assert read(item, Modality.TEXT) == TextInput(item, truncate=True)


@pytest.mark.parametrize(
    "item",
    [
        "write it as data:image/png;base64,... please",
        "see data:image/png",
        "metadata:image/png, base64",
        "data: image/png;base64,AAAA",
        "use data:image/png, or data:image/jpeg",
        "of type data:image/png; pictures are base64, and texts are not",
        "I store metadata:json; pictures are base64, and texts are not",
        "an image is data:image/<type>;base64,<data>",
        "data:text/plain,AAAA",
        "data:,",
        "base64,AAAA",
        ",",
    ],
)
def test_words_about_data_urls_are_texts(item: str) -> None:
    assert read(item) == TextInput(item, truncate=True)


@pytest.mark.parametrize("item", [URL, f"  {URL}", f"\n\t{URL}\n", URL.replace("data", "DATA"), " " * 100 + URL])
@pytest.mark.parametrize("declared", [None, Modality.IMAGE])
def test_a_data_url_alone_is_an_image(item: str, declared: Modality | None) -> None:
    assert read(item, declared) == ImageInput(PNG)


@pytest.mark.parametrize(
    ("item", "declared"),
    [
        ("a cat", Modality.IMAGE),
        (f"a cat {URL}", Modality.IMAGE),
        ("a cat", Modality.TEXT_IMAGE),
        (URL, Modality.TEXT_IMAGE),
    ],
)
def test_what_is_not_as_it_is_declared_is_refused(item: str, declared: Modality) -> None:
    assert "as modality says; send" in refusal(item, declared)


def in_lines(packed: str, width: int, end: str) -> str:
    return end.join(packed[at : at + width] for at in range(0, len(packed), width)) + end


LINED: dict[str, Callable[[str], str]] = {
    "the program base64": lambda packed: in_lines(packed, 76, "\n"),
    "NVIDIA's sample client": lambda packed: in_lines(packed, 76, " ").rstrip(),
    "MIME": lambda packed: in_lines(packed, 76, "\r\n"),
    "PEM": lambda packed: in_lines(packed, 64, "\n"),
    "a space behind the comma": lambda packed: f" {packed}",
    "no padding": lambda packed: packed.rstrip("="),
    "lines without padding": lambda packed: in_lines(packed.rstrip("="), 76, "\n"),
}


@pytest.mark.parametrize("form", LINED)
@pytest.mark.parametrize("size", [1, 2, 3, 55, 56, 57, 58, 1000, 3_000_001])
def test_base64_in_lines_or_without_padding_is_read_to_the_byte(form: str, size: int) -> None:
    content = (bytes(range(256)) * (size // 256 + 1))[:size]
    packed = LINED[form](base64.b64encode(content).decode())

    assert read(f"data:image/png;base64,{packed}") == ImageInput(content)
    assert read(f"a cat data:image/png;base64,{packed}") == TextImageInput("a cat", content, truncate=True)


@given(st.binary(min_size=1, max_size=400))
def test_base64_is_read_to_the_byte(content: bytes) -> None:
    assert read(data_uri(content)) == ImageInput(content)


A_LINE = "A" * 76


@pytest.mark.parametrize(
    "packed",
    [
        "A",
        "AAAAA",
        "AA*A",
        "AAAA*",
        "*",
        " * ",
        "A===",
        "AAAA=",
        "AAAA====",
        "AA=",
        "AA==AAAA",
        "=AAA",
        "AA-_",
        "ÄAAA",
        "AAA\x00",
        "AAAA AAAAAAAA",
        f"{A_LINE}AAAA {A_LINE}",
        f"{A_LINE} AAAA {A_LINE}",
        f"{A_LINE}\n{A_LINE} {A_LINE}",
        f"{A_LINE}\n{A_LINE}AAAA",
        f"{A_LINE}   {A_LINE}",
        f"{A_LINE}\n\n\n{A_LINE}",
        f"{A_LINE}\n{'A' * 30} {'A' * 45}\n{A_LINE}",
        base64.b64encode(PNG).decode() + " and more",
        "A" * (AT_ONCE - 4) + "AA==" + "AAAA",
        "A" * AT_ONCE + "*AAA",
    ],
    ids=range(26),
)
def test_what_is_plainly_not_base64_is_refused(packed: str) -> None:
    message = refusal(f"data:image/png;base64,{packed}")

    assert "the image is not base64; use the standard alphabet" in message


def test_every_fault_is_told_with_its_place_and_their_number_is_bounded() -> None:
    with pytest.raises(InvalidRequest) as caught:
        InputReader().read([URL, *["data:image"] * 150], [None] * 151, BOTH, truncate=False)

    error = caught.value
    assert [each.field for each in error.violations[:2]] == ["input[1]", "input[2]"]
    assert (len(error.violations), error.more) == (MAX_VIOLATIONS, 50)


def test_whether_and_where_a_text_may_be_cut_is_passed_on() -> None:
    inputs = InputReader().read(["a", f"b {URL}"], [None, None], BOTH, truncate=False)

    at_start = InputReader().read(["a", f"b {URL}", URL], [None] * 3, BOTH, truncate=True, at_start=True)

    assert inputs == [TextInput("a", truncate=False), TextImageInput("b", PNG, truncate=False)]
    assert at_start == [TextInput("a", True, True), TextImageInput("b", PNG, True, True), ImageInput(PNG)]
