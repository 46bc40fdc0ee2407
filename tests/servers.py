"""Servers in place of the network."""

import io
import urllib.error
import urllib.request


def serve(monkeypatch, contents):
    """Answer every download; ``contents`` maps the last part of a URL to bytes or an error."""
    requests = []

    def urlopen(request, timeout):
        assert timeout
        url = request if isinstance(request, str) else request.full_url
        name = url.rsplit("/", 1)[-1]
        requests.append(url)
        if name not in contents:
            raise urllib.error.HTTPError(url, 404, "not found", None, None)
        if isinstance(contents[name], BaseException):
            raise contents[name]
        return io.BytesIO(contents[name])

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return requests


def no_network(monkeypatch):
    """Refuse every connection."""

    def refuse(*_, **__):
        raise urllib.error.URLError("refused")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
