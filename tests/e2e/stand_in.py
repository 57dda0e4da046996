"""Stands in for a program that pages name and tests cannot run: checks what can be checked, or calls the real program.

python -m tests.e2e.stand_in PROGRAM ARGUMENT...
"""

import os
import re
import subprocess
import sys
from pathlib import Path

# What a program needs is imported where it runs: pages name it many times.


def grpcurl(arguments: list[str]) -> None:
    """Do as grpcurl does with `-plaintext [-d JSON] ADDRESS METHOD`, `list` and `describe NAME`; `@` reads the JSON."""
    import grpc
    from google.protobuf import json_format
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message_factory import GetMessageClass
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

    arguments.remove("-plaintext")
    data = arguments.pop(arguments.index("-d") + 1) if "-d" in arguments else "{}"
    address, *words = [each for each in arguments if each != "-d"]
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        if words == ["list"]:
            sys.stdout.write("\n".join(database.get_services()))
        elif words[0] == "describe":
            service, _, method = words[1].rpartition(".")
            sys.stdout.write(pool.FindServiceByName(service).methods_by_name[method].full_name)
        else:
            service, _, method = words[0].partition("/")
            found = pool.FindServiceByName(service).methods_by_name[method]
            request = json_format.Parse(sys.stdin.read() if data == "@" else data, GetMessageClass(found.input_type)())
            call = channel.unary_unary(
                f"/{words[0]}", type(request).SerializeToString, GetMessageClass(found.output_type).FromString
            )
            sys.stdout.write(json_format.MessageToJson(call(request, timeout=60)))


def vecgate(arguments: list[str]) -> None:
    """Run the command, but for those that need another machine; of `serve`, read the settings."""
    if arguments == ["serve"]:
        from service.settings import load_settings

        load_settings()
    elif any(each.startswith("s3://") for each in arguments):
        _parse(arguments)
    elif arguments[:2] not in (["weights", "fetch"], ["auth", "new-key"]) and "vecgate:50070" not in arguments:
        # The server of the tests has no NIM.
        own = ["clip" if each == "nim" else each for each in arguments]
        os.execv(sys.executable, [sys.executable, "-m", "service", *own])


def _parse(arguments: list[str]) -> None:
    """Read a command line as the command would, and do nothing: nobody has the object store that it names."""
    from typer.main import get_command

    from service.cli import app

    program = get_command(app)
    name, *rest = arguments
    with program.make_context("vecgate", [name]) as context:
        command = program.get_command(context, name)  # type: ignore[attr-defined]
        command.make_context(name, rest, parent=context).close()


def make(arguments: list[str]) -> None:
    """Have make say what it would do."""
    from tests.pages import ROOT

    # On the path it would be this program again.
    environment = os.environ | {"PATH": os.defpath}
    command = ["make", "--dry-run", *arguments]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)


def helm(arguments: list[str]) -> None:
    """Read the files that are named, and render the project's own chart."""
    import yaml

    from helm.tools.helm import HELM
    from tests.pages import ROOT

    values = [arguments[at + 1] for at, each in enumerate(arguments) if each == "--values"]
    for file in values:
        yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    if arguments[0] in {"install", "upgrade"} and (ROOT / arguments[2]).is_dir():
        options = [option for file in values for option in ("--values", file)]
        command = [str(HELM.install()), "template", arguments[1], arguments[2], *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def kubectl(arguments: list[str]) -> None:
    """Read the manifests that come on standard input."""
    import yaml

    if arguments[-2:] == ["--filename", "-"]:
        (manifest,) = yaml.safe_load_all(sys.stdin)
        assert {"apiVersion", "kind", "metadata"} <= manifest.keys()


def docker(arguments: list[str]) -> None:
    """Look for the target and the build arguments in the Dockerfile."""
    from tests.pages import ROOT

    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(rf"^FROM .* AS {arguments[arguments.index('--target') + 1]}$", text, re.MULTILINE)
    for at, each in enumerate(arguments):
        if each == "--build-arg":
            name = arguments[at + 1].partition("=")[0]
            assert name == "SOURCE_DATE_EPOCH" or re.search(rf"^ARG {name}\b", text, re.MULTILINE), name


def protoc(arguments: list[str]) -> None:
    """Read the API as protoc does, and generate nothing, because the plug-ins are of other languages."""
    known = [each for each in arguments if "_out=" not in each]
    command = [sys.executable, "-m", "grpc_tools.protoc", *known, "--descriptor_set_out=/dev/null"]
    subprocess.run(command, check=True)


PROGRAMS = {each.__name__: each for each in (docker, grpcurl, helm, kubectl, make, protoc, vecgate)}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](sys.argv[2:])
