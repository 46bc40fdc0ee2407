"""A network that may not be there: asked for an answer before anything is downloaded, and never waited for without end."""

import contextlib
import http.client
import queue
import socket
import threading
import urllib.request
from collections.abc import Iterator

NETWORK_SECONDS = 10.0  # how long a silent network is waited for


def answers(urls: list[str]) -> bool:
    """Whether any server answers. Asked from threads, because looking up a name ignores every timeout that Python knows."""
    answers: queue.Queue[bool] = queue.Queue()

    def ask(url: str) -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=NETWORK_SECONDS):
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
