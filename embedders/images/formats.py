"""The formats of pictures by name, and how their files are called. Needs no library that reads them."""

SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
}
"""Suffixes of file names in lower case, by the format's name in Pillow."""

HEIC_SUFFIXES = (".heic", ".heics", ".heif", ".heifs", ".hif")
"""Suffixes of the format of phones that is refused by name."""
