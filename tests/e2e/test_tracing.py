"""Traces of a running Vecgate, from its caller to Weaviate."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.settings import WeaviateSettings, read_secret
from tests.e2e.serving import serving, tiny_model
from tests.fakes.collector import Collector, attributes_of, collector
from tests.fakes.weaviate import variables_at_ports
from vecgate.client import Object
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import property_pb2 as property_pb

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
TITLE = "a sesame open up"


@contextmanager
def listening(port: int) -> Iterator[tuple[int, bytearray]]:
    """Pass connections on to a port, and keep what goes that way."""
    kept = bytearray()
    server = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket, *, keep: bool) -> None:
        try:
            while data := source.recv(65536):
                if keep:
                    kept.extend(data)
                target.sendall(data)
        except OSError:
            pass
        for each in (source, target):
            each.close()

    def accept() -> None:
        while True:
            try:
                near, _ = server.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", port))
            for pair, keep in (((near, far), True), ((far, near), False)):
                threading.Thread(target=pump, args=pair, kwargs={"keep": keep}, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server.getsockname()[1], kept
    finally:
        server.close()


def use(weaviate: WeaviateSettings, http_port: int, grpc_port: int, collected: Collector, folder: Path) -> None:
    """Make calls with a trace on a Vecgate that is started for it."""
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collected.address,
        "OTEL_SERVICE_NAME": "vecgate-here",
        "VECGATE_WEAVIATE__EMBEDDED": "false",
        **variables_at_ports(http_port, grpc_port),
        "VECGATE_WEAVIATE__API_KEY": read_secret(weaviate.api_key, weaviate.api_key_file) or "",
        **tiny_model(folder / "tiny"),
    }
    with serving(folder, **settings) as server, server.client(metadata=[("traceparent", PARENT)]) as client:
        client.create_collection(
            pb.Collection(
                name="Traced",
                properties=[property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT)],
                vectors=[{"name": "default", "text_fields": [{"name": "title"}]}],
            )
        )
        assert not [each.error for each in client.import_objects("Traced", [Object({"title": TITLE})]) if each.error]
        assert client.search("Traced", text=TITLE).hits
        client.delete_collection("Traced")


def test_a_search_is_one_trace_from_its_caller_to_weaviate(weaviate_settings: WeaviateSettings, tmp_path: Path) -> None:
    settings = weaviate_settings
    with (
        collector() as collected,
        listening(settings.http.port) as (http_port, to_http),
        listening(settings.grpc.port) as (grpc_port, _),
    ):
        use(settings, http_port, grpc_port, collected, tmp_path)

    by_id = {span.span_id: span for span in collected.spans}
    (search,) = collected.named("vecgate.v1.SearchService/SearchObjects")
    ours = [span for span in collected.spans if span.trace_id.hex() == TRACE]

    def under_search(name: str) -> list[dict[str, object]]:
        found = [span for span in ours if span.name == name]
        return [attributes_of(span) for span in found if by_id.get(span.parent_span_id) is search]

    assert under_search("search") == [
        {"db.system.name": "weaviate", "db.operation.name": "search", "db.collection.name": "Traced"}
    ]
    (embedding,) = under_search("embeddings tiny")
    assert embedding["gen_ai.operation.name"] == "embeddings"
    assert TITLE not in str(collected.spans)
    assert collected.resources[0]["service.name"] == "vecgate-here"
    (written,) = [span for span in ours if span.name == "create_collection"]
    assert f"traceparent: 00-{TRACE}-{written.span_id.hex()}-01".encode() in bytes(to_http)
