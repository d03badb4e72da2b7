"""The normal form of a URL: two spellings of one address must compare equal (paper §2.1 drops documents with duplicate URLs).

    normalise_url("HTTPS://www.Example.com:443/a%7Eb/?utm_source=x#top") == normalise_url("http://example.com/a~b")

Folded: scheme http and https, case of the host, `www.`, default port, user information, percent-encoding (unreserved characters bare, the rest
%XX in capitals), international domain names (as Unicode, as punycode or percent-encoded), dot segments, fragment, tracking parameters and session
ids, slash at the end. Kept: fragments that begin with `!` or `/`, since they are pages of sites that route in the browser; other parameters and
their order, since some sites read meaning into it; case of paths; `index.html`, doubled slashes, since they may be pages of their own.
A broken address is compared as it stands. The form is for comparing, not for fetching.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote, urlsplit

TRACKING = frozenset([
    "fbclid", "gclid", "gclsrc", "dclid", "gbraid", "wbraid", "msclkid", "yclid", "twclid", "ttclid", "igshid", "igsh", "mc_cid", "mc_eid", "mkt_tok",
    "_hsenc", "_hsmi", "hsctatracking", "_ga", "_gl", "_openstat", "vero_id", "vero_conv", "wickedid", "oly_anon_id", "oly_enc_id", "rb_clickid",
    "s_cid", "cmpid", "ref_src", "ref_url", "spm",
    "pk_campaign", "pk_kwd", "pk_keyword", "pk_source", "pk_medium", "pk_content", "pk_cid",  # not all of pk_: a primary key tells pages apart
    "at_medium", "at_campaign", "at_campaign_type", "at_format", "at_platform", "at_creation", "at_variant", "at_ptr_name", "at_bbc_team",
    "phpsessid", "jsessionid",
])
TRACKING_PREFIXES = ("utm_", "mtm_", "hsa_", "at_custom", "at_link_", "aspsessionid")
_DEFAULT_PORTS = {"http": 80, "https": 443, "ftp": 21}
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9\-._~!$&'()*+,;=:@/?%\[\]|]+")
_SESSION = re.compile(r";jsessionid=[^/?#]*", re.IGNORECASE)
_HOST_FIRST = re.compile(r"(?:[\w-]+\.)+[\w-]+(?::\d+)?(?:[/?#]|$)")


def normalise_url(url: str) -> str:
    """The form of `url` for comparing; an address that can't be parsed is compared as it stands, without white space at its ends."""
    url = url.strip()
    if url.startswith("//"):
        url = f"http:{url}"
    elif "://" not in url and _HOST_FIRST.match(url):
        url = f"http://{url}"
    try:
        parts = urlsplit(url)
        host, port = _host(parts.hostname or ""), parts.port
    except ValueError:
        return url
    if not host:
        return url
    scheme = parts.scheme.lower()
    port_text = f":{port}" if port is not None and port != _DEFAULT_PORTS.get(scheme) else ""
    prefix = "" if scheme in ("http", "https") else f"{scheme}:"
    path = _without_dot_segments(_percent(parts.path if ";" not in parts.path else _SESSION.sub("", parts.path))).rstrip("/")
    query = "&".join(_percent(pair) for pair in parts.query.split("&") if pair and not _is_tracking(pair))
    fragment = f"#{_percent(parts.fragment)}" if parts.fragment.startswith(("!", "/")) else ""
    return f"{prefix}//{host}{port_text}{path}" + (f"?{query}" if query else "") + fragment


@lru_cache(maxsize=65536)
def _host(host: str) -> str:
    if "%" in host:
        host = unquote(host)
    host = host.lower().rstrip(".").removeprefix("www.")
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode()
    except UnicodeError:  # a host that no registry would accept still has one lower-case spelling
        return host


def _percent(text: str) -> str:
    """One spelling of percent-encoding: unreserved characters bare, everything else that needs it as %XX in capitals."""
    if "%" in text:
        text = _ESCAPE.sub(_unescape, text)
    return _NOT_PLAIN.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass")), text)


def _unescape(match: re.Match[str]) -> str:
    byte = int(match[1], 16)
    return chr(byte) if byte in _UNRESERVED else f"%{match[1].upper()}"


def _without_dot_segments(path: str) -> str:
    if "/." not in path:
        return path
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[max(len(kept) - 1, 1):]
        elif segment != ".":
            kept.append(segment)
    return "/".join(kept)


def _is_tracking(pair: str) -> bool:
    name = pair.partition("=")[0].lower()
    return name in TRACKING or name.startswith(TRACKING_PREFIXES)
