"""What clients use up in several processes, which share a file."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.access import Account, Authenticator, Client, Permission
from service.access.clients import Quota
from service.access.ledger import MAX_ROWS, NAME_BYTES, SharedLedger
from service.errors import QuotaExceeded
from tests.fakes.clients import key_of, let_in

ROOT = Path(__file__).parents[3]

OTHER = """
import asyncio, sys
from pathlib import Path
from service.access import Account, Client, Permission
from service.access.clients import Quota
from service.access.ledger import SharedLedger

ledger = SharedLedger(Path(sys.argv[1]), workers=2, worker=2)
client = Client("a", frozenset(Permission), quota=Quota.model_validate_json(sys.argv[2]))
account = Account(client, row=ledger.row("a"))

async def embed(inputs):
    print("asks", flush=True)
    async with account.embedding(inputs):
        print("embeds", flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(embed(int(sys.argv[3])))
print("done", flush=True)
sys.stdin.readline()
"""
"""Another server process, which embeds inputs until it is sent a line."""

Other = Callable[[Quota, int], "subprocess.Popen[str]"]


@pytest.fixture
def ledger(tmp_path: Path) -> SharedLedger:
    return SharedLedger(tmp_path / "quotas", workers=2, worker=1)


@pytest.fixture
def other(ledger: SharedLedger, tmp_path: Path) -> Iterator[Other]:
    """Start another server process; it has asked for its inputs when it is returned."""
    started: list[subprocess.Popen[str]] = []

    def start(quota: Quota, inputs: int) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", OTHER, str(tmp_path / "quotas"), quota.model_dump_json(), str(inputs)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        started.append(process)
        assert said_by(process) == "asks"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def said_by(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def account(ledger: SharedLedger, quota: Quota) -> Account:
    return Account(Client("a", frozenset(Permission), quota=quota), row=ledger.row("a"))


def test_what_one_process_embeds_another_refuses(ledger: SharedLedger, other: Other) -> None:
    quota = Quota(inputs_per_second=0.1)
    ours = account(ledger, quota)
    ours.begin_call()

    said_by(other(quota, 2))

    with pytest.raises(QuotaExceeded) as caught:
        ours.begin_call()
    assert 10 < caught.value.retry_after_s <= 20
    account(ledger, Quota()).begin_call()


async def test_a_call_waits_for_room_that_another_process_makes(ledger: SharedLedger, other: Other) -> None:
    quota = Quota(max_inputs_in_flight=3)
    ours = account(ledger, quota)
    theirs = other(quota, 3)
    said_by(theirs)

    with pytest.raises(QuotaExceeded):
        ours.begin_call()
    waiting = asyncio.create_task(embed(ours, 1))
    await asyncio.sleep(0.1)
    waited = not waiting.done()
    tell(theirs)
    async with asyncio.timeout(60):
        await waiting

    assert waited
    assert ours.inputs_in_flight == 0


async def test_a_small_call_does_not_overtake_a_large_one_of_another_process(
    ledger: SharedLedger, other: Other
) -> None:
    quota = Quota(max_inputs_in_flight=5)
    ours = account(ledger, quota)
    async with ours.embedding(3):
        theirs = other(quota, 5)
        async with asyncio.timeout(60):
            # Until the other one's call has the turn to wait for room.
            while ours._row.take_turn():
                ours._row.end_turn()
                await asyncio.sleep(0.01)
        small = asyncio.create_task(embed(ours, 1))
        await asyncio.sleep(0.1)
        overtook = small.done()
    said = await asyncio.to_thread(said_by, theirs)
    done_before = small.done()
    tell(theirs)
    async with asyncio.timeout(60):
        await small

    assert (overtook, said, done_before) == (False, "embeds", False)


async def test_a_killed_process_leaves_no_lock_and_nothing_in_flight(ledger: SharedLedger, other: Other) -> None:
    quota = Quota(max_inputs_in_flight=3)
    ours = account(ledger, quota)
    holder, waiter = other(quota, 3), other(quota, 3)
    said_by(holder)
    for process in (waiter, holder):
        process.kill()
        process.wait()
    assert ours.inputs_in_flight == 3

    ledger.forget(2)

    async with asyncio.timeout(60):
        await embed(ours, 3)
    assert ours.inputs_in_flight == 0


def test_a_client_has_one_row_and_clients_without_a_row_count_here(ledger: SharedLedger) -> None:
    names = [f"{number}" for number in range(100)] + ["x" * NAME_BYTES]
    for name in names:
        ledger.row(name).inputs[0] = len(name)
    assert [ledger.row(name).inputs[0] for name in names] == [len(name) for name in names]

    ledger._count[0] = MAX_ROWS
    ledger.row("late").inputs[0] = 5
    assert ledger.row("late").inputs[0] == 0


async def test_what_a_killed_process_did_still_counts(ledger: SharedLedger, other: Other) -> None:
    ours = account(ledger, Quota())
    holder = other(Quota(), 3)
    said_by(holder)
    ours.receive(7)
    holder.kill()
    holder.wait()

    ledger.forget(2)
    await embed(ours, 2)

    assert (ours.inputs, ours.request_bytes, ours.inputs_in_flight) == (5, 7, 0)


def test_clients_of_other_processes_are_among_the_accounts(tmp_path: Path) -> None:
    settings = let_in(tmp_path / "clients.toml", anna='permissions = ["embed"]', ben='permissions = ["embed"]')
    one, two = (
        Authenticator(settings, SharedLedger(tmp_path / "quotas", workers=2, worker=worker)) for worker in (1, 2)
    )
    two.admit(f"Bearer {key_of('ben')}").receive(5)
    one.admit(f"Bearer {key_of('anna')}")

    assert [(each.client.name, each.request_bytes) for each in one.accounts()] == [("anna", 0), ("ben", 5)]
    assert [each.client.name for each in two.accounts()] == ["anna", "ben"]


async def embed(client: Account, inputs: int) -> None:
    async with client.embedding(inputs):
        pass
