"""Tables of pictures that all differ, on a real S3 server: what bulk jobs read in benchmarks."""

import io
import logging
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from moto.server import ThreadedMotoServer
from PIL import Image

PICTURES = sorted((Path(__file__).parents[1] / "data/pictures").glob("*.png"))
BUCKET = "pictures"
ROWS_OF_FILE = 250

Table = Sequence[tuple[int, bytes]]


def varied_picture(number: int) -> bytes:
    """Return a JPEG of one of the sample pictures, under a tint of its own."""
    with Image.open(PICTURES[number % len(PICTURES)]) as file:
        picture = np.asarray(file.convert("RGBA").convert("RGB"), np.int16)
    tint = np.random.default_rng(number).integers(-96, 96, (4, 4, 3), np.int16)
    pixels = np.clip(picture + np.kron(tint, np.ones((16, 16, 1), np.int16)), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=85)
    return file.getvalue()


def as_parquet(rows: Table) -> bytes:
    """Return rows of a number and a picture as a Parquet file."""
    file = io.BytesIO()
    numbers, pictures = zip(*rows, strict=True)
    pq.write_table(pa.table({"number": numbers, "image": pictures}), file)
    return file.getvalue()


def as_webdataset(rows: Table) -> bytes:
    """Return the same as a tar of WebDataset."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for at, (number, picture) in enumerate(rows):
            for suffix, content in (("jpg", picture), ("json", b'{"number": %d}' % number)):
                member = tarfile.TarInfo(f"{at:06}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


FORMS = {"parquet": as_parquet, "tar": as_webdataset}


@contextmanager
def s3() -> Iterator[tuple[Any, dict[str, str]]]:
    """Run an S3 server, and yield an empty bucket with the environment by which its files are found."""
    # It tells of each request.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
    }
    try:
        client = boto3.resource(
            "s3",
            region_name="us-east-1",
            endpoint_url=variables["AWS_ENDPOINT_URL"],
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )
        yield client.create_bucket(Bucket=BUCKET), variables
    finally:
        server.stop()


def put_table(bucket: Any, suffix: str, rows: Sequence[tuple[int, bytes]]) -> str:
    """Put rows into files of a form, and return their folder's URL."""
    for start in range(0, len(rows), ROWS_OF_FILE):
        name = f"{suffix}/{start // ROWS_OF_FILE:05}.{suffix}"
        bucket.put_object(Key=name, Body=FORMS[suffix](rows[start : start + ROWS_OF_FILE]))
    return f"s3://{BUCKET}/{suffix}/"
