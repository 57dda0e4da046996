"""Generates the Python stubs of the API and the blocking client, and checks that the committed ones are fresh.

    python protos/generate.py             writes the stubs beside the .proto files, and the client beside its source
    python protos/generate.py --check     compares them with the committed ones; exit code 1 if they differ

The blocking client is the asyncio client without its awaits, so that the two cannot drift.

The generator is the oldest grpcio-tools that Vecgate supports, pinned in pyproject.toml, because stubs refuse to run on
an older grpcio or protobuf than the one they were made for.
"""

import argparse
import filecmp
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
SOURCES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("vecgate/**/*.proto"))
GENERATED = ("v1/*_pb2*.py", "v1/*_pb2*.pyi", "client/client.py", "client/importing.py")
# What the asyncio client says, and what the blocking client says instead; replaced in this order.
BLOCKING = (
    (r"class AsyncCall\(Awaitable\[(.*)\], Protocol\):\n(.*\n)",
     r'class Call(Protocol):\n\2\n    def result(self) -> \1:\n        """Wait for the answer."""\n'),
    (r"await call\n", "call.result()\n"),
    (r"self\._object\.ImportObjects\(request,", "self._object.ImportObjects.future(request,"),
    (r"from asyncio import sleep", "from time import sleep"),
    (r"\bgrpc\.aio\.", "grpc."),
    (r"\baclosing\b", "closing"),
    (r"\basync_each\b", "several"),
    (r"\basync_importing\b", "importing"),
    (r"\bAwaitable\[([^\]]+)\]", r"\1"),
    (r"\bAsyncGenerator\[(.+), None\]", r"Generator[\1, None, None]"),
    (r"\bAsync([A-Z]\w*)", r"\1"),
    (r"\b__a(enter|exit)__\b", r"__\1__"),
    (r"(?<!\w)\(await ((?:\w+\.)*\w+\((?:[^()]|\([^()]*\))*\))\)", r"\1"),
    (r"\b(async|await) ", ""),
    (r"The asyncio client, and .*\"\"\"", 'The blocking client. Generated from async_client.py: do not edit."""'),
    (r"It belongs to the event loop .*", "Threads may share it."),
    (r"This is also the source of\n.*\n", "Generated\nfrom async_importing.py: do not edit.\n"),
)  # fmt: skip


def run_protoc(*options: str) -> None:
    """Run protoc over every file of the API; end the program with its exit code if it fails."""
    google_protobuf = str(files("grpc_tools") / "_proto")
    # protoc finds the mypy plug-ins beside the running Python.
    os.environ["PATH"] = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', '')}"
    includes = [f"-I{folder}" for folder in (ROOT, ROOT / "third_party", google_protobuf)]
    code = protoc.main(["protoc", *includes, *options, *SOURCES])
    if code:
        sys.exit(int(code))


def blocking(source: str) -> str:
    """Return the blocking form of a module of the asyncio client."""
    ruff = Path(sysconfig.get_path("scripts")) / "ruff"
    for pattern, replacement in BLOCKING:
        source = re.sub(pattern, replacement, source)
    # Unused imports go, and a loop that only yields becomes a `yield from`.
    tidy = ("check", "--quiet", "--fix-only", "--unsafe-fixes", "--select", "F401,I,RUF100,UP028")
    for step in (tidy, ("format", "--quiet")):
        command = (ruff, *step, "--stdin-filename", "protos/client.py", "-")
        source = subprocess.run(command, input=source, capture_output=True, text=True, check=True).stdout  # noqa: S603 -- our own tool
    return source


def generate(target: Path) -> None:
    """Write the stubs and the blocking client below a folder."""
    run_protoc(
        *(f"--{kind}_out={target}" for kind in ("python", "grpc_python")),
        *(f"--{kind}_out=quiet:{target}" for kind in ("mypy", "mypy_grpc")),
    )
    client = target / "vecgate" / "client"
    client.mkdir(exist_ok=True)
    for path in (ROOT / "vecgate" / "client").glob("async_*.py"):
        text = blocking(path.read_text(encoding="utf-8"))
        (client / path.name.removeprefix("async_")).write_text(text, encoding="utf-8")


def generated(folder: Path) -> set[str]:
    """Return what is generated below a folder, as paths relative to it."""
    return {path.relative_to(folder).as_posix() for glob in GENERATED for path in folder.glob(f"vecgate/{glob}")}


def check() -> int:
    """Compare the committed stubs with fresh ones; return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(fresh)
        stale = sorted(
            name
            for name in generated(fresh) | generated(ROOT)
            if not ((fresh / name).exists() and (ROOT / name).exists())
            or not filecmp.cmp(fresh / name, ROOT / name, shallow=False)
        )
    for name in stale:
        print(f"protos/{name} is stale: run `make protos`", file=sys.stderr)
    return 1 if stale else 0


def main() -> int:
    """Parse the command line and do as it says."""
    parser = argparse.ArgumentParser(description="Generate or check the stubs of the Vecgate API.")
    parser.add_argument("--check", action="store_true", help="compare with the committed stubs, write nothing")
    arguments = parser.parse_args()
    if arguments.check:
        return check()
    generate(ROOT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
