"""Jobs with the stages in this process, one after the other, on a store in memory."""

import json
import math
import os
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedders.images.likeness import Threshold
from service.bulk import job as jobs
from service.bulk import reading, stages
from service.bulk.job import Job, Result, look, run
from service.bulk.ledger import Ledger, LedgerFailed, Totals
from service.bulk.likeness import Measuring
from service.bulk.loop import BackgroundLoop
from service.bulk.patience import BulkStopped
from service.bulk.pipeline import Sizes
from service.bulk.reading import Reading, read_fragment
from service.bulk.stages import Target, Write
from service.domain import Collection, DataType, MultiTenancy, NamedVector, Property, Scope, Space, WeightedField
from service.errors import InvalidRequest
from service.settings import FetchSettings, InvalidSettings, Settings, WeaviateSettings
from service.sources.errors import InvalidMapping
from service.sources.fragments import Fragment
from service.sources.mapping import Mapping as ColumnMapping
from tests.fakes.store import FakeStore

COLLECTION = Collection(
    "Photos", (Property("count", DataType.INT),), (NamedVector("main", Space("fake", 3, "fake/model")),)
)


class Stages:
    """A pipeline without Ray and without an embedder."""

    forgotten = ""
    """The end of the names of files that it loses."""

    def __init__(self, _: Settings, target: Target, reading: Reading, *_rest: object) -> None:
        self._target, self._reading = target, reading

    def of_run(self, run: str) -> "Stages":
        """Return the same of another command."""
        assert self._target.output is not None
        return Stages(Settings(), replace(self._target, output=replace(self._target.output, run=run)), self._reading)

    def outcomes(self, fragments: Mapping[str, Fragment]) -> Iterator[pa.Table]:
        """Read and write."""
        write = Write(self._target)
        for name, each in fragments.items():
            if not self.forgotten or not each.location.endswith(self.forgotten):
                items = pa.table({"name": [name], "fragment": [pickle.dumps(each)]})
                for table in read_fragment(items, self._reading):
                    yield write(table)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeStore]:
    """Give the store of a job, with the collection."""
    found, loop = FakeStore(), BackgroundLoop()

    @contextmanager
    def opened(_: Settings) -> Iterator[tuple[BackgroundLoop, FakeStore, WeaviateSettings]]:
        yield loop, found, WeaviateSettings()

    monkeypatch.setattr(jobs, "_store", opened)
    monkeypatch.setattr(jobs, "Pipeline", Stages)
    monkeypatch.setattr(stages, "WeaviateStore", lambda _: found)
    loop.run(found.create_collection(COLLECTION))
    loop.run(found.create_collection(replace(COLLECTION, name="Rooms", multi_tenancy=MultiTenancy(auto_creation=True))))
    yield found
    loop.close()


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Give a job for two files of two rows each."""
    (tmp_path / "in").mkdir()
    for name, counts in (("a", [1, 2]), ("b", [3, 4])):
        pq.write_table(pa.table({"count": counts}), tmp_path / "in" / f"{name}.parquet")
    return Job([str(tmp_path / "in")], "Photos", str(tmp_path / "ledger"))


def done(job: Job) -> Result:
    return run(job, Settings(), lambda _: None)


@pytest.mark.usefixtures("store")
def test_a_fragment_that_got_no_entry_is_an_error_and_is_done_by_the_same_command(
    job: Job, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Stages, "forgotten", "b.parquet")
    first = done(job)
    unfinished = Path(job.ledger, "unfinished").exists()
    monkeypatch.setattr(Stages, "forgotten", "")
    second = done(job)

    assert first.faults == ["1 of 2 fragments have no entry; repeat the command"]
    assert unfinished
    assert (second.faults, second.progress.rows) == ([], 2)
    assert not Path(job.ledger, "unfinished").exists()


@pytest.mark.usefixtures("store")
def test_a_command_for_a_part_of_the_input_leaves_the_output_of_the_others(job: Job, tmp_path: Path):
    job = replace(job, output=str(tmp_path / "out"), stores=False)
    done(job)
    part = done(replace(job, locations=[f"{job.locations[0]}/b.parquet"]))

    assert part.faults == []
    assert part.reconciliation is not None
    assert part.reconciliation.in_files is not None
    assert part.reconciliation.in_files.total() == 2
    assert sorted(pq.read_table(tmp_path / "out")["count"].to_pylist()) == [1, 2, 3, 4]


@pytest.mark.usefixtures("store")
def test_what_a_killed_command_still_writes_after_the_next_has_begun_is_not_in_the_output(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    job = replace(job, output=str(tmp_path / "out"), stores=False)
    outcomes = Stages.outcomes

    def disturbed(each: Stages, fragments: Mapping[str, Fragment]) -> Iterator[pa.Table]:
        with monkeypatch.context() as other:
            # Batches depend on which rows are ready at a time.
            other.setattr(reading, "ROWS", 1)
            list(outcomes(each.of_run("0" * 8), fragments))
        yield from outcomes(each, fragments)

    monkeypatch.setattr(Stages, "outcomes", disturbed)
    result = done(job)

    assert result.faults == []
    assert sorted(pq.read_table(tmp_path / "out")["count"].to_pylist()) == [1, 2, 3, 4]


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("other_files", [["a"], ["b"], ["a", "b"]])
def test_of_two_commands_on_one_ledger_the_earlier_one_stops_and_no_row_is_lost(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other_files: list[str]
):
    """The other command does the same fragment, another one, or both while this one has written its first rows."""
    job = replace(job, output=str(tmp_path / "out"), stores=False)
    other = replace(job, locations=[f"{job.locations[0]}/{each}.parquet" for each in other_files])
    outcomes = Stages.outcomes

    def disturbed(each: Stages, fragments: Mapping[str, Fragment]) -> Iterator[pa.Table]:
        tables = outcomes(each, fragments)
        first = next(tables)
        with monkeypatch.context() as undisturbed:
            undisturbed.setattr(Stages, "outcomes", outcomes)
            assert done(other).faults == []
        yield first
        yield from tables

    with monkeypatch.context() as disturbing:
        disturbing.setattr(Stages, "outcomes", disturbed)
        with pytest.raises(LedgerFailed, match="another command uses this ledger"):
            done(job)
    between = done(other)
    result = done(job)

    assert (between.progress.wanted, between.faults, result.faults) == (0, [], [])
    assert sorted(pq.read_table(tmp_path / "out")["count"].to_pylist()) == [1, 2, 3, 4]


@pytest.mark.usefixtures("store")
def test_a_command_removes_nothing_of_one_that_has_begun_since(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    job = replace(job, output=str(tmp_path / "out"), stores=False)
    totals, theirs = Ledger.totals, tmp_path / "out" / f"{'c' * 32}-{'1' * 8}-{0:012}.parquet"

    def late(ledger: Ledger, current: set[str]) -> Totals:
        found = totals(ledger, current)
        Ledger(job.ledger).enter()
        theirs.touch()
        return found

    monkeypatch.setattr(Ledger, "totals", late)
    with pytest.raises(LedgerFailed, match="another command uses this ledger"):
        done(job)

    assert theirs.exists()


@pytest.mark.usefixtures("store")
def test_rows_that_are_missing_in_the_output_are_an_error_and_are_done_by_the_same_command(job: Job, tmp_path: Path):
    job = replace(job, output=str(tmp_path / "out"), stores=False)
    done(job)
    next((tmp_path / "out").glob("*.parquet")).unlink()

    missing, mended, after = done(job), done(job), done(job)

    assert missing.faults == [
        "the Parquet files have 2 rows, and 4 are expected",
        "the same command does 1 of 2 fragments again; repeat it",
    ]
    assert (mended.faults, mended.done_before, mended.progress.rows) == ([], 1, 2)
    assert (after.faults, after.done_before) == ([], 2)
    assert sorted(pq.read_table(tmp_path / "out")["count"].to_pylist()) == [1, 2, 3, 4]


def test_objects_that_are_missing_in_the_collection_are_an_error_and_are_done_by_the_same_command(
    job: Job, store: FakeStore
):
    done(job)
    objects = store._within(COLLECTION, Scope())
    (lost,) = [id_ for id_, each in objects.items() if each.properties["count"] == 3]
    del objects[lost]

    missing, mended = done(job), done(job)

    assert missing.faults[1:] == [
        "of 4 objects that were looked for, 1 are not there",
        "the same command does 1 of 2 fragments again; repeat it",
    ]
    assert (mended.faults, mended.done_before) == ([], 1)
    assert lost in store._within(COLLECTION, Scope())


@pytest.mark.usefixtures("store")
def test_a_file_whose_name_is_not_utf_8_is_read_and_its_rejected_rows_are_told(job: Job):
    folder = os.fsencode(job.locations[0])
    pq.write_table(pa.table({"count": [5.0, 5.5]}), Path(job.locations[0], "c.parquet"))
    os.rename(folder + b"/c.parquet", folder + b"/caf\xe9.parquet")  # noqa: PTH104 -- Path takes no bytes

    result = done(job)

    assert result.faults == []
    assert result.reconciliation is not None
    assert result.reconciliation.totals.rows == 6
    (rejected,) = pq.read_table(Path(job.ledger, "rejected")).to_pylist()
    assert rejected["location"].endswith("/caf%E9.parquet")
    assert rejected["place"] == "caf%E9.parquet, row 2"


@pytest.mark.usefixtures("store")
def test_the_output_of_another_ledger_is_refused_before_a_new_ledger_names_it(job: Job, tmp_path: Path):
    job = replace(job, output=str(tmp_path / "out"), stores=False)
    done(job)
    other = replace(job, ledger=str(tmp_path / "other"))

    with pytest.raises(InvalidRequest, match="output of another ledger"):
        done(other)
    assert done(replace(other, output=str(tmp_path / "another"))).faults == []


@pytest.mark.usefixtures("store")
def test_an_output_of_a_scheme_that_cannot_be_written_is_refused_before_any_work(job: Job):
    with pytest.raises(InvalidRequest, match="file:// cannot be written"):
        done(replace(job, output="file:///x"))

    assert not Path(job.ledger).exists()


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("change", "name"), [({"truncate": True}, "truncate"), ({"mapping": ColumnMapping(images="pictures")}, "images")]
)
def test_a_ledger_is_of_one_folder_of_images_and_one_way_to_cut_texts(job: Job, change: dict[str, object], name: str):
    done(job)

    with pytest.raises(InvalidRequest, match=f"of a run with {name} = "):
        done(replace(job, **change))


def test_a_job_creates_its_tenant_where_the_collection_does(job: Job, store: FakeStore):
    result = done(replace(job, collection="Rooms", tenant="new"))

    assert result.faults == []
    assert list(store.tenants["Rooms"]) == ["new"]


@pytest.mark.usefixtures("store")
def test_a_look_at_a_job_tells_what_is_fetched_and_leaves_no_ledger(job: Job, tmp_path: Path):
    origins = tmp_path / "origins.toml"
    origins.write_text('[origins.cdn]\nurl = "https://cdn.example.com/p/"\n')

    found = look(job, Settings(fetch=FetchSettings(origins_file=origins)))

    assert found.plan.targets() == {"count": "property count"}
    assert found.refusal("https://cdn.example.com/p/a.jpg") == ""
    for uri in ("https://cdn.example.com/a.jpg", "https://cdn.example.com/p/../a.jpg", "https://xn--e.example/p/a.jpg"):
        assert found.refusal(uri).startswith("IMAGE_URI_NOT_ALLOWED: ")
    assert not Path(job.ledger).exists()


@pytest.mark.usefixtures("store")
def test_certificates_that_cannot_be_read_end_a_job_and_a_look_before_anything_runs(job: Job, tmp_path: Path):
    (tmp_path / "ca.pem").write_text("no certificates")
    (tmp_path / "origins.toml").write_text(
        f'[origins.cdn]\nurl = "https://cdn.example.com/p/"\nca_file = "{tmp_path}/ca.pem"\n'
    )
    settings = Settings(fetch=FetchSettings(origins_file=tmp_path / "origins.toml"))

    with pytest.raises(InvalidSettings, match="holds no certificates"):
        run(job, settings, lambda _: None)
    with pytest.raises(InvalidSettings, match="holds no certificates"):
        look(job, settings)
    assert not Path(job.ledger).exists()


@pytest.mark.usefixtures("store")
def test_a_list_of_origins_that_is_wrong_ends_a_job_before_anything_runs(job: Job, tmp_path: Path):
    (tmp_path / "origins.toml").write_text("[origins]\n")

    with pytest.raises(InvalidSettings):
        run(job, Settings(fetch=FetchSettings(origins_file=tmp_path / "origins.toml")), lambda _: None)
    assert not Path(job.ledger).exists()


@pytest.fixture
def alike(job: Job, store: FakeStore, tmp_path: Path) -> Job:
    """Give a job whose rows bring vectors: rows 2 of both files nearly equal rows 1, and one row comes twice."""
    images = (Property("image", DataType.BLOB), Property("count", DataType.INT))
    vector = replace(
        COLLECTION.vectors[0], space=Space("fake", 2, "fake/model"), image_fields=(WeightedField("image"),)
    )
    store._collections["Photos"] = replace(COLLECTION, properties=images, vectors=(vector,))
    for name, first in (("a", 0.0), ("b", 1.5)):
        angles = [first, first + 0.01, first]
        vectors = pa.array([[math.cos(each), math.sin(each)] for each in angles], pa.list_(pa.float32(), 2))
        table = pa.table({"count": [1, 2, 1], "main": vectors})
        pq.write_table(table, tmp_path / "in" / f"{name}.parquet")
    return replace(job, mapping=ColumnMapping(spaces={"main": "fake"}), duplicates="skip", threshold=0.999)


def totals_of(result: Result) -> Totals:
    assert result.faults == []
    assert result.reconciliation is not None
    return result.reconciliation.totals


@pytest.mark.parametrize(("action", "skipped", "similar"), [("skip", 2, 0), ("report", 0, 2)])
def test_rows_in_are_stored_and_duplicates_and_left_out_and_a_fragment_done_again_says_the_same(
    alike: Job, store: FakeStore, action: str, skipped: int, similar: int
):
    alike = replace(alike, duplicates=action)

    first = totals_of(done(alike))
    listed = pq.read_table(Path(alike.ledger, "duplicates")).to_pylist()
    (Path(alike.ledger) / "fragments" / f"{next(iter(first.stored))}.json").unlink()
    again = done(alike)

    assert (first.rows, first.distinct, first.duplicates) == (6, 4 - skipped, 2)
    assert (first.skipped, first.similar) == (skipped, similar)
    assert sorted(each["place"] for each in listed) == ["a.parquet, row 2", "b.parquet, row 2"]
    assert {each["skipped"] for each in listed} == {action == "skip"}
    objects = store._within(COLLECTION, Scope())
    assert {UUID(each["duplicate_of"]) for each in listed} <= objects.keys()
    assert again.done_before == 1
    if action == "skip":
        assert replace(totals_of(again), runs={}) == replace(first, runs={})
        assert pq.read_table(Path(alike.ledger, "duplicates")).to_pylist() == listed
    assert len(objects) == 4 - skipped


def test_a_ledger_is_of_one_way_to_treat_duplicates(alike: Job):
    done(alike)

    for changed in ({"duplicates": "report"}, {"duplicates": "", "threshold": None}, {"threshold": 0.5}):
        with pytest.raises(InvalidRequest, match=r"of a run with duplicates = 'skip, threshold 0\.999'"):
            done(replace(alike, **changed))


def test_a_ledger_of_a_version_without_duplicates_goes_on(job: Job, store: FakeStore):
    done(job)
    path = Path(job.ledger, "run.json")
    recorded = json.loads(path.read_text())
    del recorded["duplicates"], recorded["_threshold"]
    path.write_text(json.dumps(recorded))

    assert done(job).done_before == 2


def test_the_threshold_is_measured_once_for_a_ledger(alike: Job, monkeypatch: pytest.MonkeyPatch):
    measured: list[Measuring] = []

    def measure(what: Measuring, _: Sizes) -> Threshold:
        measured.append(what)
        return Threshold(0.999, 0.9, 0.0, 32)

    monkeypatch.setattr(jobs, "measured_threshold", measure)
    monkeypatch.setattr(jobs, "some_pictures", lambda *_: [])
    alike = replace(alike, threshold=None)
    first, again = done(alike), done(alike)

    assert [each.vector.name for each in measured] == ["main"]
    assert first.threshold == again.threshold == Threshold(0.999, 0.9, 0.0, 32)
    assert totals_of(again).skipped == totals_of(first).skipped == 2


@pytest.mark.usefixtures("store")
def test_the_output_of_another_ledger_is_refused_before_a_threshold_is_measured(
    alike: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    alike = replace(alike, output=str(tmp_path / "out"))
    done(alike)

    # Without a picture it would end in another way.
    with pytest.raises(InvalidRequest, match="output of another ledger"):
        done(replace(alike, ledger=str(tmp_path / "other"), threshold=None))


def test_too_few_pictures_for_a_threshold_end_a_job_before_anything_runs(alike: Job, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(jobs, "measured_threshold")

    with pytest.raises(BulkStopped, match="two pictures or more; give --threshold"):
        done(replace(alike, threshold=None))
    assert not Path(alike.ledger, "run.json").exists()


def test_one_process_writes_where_duplicates_are_looked_for_unless_more_are_asked_for(
    alike: Job, monkeypatch: pytest.MonkeyPatch
):
    sizes: list[Sizes] = []

    class Sized(Stages):
        def __init__(self, settings: Settings, target: Target, reading: Reading, asked: Sizes, *_: object) -> None:
            super().__init__(settings, target, reading)
            sizes.append(asked)

    monkeypatch.setattr(jobs, "Pipeline", Sized)
    for number, (duplicates, writers) in enumerate((("skip", 0), ("skip", 3), ("", 0))):
        threshold = 0.999 if duplicates else None
        own = replace(alike, ledger=f"{alike.ledger}{number}", duplicates=duplicates, threshold=threshold)
        done(replace(own, sizes=Sizes(writers=writers)))

    assert [each.writers for each in sizes] == [1, 3, 0]


@pytest.mark.usefixtures("store")
def test_a_collection_without_vectors_of_pictures_is_refused_before_anything_runs(job: Job):
    job = replace(job, duplicates="skip", threshold=0.9)

    for act in (done, lambda each: look(each, Settings())):
        with pytest.raises(InvalidMapping, match="named vector of pictures, and there is none; it has: main"):
            act(job)
    assert not Path(job.ledger, "run.json").exists()


def test_objects_are_counted_only_where_they_are_stored(job: Job, store: FakeStore, tmp_path: Path):
    assert done(replace(job, output=str(tmp_path / "out"), stores=False)).faults == []

    assert "count_objects" not in store.calls
