"""Each parser takes what it says it expects, at its bounds, and refuses what lies beyond."""

from ipaddress import ip_network
from typing import Any

import pytest

from oa_platform.config import parsers
from oa_platform.config.parsers import Address, Parser, Target

HASH = "a" * 64
GOOD: list[tuple[Parser[Any], str, object]] = [
    (parsers.text(3), "abc", "abc"),
    (parsers.integer(-1, 10), "-1", -1),
    (parsers.integer(-1, 10), "10", 10),
    (parsers.number(0.5, 2), "0.5", 0.5),
    (parsers.number(0.5, 2), "2", 2.0),
    (parsers.boolean(), "TRUE", True),
    (parsers.boolean(), "0", False),
    (parsers.choice("a", "b"), "b", "b"),
    (parsers.variables(never="OA_"), "JAVA_HOME, PIP_*", ("JAVA_HOME", "PIP_*")),
    (parsers.address(), "localhost:1", Address("localhost", 1)),
    (parsers.address(), "127.0.0.1:0", Address("127.0.0.1", 0)),
    (parsers.address(), "[fe80::1]:65535", Address("fe80::1", 65535)),
    (parsers.target(), "runtime:1", Target((Address("runtime", 1),))),
    (parsers.target(), "dns:///runtime:1", Target((Address("runtime", 1),))),
    (parsers.target(), "dns://10.0.0.10:53/runtime:1", Target((Address("runtime", 1),), "10.0.0.10:53")),
    (parsers.target(), "10.0.0.1:1, 10.0.0.2:1", Target((Address("10.0.0.1", 1), Address("10.0.0.2", 1)))),
    (
        parsers.networks(),
        "::ffff:10.0.0.0/104, ::ffff:192.0.2.7,fe80::/10",
        (ip_network("10.0.0.0/8"), ip_network("192.0.2.7/32"), ip_network("fe80::/10")),
    ),
    (parsers.http_url(), "https://control.example/x/", "https://control.example/x"),
    (
        parsers.web_origins(),
        "https://App.Example.org, HTTPS://a.example:443,http://a.example:80,https://a.example:080,http://a.example:5173",
        (
            *("https://app.example.org", "https://a.example", "http://a.example", "https://a.example:80"),
            "http://a.example:5173",
        ),
    ),
    (parsers.service_hashes(), f"control={HASH}", {HASH: "control"}),
    (
        parsers.service_certificates(),
        "control=a.svc, control=b.svc,runtime=spiffe://x/y?z=1",
        {"a.svc": "control", "b.svc": "control", "spiffe://x/y?z=1": "runtime"},
    ),
]
BAD: list[tuple[Parser[Any], str]] = [
    *(
        (parser, url)
        for scheme, parser in (
            ("http", parsers.http_url()),
            ("http", parsers.proxy_url()),
            ("nats", parsers.nats_url()),
        )
        for url in (
            *(f"{scheme}://a.example:{port}" for port in ("99999", "abc", "0")),
            *(f"{scheme}://a.example:1{rest}" for rest in ("?", "/?", "#", "/#x", "?x=1")),
            *(f" {scheme}://a.example:1", f"{scheme}://a. example:1", f"{scheme}://a.example:1\n", f"{scheme}://[::1"),
        )
    ),
    (parsers.service_certificates(), "control"),
    (parsers.service_certificates(), "control="),
    (parsers.service_certificates(), "control=a.svc,projector=a.svc"),
    (parsers.service_certificates(), "control=a svc"),
    (parsers.web_origins(), "https://a.example/path"),
    (parsers.web_origins(), "https://a.example:0"),
    (parsers.web_origins(), "https://a.example:65536"),
    (parsers.web_origins(), "https://\u212aelvin.example"),
    (parsers.web_origins(), "https://a.example,"),
    (parsers.web_origins(), "*"),
    (parsers.text(3), "abcd"),
    (parsers.variables(never="OA_"), "A,"),
    (parsers.variables(never="OA_"), "*"),
    (parsers.variables(never="OA_"), "A*B"),
    (parsers.variables(never="OA_"), "PATH,OA_API_KEY"),
    (parsers.variables(never="OA_"), "OA_*"),
    (parsers.integer(1, 10), "0"),
    (parsers.integer(1, 10), "11"),
    (parsers.integer(1, 10), "1.0"),
    (parsers.integer(1, 10), "٣"),
    (parsers.integer(1, 10), "9" * 5000),
    (parsers.number(0.5, 2), "2.01"),
    (parsers.number(0.5, 2), "nan"),
    (parsers.number(0.5, 2), "two"),
    (parsers.boolean(), "maybe"),
    (parsers.choice("a", "b"), "A"),
    (parsers.networks(), "0.0.0.0/0"),
    (parsers.networks(), "::/0"),
    (parsers.networks(), "::ffff:0:0/96"),
    (parsers.target(), ""),
    (parsers.target(), "runtime-0:1,runtime-1:1"),
    (parsers.target(), "10.0.0.1:1,[::1]:1"),
    (parsers.target(), "10.0.0.1:1,10.0.0.1:1"),
    (parsers.target(), "dns:///runtime"),
    (parsers.target(), "unix:///runtime:1"),
    (parsers.address(), "localhost"),
    (parsers.address(), "localhost:65536"),
    (parsers.address(), ":80"),
    (parsers.address(), "fe80::1:80"),
    (parsers.http_url(), "ftp://x"),
    (parsers.http_url(), "http://"),
    (parsers.http_url(), "http://me:secret@host"),
    (parsers.http_url(), "http://host/?a=b"),
    (parsers.nats_url(), "http://nats:4222"),
    (parsers.nats_url(), "nats://"),
    (parsers.nats_url(), "nats://nats:4222/subject"),
    (parsers.postgres_url(), "postgresql://host"),
    (parsers.postgres_url(), "http://host/db"),
    (parsers.service_hashes(), "control=abc"),
    (parsers.service_hashes(), f"control={HASH},control={HASH}"),
    (parsers.service_hashes(), f"Control={HASH}"),
]


@pytest.mark.parametrize(("parser", "given", "value"), GOOD)
def test_a_value_that_fits_is_taken(parser: Parser[Any], given: str, value: object) -> None:
    assert parser.parse(given) == value


@pytest.mark.parametrize(("parser", "given"), BAD)
def test_a_value_that_does_not_fit_is_refused(parser: Parser[Any], given: str) -> None:
    with pytest.raises(ValueError):
        parser.parse(given)


def test_a_database_url_is_a_secret() -> None:
    secret = parsers.postgres_url().parse("postgres://me:geheim@host/db")
    assert secret.reveal().endswith("geheim@host/db")
    assert "geheim" not in f"{secret} {secret!r}"
    assert not parsers.Secret("")
