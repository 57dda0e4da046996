"""Starts the check where nothing is installed but Python and torch: python3 tests/gpu_check/start.py [OPTIONS].

Where something is missing, it unpacks the packages that the archive has brought, and runs the check with them. It needs
no package itself.
"""

import importlib.util
import os
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ROOT / "build" / "gpu-packages.tar.xz"
NEEDED = ("torch", "torchvision", "open_clip", "grpc", "numpy", "PIL", "psutil", "pydantic", "pytest", "weaviate")


def missing() -> list[str]:
    """Return the modules that are needed and not there."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def unpacked() -> str:
    """Return where the packages of the archive are, having unpacked them unless they are there."""
    folder = PACKAGES.with_name("gpu-packages")
    done = folder / ".unpacked"
    if not done.exists() or done.stat().st_mtime < PACKAGES.stat().st_mtime:
        with tarfile.open(PACKAGES) as packages:
            packages.extractall(PACKAGES.parent, filter="data")
        done.touch()
    return str(folder)


def main() -> int:
    """Run the check in a process that finds the packages, and return its exit code."""
    paths = [str(ROOT), str(ROOT / "protos")]
    if missing() and PACKAGES.exists():
        paths.append(unpacked())
        sys.path.insert(0, paths[-1])
        importlib.invalidate_caches()
    if there_is_no := missing():
        print(
            f"{sys.executable} has no {', '.join(there_is_no)}: use a Python that has torch with CUDA, and bring the "
            "rest with the archive that make gpu-archive makes",
            file=sys.stderr,
        )
        return 2
    inherited = os.environ.get("PYTHONPATH")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, *([inherited] if inherited else [])])}
    command = [sys.executable, "-m", "tests.gpu_check", *sys.argv[1:]]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
