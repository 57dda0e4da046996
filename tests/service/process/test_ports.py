"""Ports for servers are free, and stay free of outgoing connections."""

import errno
import socket
from itertools import chain
from pathlib import Path

import pytest

from service.process import ports
from service.process.ports import find_port_fault, free_ports


def outgoing() -> range:
    lowest, highest = map(int, ports.OUTGOING_PORTS.read_text().split())
    return range(lowest, highest + 1)


def test_runs_of_ports_are_free_and_do_not_meet() -> None:
    lengths = (1, 2, 3, 1)

    firsts = free_ports(*lengths)

    runs = [range(first, first + length) for first, length in zip(firsts, lengths, strict=True)]
    every = list(chain.from_iterable(runs))
    assert len(set(every)) == sum(lengths)
    assert [find_port_fault("127.0.0.1", port) for port in every] == [None] * len(every)


def test_no_outgoing_connection_gets_a_port_meanwhile() -> None:
    found = free_ports(*[1] * 200)

    assert not set(found) & set(outgoing())


def test_a_port_that_is_named_is_left_out() -> None:
    taken = range(10_000, 20_000)

    assert not set(free_ports(*[1] * 20, besides=taken)) & set(taken)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("32768\t60999\n", range(10_000, 32_768)),
        ("11000\t50000\n", range(50_001, 60_000)),
        ("1024\t65535\n", range(0)),
        ("what is this", range(0)),
        (None, range(0)),
    ],
)
def test_ports_are_chosen_where_the_system_gives_none_away(
    said: str | None, expected: range, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "range"
    if said is not None:
        file.write_text(said)
    monkeypatch.setattr(ports, "OUTGOING_PORTS", file)

    found = free_ports(1, 2)

    assert ports._ports_of_servers() == expected
    assert all(port in (expected or range(1, 65_536)) for port in found)


def test_a_fault_that_no_other_port_mends_is_not_tried_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(ports, "_listen", refuse)

    with pytest.raises(OSError, match="too many open files"):
        free_ports(1)
