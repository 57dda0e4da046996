"""The lines of the client guide that read a vector's bytes, run by each language itself."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

PAGE = Path(__file__).parents[2] / "protos/README.md"
VALUES = [0.25, -1.5, 3.4028234663852886e38, 1e-45, -0.0, 0.10000000149011612, 7.0]
DATA = np.array(VALUES, "<f4").tobytes()
BYTES = ", ".join(map(str, DATA))


def line(language: str) -> str:
    """Return a language's line of the page."""
    section = PAGE.read_text(encoding="utf-8").split("One line reads the bytes of `Vector.data`:")[1]
    (code,) = re.findall(rf"^\| {language} \| `(.*?)`", section.split("\n## ")[0], re.MULTILINE)
    return str(code).replace("\\|", "|")


def run(folder: Path, tool: str, file: str, program: str, *command: str) -> list[list[float]]:
    """Run a program and return the lists of numbers that it prints, a line each."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not on this machine")
    (folder / file).write_text(program, encoding="utf-8")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(each) for each in done.stdout.splitlines()]


def test_python_reads_a_vector_as_the_page_says() -> None:
    values = eval(line("Python"), {"numpy": np, "data": DATA})

    assert values.tolist() == np.array(VALUES, np.float32).tolist()


@pytest.mark.timeout(330)
def test_javascript_reads_a_vector_at_whatever_byte_it_begins(tmp_path: Path) -> None:
    program = f"""
        for (let offset = 0; offset < 9; offset++) {{
          for (const Kind of [Buffer, Uint8Array]) {{
            const memory = new ArrayBuffer({len(DATA)} + 16);
            new Uint8Array(memory, offset).set([{BYTES}]);
            const data = Kind === Buffer
              ? Buffer.from(memory, offset, {len(DATA)})
              : new Uint8Array(memory, offset, {len(DATA)});
            console.log(JSON.stringify(Array.from({line("JavaScript")})));
          }}
        }}
    """

    assert_read(run(tmp_path, "node", "read.js", program, "node", "read.js"), times=18)


@pytest.mark.timeout(330)
def test_go_reads_a_vector_as_the_page_says(tmp_path: Path) -> None:
    program = f"""package main
        import ("bytes"; "encoding/binary"; "encoding/json"; "os")
        func main() {{
          data := []byte{{{BYTES}}}
          {line("Go")}
          json.NewEncoder(os.Stdout).Encode(values)
        }}
    """

    assert_read(run(tmp_path, "go", "read.go", program, "go", "run", "read.go"))


@pytest.mark.timeout(330)
def test_java_reads_a_vector_as_the_page_says(tmp_path: Path) -> None:
    # What protobuf's ByteString gives: a buffer that begins anywhere.
    program = f"""
        import java.nio.*;
        class Read {{
          record ByteString(byte[] bytes) {{
            ByteBuffer asReadOnlyByteBuffer() {{ return ByteBuffer.wrap(bytes, 1, bytes.length - 1).slice(); }}
          }}
          public static void main(String[] given) {{
            int[] all = {{0, {BYTES}}};
            byte[] bytes = new byte[all.length];
            for (int at = 0; at < all.length; at++) bytes[at] = (byte) all[at];
            var data = new ByteString(bytes);
            {line("Java")};
            var shown = new java.util.StringJoiner(", ", "[", "]");
            while (values.hasRemaining()) shown.add(Double.toString(values.get()));
            System.out.println(shown);
          }}
        }}
    """

    assert_read(run(tmp_path, "java", "Read.java", program, "java", "Read.java"))


@pytest.mark.timeout(330)
def test_rust_reads_a_vector_as_the_page_says(tmp_path: Path) -> None:
    program = f"""fn main() {{
        let all: Vec<u8> = vec![0, {BYTES}];
        let data = &all[1..];
        {line("Rust")};
        println!("[{{}}]", values.iter().map(|each| format!("{{:e}}", each)).collect::<Vec<_>>().join(", "));
    }}
    """

    assert_read(run(tmp_path, "rustc", "read.rs", program, "sh", "-c", "rustc --edition 2021 read.rs && ./read"))


def assert_read(lines: list[list[float]], times: int = 1) -> None:
    expected = np.array(VALUES, np.float32)
    assert len(lines) == times
    for each in lines:
        assert np.array(each, np.float32).tolist() == expected.tolist()
