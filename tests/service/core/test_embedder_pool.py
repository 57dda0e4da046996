"""The pool of embedders: how they start, whose key goes where, and what the metrics know of them."""

import asyncio
import math
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from embedders.contract import NOT_CHECKED, QUERY, Health, TextInput
from embedders.errors import EmbedderUnavailable, ModelUnusable
from embedders.front.breaker import BreakerEmbedder, BreakerRules
from service.core.backend_pool import RECHECK_INTERVAL_S
from service.core.embedder_pool import EmbedderPool
from service.domain import Collection, NamedVector, Space
from service.errors import InvalidRequest
from tests.fakes.embedder import FakeEmbedder

TEXT = TextInput("a")
KEYED = replace(QUERY, api_key="nvapi-mine")


class StartsSlowly(FakeEmbedder):
    """A local model whose start lasts until the test lets it end."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        self._spec = replace(self._spec, weights_digest="00")
        self.starting, self.go = asyncio.Event(), asyncio.Event()

    async def start(self) -> None:
        self.starting.set()
        await self.go.wait()
        await super().start()


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.asked = 0

    def __call__(self) -> float:
        self.asked += 1
        return self.now_s


def breaking(embedder: FakeEmbedder) -> BreakerEmbedder:
    return BreakerEmbedder(embedder, BreakerRules())


@pytest.mark.parametrize("down", ["refuses", "is silent"])
async def test_an_embedder_elsewhere_that_is_down_delays_no_start_and_its_health_says_so(down: str) -> None:
    backends = [FakeEmbedder(name=name) for name in ("a", "b", "c")]
    away = backends[1]
    if down == "refuses":
        away.failure = EmbedderUnavailable("the NIM cannot be reached")
    else:
        away.gate = asyncio.Event()
    pool = EmbedderPool([breaking(each) for each in backends], check_interval_s=3600)

    await pool.start()
    at_once = [pool.fault(each) for each in pool.all]
    async with asyncio.timeout(60):
        while [pool.fault(each) for each in pool.all].count(None) < 2 or not away.entered.is_set():
            await asyncio.sleep(0)
    then = [pool.fault(each) for each in pool.all]
    await pool.close()

    assert at_once == [NOT_CHECKED] * 3
    assert then == [None, "the NIM cannot be reached" if down == "refuses" else NOT_CHECKED, None]


async def test_local_models_are_loaded_at_the_same_time_and_work_once_the_start_has_ended() -> None:
    models = [StartsSlowly("a"), StartsSlowly("b")]
    pool = EmbedderPool([breaking(each) for each in models], check_interval_s=3600)

    starting = asyncio.create_task(pool.start())
    async with asyncio.timeout(60):
        for each in models:
            await each.starting.wait()
        for each in reversed(models):
            each.go.set()
        await starting
    faults = [pool.fault(each) for each in pool.all]
    await pool.close()

    assert faults == [None, None]


async def test_a_local_model_that_cannot_be_loaded_ends_the_start_and_the_others_are_not_waited_for() -> None:
    slow, broken = StartsSlowly("slow"), StartsSlowly("broken")

    async def fail() -> None:
        raise ModelUnusable("its files are missing")

    broken.start = fail  # type: ignore[method-assign]
    pool = EmbedderPool([slow, broken], check_interval_s=3600)

    with pytest.raises(ModelUnusable, match="its files are missing"):
        await asyncio.wait_for(pool.start(), 5)
    await pool.close()

    assert (slow.closed, broken.closed) == (1, 1)


class Busy(FakeEmbedder):
    """An embedder that somebody calls all the time, with success."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.health = Health(None, math.inf)
        self._clock = clock
        self.checked_s: list[float] = []

    async def check(self) -> None:
        self.checked_s.append(self._clock.now_s)


async def test_an_embedder_whose_calls_succeed_is_checked_once_a_minute_because_its_weights_may_change() -> None:
    clock = Clock()
    busy = Busy(clock)
    pool = EmbedderPool([busy], check_interval_s=0.0001, now_s=clock)
    await pool.start()
    await pool.first_checks()
    async with asyncio.timeout(60):
        for _ in range(130):
            clock.now_s += 1
            asked = clock.asked
            while clock.asked == asked:
                await asyncio.sleep(0)
    await pool.close()

    assert RECHECK_INTERVAL_S == 60
    assert busy.checked_s == [100, 160, 220]


def keys(embedder: FakeEmbedder) -> list[str | None]:
    return [options.api_key for inputs, options in embedder.calls if TEXT in inputs]


