"""Keys for the NIM: the server's and the callers', and where they never show."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from embedders.contract import DOCUMENT, QUERY, TextInput
from embedders.errors import CallerKeyRejected, CredentialRejected, EmbedderError, EmbedderUnavailable, ModelGone
from embedders.front.batching import BatchingEmbedder
from embedders.front.breaker import BreakerEmbedder, BreakerRules
from embedders.front.queueing import QueueBounds
from embedders.nim.embedder import NimConfig, NimEmbedder
from tests.embedders.nim.starting import start_learnt
from tests.embedders.suite import CAT, DOG, LIMITS, vectors
from tests.fakes.nim import FakeNim, Fault

OURS, ALICES, BOBS = "nvapi-of-the-server", "nvapi-of-alice", "nvapi-of-bob"
ALICE, BOB = replace(QUERY, api_key=ALICES), replace(QUERY, api_key=BOBS)


@pytest.fixture
def config(nim: FakeNim) -> NimConfig:
    return NimConfig(
        base_url=nim.base_url,
        model=nim.model,
        limits=LIMITS,
        api_key=OURS,
        retry_attempts=1,
    )


@pytest.fixture
async def embedder(nim: FakeNim, config: NimConfig) -> AsyncIterator[NimEmbedder]:
    embedder = NimEmbedder(config)
    await start_learnt(embedder, nim)
    yield embedder
    await embedder.close()


def keys(nim: FakeNim) -> list[str | None]:
    """Return the key of each request."""
    return [headers.get("authorization", "").removeprefix("Bearer ") or None for headers in nim.headers]


async def test_a_callers_key_goes_instead_of_the_servers_for_that_call_alone(
    nim: FakeNim, embedder: NimEmbedder
) -> None:
    for options in (ALICE, QUERY, BOB, DOCUMENT):
        await embedder.embed([CAT], options)

    assert keys(nim) == [ALICES, OURS, BOBS, OURS]


async def test_a_server_without_a_key_sends_none(nim: FakeNim, config: NimConfig) -> None:
    embedder = NimEmbedder(replace(config, api_key=None))
    await start_learnt(embedder, nim)
    try:
        await embedder.embed([CAT], QUERY)
        await embedder.embed([CAT], ALICE)
    finally:
        await embedder.close()

    assert keys(nim) == [None, ALICES]


@pytest.mark.parametrize("model", ["nvidia/nvclip", None])
async def test_callers_with_keys_are_served_where_the_server_has_none_and_the_nim_wants_one(model: str | None) -> None:
    async with FakeNim(api_key=ALICES) as nim:
        config = NimConfig(base_url=nim.base_url, model=model, caller_keys=True)
        batching = BatchingEmbedder(NimEmbedder(config), bounds=QueueBounds(max_inputs=100, max_bytes=2**20))
        embedder = BreakerEmbedder(batching, BreakerRules())
        await embedder.start()

        await embedder.check()
        with pytest.raises(CallerKeyRejected, match="401"):
            await embedder.embed([CAT], BOB)
        outcomes = vectors(await embedder.embed([CAT, DOG], ALICE))
        await embedder.check()
        await embedder.close()

    assert outcomes.shape == (2, 16)
    # A gateway may count requests without a key against this server; only what tells that it wants one may be such.
    assert keys(nim).count(None) == 1


async def test_a_nim_that_only_callers_have_keys_for_is_compared_by_the_next_call_after_a_check() -> None:
    async with FakeNim(api_key=ALICES) as nim:
        embedder = NimEmbedder(NimConfig(base_url=nim.base_url, caller_keys=True, retry_attempts=1))
        await start_learnt(embedder, nim)
        await embedder.embed([CAT], ALICE)
        row = nim._row
        nim._row = lambda content, role: row(content, role)[::-1].copy()  # type: ignore[method-assign]
        await embedder.check()

        with pytest.raises(ModelGone, match="vector of one text is not what it was"):
            await embedder.embed([CAT], ALICE)
        await embedder.close()


async def test_a_key_is_cut_out_also_where_the_words_are_shortened(nim: FakeNim, embedder: NimEmbedder) -> None:
    said = "x" * 190
    nim.refuses, nim.said = (lambda _: True), {"detail": f"{said} {ALICES} {OURS}"}

    with pytest.raises(EmbedderError) as failure:
        await embedder.embed([CAT], ALICE)

    assert f'{said} ... ..."' in str(failure.value)


async def test_a_call_without_a_key_is_told_to_bring_one_and_harms_nobody(nim: FakeNim, config: NimConfig) -> None:
    nim.api_key = ALICES
    embedder = BreakerEmbedder(NimEmbedder(replace(config, api_key=None, caller_keys=True)), BreakerRules())
    await start_learnt(embedder, nim)

    with pytest.raises(CallerKeyRejected, match="this server has none; send one with the call"):
        await embedder.embed([CAT], QUERY)

    assert len(vectors(await embedder.embed([CAT], ALICE))) == 1
    await embedder.close()


async def test_a_nim_that_wants_no_key_is_checked_with_a_text_where_only_callers_have_keys(
    nim: FakeNim, config: NimConfig
) -> None:
    embedder = NimEmbedder(replace(config, api_key=None, caller_keys=True))
    await start_learnt(embedder, nim)
    nim.fault = Fault(status=503)

    with pytest.raises(EmbedderUnavailable):
        await embedder.check()

    nim.fault = None
    await embedder.check()
    await embedder.close()


async def test_a_server_whose_callers_bring_no_keys_has_to_have_the_nims(nim: FakeNim, config: NimConfig) -> None:
    nim.api_key = ALICES
    embedder = NimEmbedder(replace(config, api_key=None))
    await start_learnt(embedder, nim)

    with pytest.raises(CredentialRejected) as failure:
        await embedder.check()

    assert type(failure.value) is CredentialRejected
    await embedder.close()


async def test_calls_with_different_keys_never_share_a_request(nim: FakeNim, config: NimConfig) -> None:
    batching = BatchingEmbedder(
        NimEmbedder(replace(config, max_connections=1)), bounds=QueueBounds(max_inputs=1000, max_bytes=2**20)
    )
    await start_learnt(batching, nim)
    gate = asyncio.Event()
    nim.faults.append(Fault(gate=gate))
    # The first call holds the only slot, so that all others wait together and could share.
    calls = [asyncio.create_task(batching.embed([CAT], QUERY))]
    await nim.arrived.wait()
    for number in range(30):
        for who, options in (("ours", QUERY), ("alice", ALICE), ("bob", BOB)):
            calls.append(asyncio.create_task(batching.embed([TextInput(f"{who} {number}")], options)))
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*calls)
    await batching.close()

    sent = [(key, request["input"]) for key, request in zip(keys(nim), nim.requests, strict=True)][1:]
    assert len(sent) == 3
    whose = {OURS: "ours", ALICES: "alice", BOBS: "bob"}
    for key, items in sent:
        assert {item.split()[0] for item in items} == {whose[str(key)]}


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_a_refused_key_is_the_callers_fault_or_the_servers(
    nim: FakeNim, embedder: NimEmbedder, status: int
) -> None:
    nim.fault = Fault(status=status)

    for options, error in ((ALICE, CallerKeyRejected), (QUERY, CredentialRejected)):
        with pytest.raises(CredentialRejected) as failure:
            await embedder.embed([CAT, DOG], options)
        assert type(failure.value) is error
        assert str(status) in str(failure.value)

    assert len(nim.requests) == 2


@pytest.mark.parametrize("key", ["", "two\nlines", "é", "x" * 5000])
async def test_a_key_that_no_header_carries_is_refused_before_anything_is_sent(
    nim: FakeNim, embedder: NimEmbedder, key: str
) -> None:
    with pytest.raises(CallerKeyRejected):
        await embedder.embed([CAT], replace(QUERY, api_key=key))

    assert nim.requests == []


@pytest.mark.parametrize(
    "fault",
    [Fault(status=401), Fault(status=500), Fault(status=404), Fault(status=418), Fault(reset=True), Fault(body=b"<")],
    ids=["401", "500", "404", "418", "reset", "html"],
)
async def test_no_key_shows_in_errors_reprs_or_logs(
    nim: FakeNim, config: NimConfig, embedder: NimEmbedder, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    nim.fault = fault
    shown = [repr(config), repr(ALICE), repr(embedder), repr(vars(embedder))]
    for options in (ALICE, QUERY):
        with pytest.raises(EmbedderError) as failure:
            await embedder.embed([CAT], options)
        error: BaseException | None = failure.value
        while error is not None:
            shown += [str(error), repr(error), repr(vars(error))]
            error = error.__cause__ or error.__context__
    shown += [record.getMessage() for record in caplog.records]

    assert not [text for text in shown for key in (OURS, ALICES) if key in text]


async def test_a_key_that_the_nim_repeats_is_cut_out_of_its_words(nim: FakeNim, embedder: NimEmbedder) -> None:
    nim.refuses, nim.said = (lambda _: True), {"detail": f"who is {ALICES}? not {OURS}"}

    with pytest.raises(EmbedderError, match=r"who is \.\.\.\? not \.\.\.") as failure:
        await embedder.embed([CAT], ALICE)

    assert ALICES not in str(failure.value)


async def test_no_cookie_of_one_caller_goes_out_with_the_next_ones_request(nim: FakeNim, embedder: NimEmbedder) -> None:
    cookie = Fault(headers={"Set-Cookie": "session=of-alice; Path=/"})
    nim.faults.extend([cookie, cookie])

    for options in (ALICE, BOB, BOB):
        assert len(vectors(await embedder.embed([CAT], options))) == 1

    assert not [headers for headers in nim.headers if "cookie" in headers]
