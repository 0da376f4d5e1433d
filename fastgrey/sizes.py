"""Sizes for people."""


def bytes_shown(number: int) -> str:
    """A number of bytes for people: 1.5 MiB."""
    size, unit = float(number), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{number} B" if unit == "B" else f"{size:.1f} {unit}"
