"""Downloads: to a temporary folder, verified, and moved into place together.

A network may be silent or absent: a server is asked for an answer before anything is downloaded,
and nothing is waited for without end.
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
from drawbench.files import check_inside, plain

TIMEOUT = 10.0  # seconds to wait for a silent network
PIECE = 1 << 20  # bytes read at a time
MAX_BYTES = 1 << 30  # of a file whose length is not known
ADVICE = "delete it and run the command again to download it, or put the original file there"

Progress = Callable[[int, int], object]

_FAILURES = (OSError, http.client.HTTPException)  # of a network


class Original(NamedTuple):
    """A file to download."""

    name: str
    urls: tuple[str, ...]  #: tried in turn
    digest: str  #: MD5 (32 hexadecimal digits) or SHA-256 (64)
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
                _download(original, place / original.name, progress)
            unpack(place)
            for path in sorted(place.iterdir()):
                if not (folder / path.name).exists():
                    os.replace(path, folder / path.name)
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


def _download(original: Original, path: Path, progress: Progress | None) -> None:
    """Download a file from the first of its servers that has the original."""
    for number, url in enumerate(original.urls, start=1):
        try:
            _copy(url, original, path, progress)
            return
        except (*_FAILURES, _NotOriginal):
            if number == len(original.urls):
                raise


def _copy(url: str, original: Original, path: Path, progress: Progress | None) -> None:
    limit = MAX_BYTES if original.length is None else original.length
    digest = hashlib.new("md5" if len(original.digest) == 32 else "sha256", usedforsecurity=False)
    done = 0
    with urllib.request.urlopen(url, timeout=TIMEOUT) as response, path.open("wb") as file:
        total = original.length or getattr(response, "length", None) or 0
        # One byte beyond the limit is enough to see that a server sends something else.
        while done <= limit and (piece := response.read(min(PIECE, limit + 1 - done))):
            file.write(piece)
            digest.update(piece)
            done += len(piece)
            if progress and total:
                progress(min(done, total), total)
    if digest.hexdigest() != original.digest:
        raise _NotOriginal(
            f"{original.name} is not the original ({done:,} bytes with {digest.name.upper()} "
            f"{digest.hexdigest()} where {original.digest} is expected)"
        )


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
