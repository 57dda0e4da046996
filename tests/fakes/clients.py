"""A file of clients: one with each permission alone, with all, with none, and with bounds."""

from pathlib import Path

from service.auth.clients import Permission
from service.auth.keys import hash_key

__all__ = ["ALL", "NONE", "ONE_TENANT", "SHOP", "SOME", "bearer", "clients_file"]

SOME = {each: f"key-with-{each}" for each in Permission}
ALL, NONE, SHOP, ONE_TENANT = "key-with-all", "key-with-none", "key-of-shop", "key-of-one-tenant"


def clients_file(folder: Path, **more: str) -> Path:
    """Write a file of clients: one with each permission alone, with all, with none, and with bounds."""
    every = [str(each) for each in Permission]
    entries = {f"only-{each}": (SOME[each], [str(each)], "") for each in Permission}
    entries |= {
        "all": (ALL, every, ""),
        "none": (NONE, [], ""),
        "shop": (SHOP, every, 'collections = ["Shop*"]'),
        "one-tenant": (ONE_TENANT, every, 'tenants = ["mine-*"]'),
    }
    entries |= {name: (key, every, "") for name, key in more.items()}
    file = folder / "keys.toml"
    file.write_text(
        "".join(
            f"[clients.{name}]\nkeys = ['{hash_key(key)}']\npermissions = {permissions}\n{rest}\n"
            for name, (key, permissions, rest) in entries.items()
        )
    )
    return file


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),)
