"""Whether the server of this machine answers, for the image's HEALTHCHECK: `python -m service.healthcheck`.

It uses the server's own settings. Over TLS it verifies nothing and sends nothing secret: the certificate is for the
name that callers use, and a server that refuses a stranger does answer.
"""

import socket
import ssl
import sys
from http.client import HTTPException, HTTPSConnection

from grpc import StatusCode

from service.settings import InvalidSettings, ServerSettings, Settings, WebSettings, load_running_settings
from vecgate.client import Client, Health, VecgateError

TIMEOUT_S = 4.0
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1"}  # noqa: S104 -- what is asked is loopback


def answers(settings: Settings) -> bool:
    """Return whether the server answers: over gRPC, or where that uses TLS, over HTTP if there is any."""
    server, web = settings.server, settings.web
    if server.tls_cert_file is None:
        return _grpc_answers(server)
    try:
        if web.enabled and web.tls_client_ca_file is None:
            return _https_answers(web)
        # Without a client's certificate the handshake is all there is. A server that hangs does not complete it.
        with socket.create_connection(_address(web if web.enabled else server), TIMEOUT_S) as plain:
            context = _context()
            context.set_alpn_protocols(["http/1.1" if web.enabled else "h2"])
            context.wrap_socket(plain).close()
    except (OSError, HTTPException):
        return False
    return True


def main() -> int:
    """Return 0 if the server answers, else 1."""
    try:
        return 0 if answers(load_running_settings()) else 1
    except InvalidSettings:
        return 1


def _grpc_answers(settings: ServerSettings) -> bool:
    host, port = _address(settings)
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with Client(target, timeout_s=TIMEOUT_S) as client:
        try:
            return client.health("liveness") is Health.SERVING
        except VecgateError as error:
            return error.code is StatusCode.UNAUTHENTICATED


def _https_answers(settings: WebSettings) -> bool:
    host, port = _address(settings)
    connection = HTTPSConnection(host, port, timeout=TIMEOUT_S, context=_context())
    try:
        connection.request("GET", "/v1/health/live")
        return connection.getresponse().status < 500  # noqa: PLR2004  # 401: it wants a key
    finally:
        connection.close()


def _address(settings: ServerSettings | WebSettings) -> tuple[str, int]:
    return EVERYWHERE.get(settings.host, settings.host.strip("[]")), settings.port


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


if __name__ == "__main__":
    sys.exit(main())
