"""Real tar files for the tests of this folder."""

import io
import tarfile


def write_tar(path, members, extra=(), **options):
    """Write ``{name: content}`` and further headers to a tar file, compressed if its name says so."""
    with tarfile.open(path, "w:gz" if str(path).endswith("gz") else "w", **options) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in extra:
            archive.addfile(member)
    return path


def special(name, kind, link=""):
    """Return the header of a link, a device or the like."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


def flip(path, place):
    """Change one byte of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)
