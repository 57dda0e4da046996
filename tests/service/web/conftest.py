"""What the NIM's clients are tried on."""

from tests.embedders.conftest import nim

__all__ = ["nim"]
