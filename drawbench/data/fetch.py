"""Downloads: to a temporary folder, verified, and moved into place together.

A network may be silent or absent: a server is asked for an answer before anything is downloaded,
and nothing is waited for without end. What has arrived of a large file is kept where a download
stops, and the next one goes on from there.
"""

import contextlib
import gzip
import hashlib
import http.client
import os
import queue
import tarfile
import tempfile
import threading
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from drawbench.errors import Problem, reason
from drawbench.files import check_inside, plain, read_json, write_json

TIMEOUT = 10.0  # seconds to wait for a silent network
PIECE = 1 << 20  # bytes read at a time
MAX_BYTES = 1 << 30  # of a file whose length is not known
LARGE = 1 << 27  # bytes of a file whose download goes on where it stopped
PINS = "sha256.json"  # of files without a published hash: what they were at first
ADVICE = "delete it and run the command again to download it, or put the original file there"

Progress = Callable[[int, int], object]

_FAILURES = (OSError, http.client.HTTPException)  # of a network


class Original(NamedTuple):
    """A file to download."""

    name: str
    urls: tuple[str, ...]  #: tried in turn
    #: MD5 (32 hexadecimal digits) or SHA-256 (64); None where none is published: the SHA-256 of the
    #: first download is kept beside the files, and later ones must have it too
    digest: str | None
    length: int | None = None  #: bytes, if known


def fetch(
    what: str,
    root: Path,
    folder: Path,
    originals: Sequence[Original],
    *,
    unpack: Callable[[Path], None] = lambda folder: None,
    progress: Progress | None = None,
) -> None:
    """Download files into ``folder``: all of them or none. A file already there is kept.

    Args:
        what: what they are, for messages.
        root: the folder that nothing may be written outside of; ``folder`` is in it.
        unpack: replaces downloaded files by what is in them, in the folder that it is given.
        progress: called with the bytes read and to be read of each file.

    Raises:
        Problem: there is no network, a file is not the original, or it cannot be written.
    """
    check_inside(folder, root)
    advice = f"put the original files into {folder}"
    if not reachable(originals[0].urls):
        raise Problem(
            f"{what} could not be downloaded (no server could be reached): check the network, or "
            f"{advice}"
        )
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", suffix=".partial", dir=folder) as temporary:
            place = Path(temporary)
            for original in originals:
                large = (original.length or 0) >= LARGE
                part = folder / f".{original.name}.part" if large else place / original.name
                digest = _download(original, part, progress)
                if original.digest is None:
                    _pin(original.name, digest, part, folder / PINS)
                if large:
                    _share(part, place / original.name)
            unpack(place)
            for path in sorted(place.iterdir()):
                if not (folder / path.name).exists():
                    os.replace(path, folder / path.name)
            for original in originals:
                (folder / f".{original.name}.part").unlink(missing_ok=True)
    except _NotOriginal as error:
        raise Problem(
            f"{what} was downloaded, but {error}, so nothing was kept: try again later, or {advice}"
        ) from error
    except (*_FAILURES, EOFError, ValueError, KeyError, tarfile.TarError) as error:
        raise Problem(
            f"{what} could not be downloaded ({reason(error)}): check the network and the disk, or "
            f"{advice}"
        ) from error
    finally:
        for path in made:  # an empty folder would look like files that were lost
            with contextlib.suppress(OSError):
                path.rmdir()


def content(path: Path, expected: int) -> tuple[bytes, int]:
    """Return the bytes of a file, unpacked if it is ``.gz``, and their number.

    A wrong file may be of any length: no more than one byte beyond the expected ones is read.

    Raises:
        Problem: it cannot be read or unpacked.
    """
    try:
        with plain(path).open("rb") as stream:
            if path.suffix == ".gz":
                unpacked = gzip.GzipFile(fileobj=stream).read(expected + 1)
                return unpacked, len(unpacked)
            return stream.read(expected + 1), os.fstat(stream.fileno()).st_size
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Problem(f"{path} cannot be unpacked ({reason(error)}): {ADVICE}") from error
    except OSError as error:
        raise Problem(f"{path} cannot be read ({error.strerror or error})") from error


class _NotOriginal(Exception):
    """What is wrong with a file that was downloaded."""


def _download(original: Original, path: Path, progress: Progress | None) -> str:
    """Download a file from the first of its servers that has the original; return its hash."""
    for url in original.urls[:-1]:
        with contextlib.suppress(*_FAILURES, _NotOriginal):
            return _copy(url, original, path, progress)
    return _copy(original.urls[-1], original, path, progress)


def _share(part: Path, path: Path) -> None:
    """Give a file a second name, so that the first is still there if the disk fills up later."""
    try:
        os.link(part, path)
    except OSError:  # a file system without such links
        os.replace(part, path)


def _pin(name: str, digest: str, part: Path, pins: Path) -> None:
    """Remember the hash of a file that is downloaded for the first time, or compare it."""
    known = read_json(pins) if pins.exists() else {}
    if not isinstance(known, dict) or known.get(name, digest) != digest:
        part.unlink()
        raise _NotOriginal(f"{name} has the SHA-256 {digest}, another than {pins} says")
    write_json(pins, known | {name: digest})


def _copy(url: str, original: Original, path: Path, progress: Progress | None) -> str:
    """Download a file, or what is missing of it; return its hash."""
    limit = MAX_BYTES if original.length is None else original.length
    md5 = original.digest is not None and len(original.digest) == 32
    digest = hashlib.new("md5" if md5 else "sha256", usedforsecurity=False)
    done = path.stat().st_size if path.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    if done != original.length:
        done = _receive(request, path, done, limit, original.length, progress)
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    if original.length is not None and done < original.length:
        raise OSError(f"the server sent {done:,} of {original.length:,} bytes")
    found = digest.hexdigest()
    if done > limit or found != (original.digest or found):
        path.unlink()
        expected = original.digest or f"{original.length} bytes"
        raise _NotOriginal(
            f"{original.name} is not the original ({done:,} bytes with {digest.name.upper()} "
            f"{found} where {expected} is expected)"
        )
    return found


def _receive(
    request: urllib.request.Request,
    path: Path,
    done: int,
    limit: int,
    length: int | None,
    progress: Progress | None,
) -> int:
    """Append what a server sends to a file of ``done`` bytes, or replace it; return its length."""
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        if getattr(response, "status", 200) != 206:  # all of it, and not the rest
            done = 0
        total = length or getattr(response, "length", None) or 0
        with path.open("ab" if done else "wb") as file:
            # One byte beyond the limit is enough to see that a server sends something else.
            while done <= limit and (piece := response.read(min(PIECE, limit + 1 - done))):
                file.write(piece)
                done += len(piece)
                if progress and total:
                    progress(min(done, total), total)
    return done


def reachable(urls: Sequence[str]) -> bool:
    """Return whether any server answers, within `TIMEOUT`.

    Asked from threads, because looking up a name ignores every timeout that Python knows.
    """
    answers: queue.Queue[bool] = queue.Queue()

    def ask(url: str) -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=TIMEOUT):
                answers.put(True)
        except urllib.error.HTTPError:  # some servers know no HEAD
            answers.put(True)
        except (*_FAILURES, ValueError):
            answers.put(False)

    for url in urls:
        threading.Thread(target=ask, args=(url,), daemon=True).start()
    with contextlib.suppress(queue.Empty):
        return any(answers.get(timeout=TIMEOUT) for _ in urls)
    return False
