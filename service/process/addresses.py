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


def listen(settings: ServerSettings | WebSettings) -> socket.socket:
    """Return a socket that listens on a server's address.

    Raises:
        AddressTaken: another program listens on the address, or the address is not one of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host.strip("[]"), settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise AddressTaken(settings) from error
    listener.setblocking(False)
    return listener