async def test_a_callers_key_goes_only_to_embedders_that_take_one_and_a_local_model_gets_none() -> None:
    takes, refuses = FakeEmbedder(name="takes"), FakeEmbedder(name="refuses", caller_keys=False)
    local = FakeEmbedder(name="local", caller_keys=False)
    local._spec = replace(local._spec, weights_digest="00")
    pool = EmbedderPool([refuses, takes, local])

    first, _ = await pool.embed_with_first(pool.all, [TEXT], KEYED)
    takes.failure = EmbedderUnavailable("down")
    second, _ = await pool.embed_with_first(pool.all, [TEXT], KEYED)
    third, _ = await pool.embed_with_first(pool.all, [TEXT], QUERY)

    assert [each.spec.name for each in (first, second, third)] == ["takes", "local", "refuses"]
    assert (keys(takes)[0], keys(local), keys(refuses)) == ("nvapi-mine", [None], [None])


async def test_a_call_with_a_key_that_no_embedder_takes_is_refused_and_nothing_is_asked() -> None:
    refuses = FakeEmbedder(name="nemotron-8b", caller_keys=False)
    pool = EmbedderPool([refuses])

    with pytest.raises(InvalidRequest) as caught:
        await pool.embed_with_first(pool.all, [TEXT], KEYED)

    (violation,) = caught.value.violations
    assert violation.field == 'metadata["x-nvidia-api-key"]'
    assert "VECGATE_EMBEDDERS__NEMOTRON_8B__ALLOW_CALLER_KEYS=true" in violation.description
    assert "nvapi-mine" not in str(caught.value)
    assert refuses.calls == []


async def test_the_metric_of_an_embedder_names_its_space_once_it_is_known_and_no_other() -> None:
    backend = FakeEmbedder(name="learns-late")
    known, backend._spec = backend.spec, replace(backend.spec, model="", space="", dimension=0, learnt=False)
    backend.failure = EmbedderUnavailable("down")
    pool = EmbedderPool([breaking(backend)])

    await pool._check(pool.default)
    before = up("learns-late", "")
    backend._spec, backend.failure = known, None
    await pool._check(pool.default)

    assert (before, up("learns-late", ""), up("learns-late", known.space)) == (0, None, 1)


async def test_the_space_of_an_adopted_vector_is_found_once_and_again_when_an_embedder_has_told_its_space() -> None:
    backend = FakeEmbedder(space="late")
    known, backend._spec = backend.spec, replace(backend.spec, model="", space="", dimension=0, learnt=False)
    pool = EmbedderPool([breaking(backend)])
    vector = NamedVector("default", Space(known.model, 0, known.model))
    adopted = Collection("Adopted", (), (vector,))

    before = pool.resolve(adopted)
    backend._spec = known
    after = pool.resolve(adopted)

    assert before.vectors == (vector,)
    assert [each.space for each in after.vectors] == [Space("late", known.dimension, known.model)]
    assert pool.resolve(adopted) is after
    assert pool.resolve(replace(adopted, description="read again")).description == "read again"


@pytest.mark.parametrize("later", [0, 1])
async def test_that_two_addresses_have_two_spaces_is_told_once_and_as_soon_as_both_are_known(later: int) -> None:
    backends = [FakeEmbedder(name="open", space="a"), FakeEmbedder(name="open-2", space="b")]
    late = backends[later]
    known, late._spec = late.spec, replace(late.spec, model="", space="", dimension=0, learnt=False)
    late.failure = EmbedderUnavailable("down")
    pool = EmbedderPool([breaking(each) for each in backends], replicas={"open": ["open", "open-2"]})

    with capture_logs() as before:
        for each in pool.all:
            await pool._check(each)
    early = [pool.why_apart(each) for each in pool.all]
    late._spec, late.failure = known, None
    with capture_logs() as after:
        await pool._check(pool.all[later])
        late.failure = EmbedderUnavailable("down")
        await pool._check(pool.all[later])
        late.failure = None
        await pool._check(pool.all[later])

    told = [[line for line in logs if line["event"] == "addresses_of_two_spaces"] for logs in (before, after)]
    assert (early, told[0]) == ([None, None], [])
    assert [(line["embedder"], line["log_level"]) for line in told[1]] == [("open-2", "warning")]
    assert [pool.why_apart(each) is None for each in pool.all] == [True, False]


async def test_the_setting_that_lets_a_key_in_is_that_of_the_nim_not_of_its_second_address() -> None:
    pool = EmbedderPool(
        [FakeEmbedder(name=name, caller_keys=False) for name in ("open", "open-2")],
        replicas={"open": ["open", "open-2"]},
    )

    with pytest.raises(InvalidRequest, match="set VECGATE_EMBEDDERS__OPEN__ALLOW_CALLER_KEYS=true"):
        await pool.embed_with_first(pool.asked_for("open-2"), [TEXT], KEYED)


def up(name: str, space: str) -> float | None:
    return REGISTRY.get_sample_value("vecgate_embedder_up", {"embedder": name, "space": space})
