"""Files that are read again when they change."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from service.settings import InvalidSettings

__all__ = ["Watched"]

log = structlog.get_logger(__name__)

Content = TypeVar("Content")
Stamp = tuple[tuple[int, int, int] | None, ...]


class Watched(Generic[Content]):
    """What some files say together, as they are now. Threads may share it.

    Files that have become unusable change nothing: what they said before holds, and one warning tells of them.

    Args:
        setting: the setting that names the files, for the log.
        files: the files.
        read: reads all of them; raises InvalidSettings if they cannot be used.

    Raises:
        InvalidSettings: the files cannot be used to begin with.
    """

    def __init__(self, setting: str, files: Sequence[Path], read: Callable[[], Content]) -> None:
        self._setting = setting
        self._files = tuple(files)
        self._read = read
        self._reading = threading.Lock()
        self._stamp = self._look()
        self._content = read()

    @property
    def current(self) -> Content:
        """What the files say."""
        # Looking costs microseconds, and a key that was taken back is refused at once.
        if self._look() != self._stamp:
            with self._reading:
                self._read_again()
        return self._content

    def _read_again(self) -> None:
        # Looked at first: what changes while it is read is read once more.
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._content = self._read()
        except InvalidSettings as error:
            log.warning("file_unusable", setting=self._setting, reason=str(error), kept="what it said before")
        else:
            log.info("file_read_again", setting=self._setting)

    def _look(self) -> Stamp:
        return tuple(map(_stamp_of, self._files))


def _stamp_of(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
