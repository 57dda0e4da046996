"""Files of clients, for tests of who may call."""

import hashlib
from pathlib import Path

from service.settings import AuthSettings


def key_of(name: str) -> str:
    """Return a client's key."""
    return f"key-of-{name}"


def write_clients(file: Path, **clients: str) -> Path:
    """Write a file of clients, each with its key; the values are lines of TOML about each beside that."""
    parts = [
        f'[clients.{name}]\nkeys_sha256 = ["{hashlib.sha256(key_of(name).encode()).hexdigest()}"]\n{lines}\n'
        for name, lines in clients.items()
    ]
    file.write_text("\n".join(parts), encoding="utf-8")
    return file


def let_in(file: Path, **clients: str) -> AuthSettings:
    """Return settings by which those clients alone may call."""
    return AuthSettings(clients_file=write_clients(file, **clients))
