"""Generates the Python stubs of the API, and checks that the committed ones are fresh.

    python protos/generate.py             writes the stubs beside the .proto files
    python protos/generate.py --check     compares them with the committed ones; exit code 1 if they differ
    python protos/generate.py --image F   writes the API as a FileDescriptorSet, which buf lints and compares

The generator is the oldest grpcio-tools that Vecgate supports, pinned in pyproject.toml, because stubs refuse to run on
an older grpcio or protobuf than the one they were made for.
"""

import argparse
import filecmp
import os
import sys
import sysconfig
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
SOURCES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("vecgate/**/*.proto"))
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def run_protoc(*options: str) -> None:
    """Run protoc over every file of the API; end the program with its exit code if it fails."""
    # google/rpc comes from googleapis-common-protos, google/protobuf from grpcio-tools.
    google_rpc = Path(str(files("google.rpc").joinpath("."))).parent.parent
    google_protobuf = str(files("grpc_tools") / "_proto")
    # protoc finds the mypy plug-ins beside the running Python.
    os.environ["PATH"] = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', '')}"
    includes = [f"-I{folder}" for folder in (ROOT, google_rpc, google_protobuf)]
    code = protoc.main(["protoc", *includes, *options, *SOURCES])
    if code:
        sys.exit(int(code))


def generate(target: Path) -> None:
    """Write the stubs below a folder."""
    kinds = ("python", "grpc_python", "mypy", "mypy_grpc")
    run_protoc(*(f"--{kind}_out={target}" for kind in kinds))


def stubs(folder: Path) -> set[str]:
    """Return the stubs below a folder, as paths relative to it."""
    return {path.relative_to(folder).as_posix() for glob in GENERATED for path in folder.glob(f"vecgate/**/{glob}")}


def check() -> int:
    """Compare the committed stubs with fresh ones; return the exit code."""
    with tempfile.TemporaryDirectory() as name:
        fresh = Path(name)
        generate(fresh)
        stale = sorted(
            stub
            for stub in stubs(fresh) | stubs(ROOT)
            if not ((fresh / stub).exists() and (ROOT / stub).exists())
            or not filecmp.cmp(fresh / stub, ROOT / stub, shallow=False)
        )
    for stub in stale:
        print(f"protos/{stub} is stale: run `make protos`", file=sys.stderr)
    return 1 if stale else 0


def main() -> int:
    """Parse the command line and do as it says."""
    parser = argparse.ArgumentParser(description="Generate or check the stubs of the Vecgate API.")
    parser.add_argument("--check", action="store_true", help="compare with the committed stubs, write nothing")
    parser.add_argument("--image", type=Path, metavar="FILE", help="write a FileDescriptorSet for buf")
    arguments = parser.parse_args()
    if arguments.check:
        return check()
    if arguments.image:
        run_protoc("--include_imports", "--include_source_info", f"--descriptor_set_out={arguments.image}")
    else:
        generate(ROOT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
