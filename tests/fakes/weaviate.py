"""Settings for a Weaviate on this machine."""

from service.settings import WeaviateSettings, read_secret


def at_ports(http: int, grpc: int) -> dict[str, str]:
    """Return the settings of Weaviate's addresses on loopback; port 0 takes a free one."""
    return {"http_url": f"http://127.0.0.1:{http}", "grpc_url": f"grpc://127.0.0.1:{grpc}"}


def variables_at_ports(http: int, grpc: int) -> dict[str, str]:
    """Return the same as environment variables."""
    return {f"VECGATE_WEAVIATE__{name.upper()}": url for name, url in at_ports(http, grpc).items()}


def variables_of(weaviate: WeaviateSettings) -> dict[str, str]:
    """Return the environment variables of a server that uses a running Weaviate."""
    return {
        "VECGATE_WEAVIATE__EMBEDDED": "false",
        **variables_at_ports(weaviate.http.port, weaviate.grpc.port),
        "VECGATE_WEAVIATE__API_KEY": read_secret(weaviate.api_key, weaviate.api_key_file) or "",
    }
