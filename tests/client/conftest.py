"""The client's tests run against the same servers as the service's."""

from tests.service.conftest import _writes_end_soon, fake, pictures, run, wire

__all__ = ["_writes_end_soon", "fake", "pictures", "run", "wire"]
