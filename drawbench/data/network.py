"""A network that may not be there: asked for an answer before anything is downloaded, and never
waited for without end.
"""

import contextlib
import http.client
import queue
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from drawbench.errors import Problem, reason

NETWORK_SECONDS = 10.0  # how long a silent network is waited for


def answers(urls: list[str]) -> bool:
    """Whether any server answers. Asked from threads, because looking up a name ignores every
    timeout that Python knows.
    """
    answers: queue.Queue[bool] = queue.Queue()

    def ask(url: str) -> None:
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, method="HEAD"), timeout=NETWORK_SECONDS
            ):
                answers.put(True)
        except (OSError, ValueError, http.client.HTTPException):
            answers.put(False)

    for url in urls:
        threading.Thread(target=ask, args=(url,), daemon=True).start()
    # Each waits no longer than NETWORK_SECONDS and they wait side by side.
    with contextlib.suppress(queue.Empty):
        return any(answers.get(timeout=NETWORK_SECONDS) for _ in urls)
    return False


@contextlib.contextmanager
def socket_timeout() -> Iterator[None]:
    """torchvision opens its connections without a timeout, so a dead one would hang for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextlib.contextmanager
def downloading(what: str, folder: Path) -> Iterator[None]:
    """Within, something is fetched and checked in a temporary place, and then moved into
    ``folder``.

    Raises:
        Problem: it is not what it should be, or did not come.
    """
    try:
        yield
    except Problem as problem:  # it names a file in the temporary folder, which is gone by now
        advice = f"try again later, or put the original files into {folder}"
        raise Problem(
            f"what was downloaded as {what} is not what it should be, and nothing of it was kept: {advice}"
        ) from problem
    except (OSError, RuntimeError, ValueError, EOFError, http.client.HTTPException) as error:
        advice = f"check the network, or put the original files into {folder}"
        raise Problem(f"{what} could not be downloaded ({reason(error)}): {advice}") from error
