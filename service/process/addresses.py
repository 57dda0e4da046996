"""The addresses that servers listen on."""

import socket

from service.settings import ServerSettings, WebSettings, variable

BACKLOG = 1024


class AddressTaken(Exception):
    """A server cannot listen on its address; the message says which settings help."""

    def __init__(self, settings: ServerSettings | WebSettings) -> None:
        http = isinstance(settings, WebSettings)
        group = "web" if http else "server"
        helps = [variable(group, "port"), variable(group, "host")]
        helps += [f"{variable(group, 'enabled')} to false"] if http else []
        super().__init__(
            f"cannot listen on {settings.host}:{settings.port}{' for HTTP' if http else ''}: another program does, or "
            f"the address is not this machine's; set {', '.join(helps[:-1])} or {helps[-1]}"
        )


def check_address(settings: ServerSettings | WebSettings) -> None:
    """Check that a server can listen on its address, before anything slow is started.

    Raises:
        AddressTaken: another program listens on the address, or the address is not one of this machine.
    """
    listen(settings).close()


def listen(settings: ServerSettings | WebSettings, *, shared: bool = False) -> socket.socket:
    """Return a socket that listens on a server's address.

    Args:
        settings: with the address.
        shared: whether other processes, which `hold` has kept the address for, listen on it too.

    Raises:
        AddressTaken: another program listens on the address, or the address is not one of this machine.
    """
    listener = _bind(settings, shared=shared)
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise AddressTaken(settings) from error
    return listener


def hold(settings: ServerSettings | WebSettings) -> socket.socket:
    """Return a socket that keeps an address for processes that share it. It does not listen, so it gets no connections.

    Raises:
        AddressTaken: another program has the address, or the address is not one of this machine.
    """
    # A program of the same user that shares its address too could listen on it beside us; it would get our callers.
    check_address(settings)
    held = _bind(settings, shared=True)
    # It was needed to bind beside connections that are closing. From now on it would let others bind beside us.
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return held


def _bind(settings: ServerSettings | WebSettings, *, shared: bool) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host.strip("[]"), settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise AddressTaken(settings) from error
    bound.setblocking(False)
    return bound
