"""Addresses that one process has, and those that several share."""

import socket

import pytest

from service.process.addresses import AddressTaken, check_address, hold, listen
from service.process.ports import free_ports
from service.settings import ServerSettings


@pytest.fixture
def settings() -> ServerSettings:
    return ServerSettings(port=free_ports(1)[0])


@pytest.mark.parametrize("shares", [False, True], ids=["alone", "ready to share"])
def test_an_address_that_another_program_listens_on_is_not_held(settings: ServerSettings, *, shares: bool) -> None:
    with socket.create_server((settings.host, settings.port), reuse_port=shares), pytest.raises(AddressTaken):
        hold(settings)


def test_a_held_address_is_taken_for_everybody_else_before_anybody_listens(settings: ServerSettings) -> None:
    with hold(settings):
        with pytest.raises(AddressTaken, match="VECGATE_SERVER__PORT"):
            check_address(settings)
        with pytest.raises(AddressTaken):
            hold(settings)
    check_address(settings)


def test_who_shares_a_held_address_gets_connections_and_who_holds_it_gets_none(settings: ServerSettings) -> None:
    with hold(settings), listen(settings, shared=True) as first, listen(settings, shared=True) as second:
        callers = [socket.create_connection((settings.host, settings.port), timeout=5) for _ in range(64)]
        accepted = [accept_all(each) for each in (first, second)]
        for caller in callers:
            caller.close()

    assert sum(accepted) == 64
    assert all(accepted)


def accept_all(listener: socket.socket) -> int:
    count = 0
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1
