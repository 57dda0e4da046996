"""The official Weaviate release, fetched by weaviate-client's own downloader."""

from pathlib import Path

from weaviate.embedded import EmbeddedOptions, EmbeddedV4


def download_release(version: str, folder: Path) -> Path:
    """Download the release of a version for this platform into a folder, unless it is there, and return the program.

    Raises:
        OSError: it cannot be had; the errors of networks among them.
        WeaviateBaseError: there is none for this platform.
    """
    options = EmbeddedOptions(version=version, binary_path=str(folder), persistence_data_path=str(folder))
    downloader = EmbeddedV4(options)
    downloader.ensure_weaviate_binary_exists()
    return downloader._weaviate_binary_path  # noqa: SLF001
