"""How busy the GPUs are, as the driver's own program tells."""

import shutil
import statistics
import subprocess
import threading
from types import TracebackType
from typing import Self

QUERY = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=100"]


class GpuLoad:
    """Samples while a block runs.

    Attributes:
        busy: the mean share of the time in which some program ran on a GPU, from 0 to 1; None where nobody can tell.
    """

    def __init__(self) -> None:
        self.busy: float | None = None
        self._samples: list[float] = []
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        if (program := shutil.which("nvidia-smi")) is not None:
            self._process = subprocess.Popen([program, *QUERY], stdout=subprocess.PIPE, text=True)
            self._thread = threading.Thread(target=self._read, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._thread.join(5)
        if self._process.stdout is not None:
            self._process.stdout.close()
        # The driver's samples reach back: the first ones tell of the time before.
        self.busy = statistics.mean(self._samples[2:] or self._samples) / 100 if self._samples else None

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip().isdigit():
                self._samples.append(float(line))
