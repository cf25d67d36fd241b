"""What a program's environment says of its site; and what is refused of it, naming the variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from oa_base.environment import ApiKey, SiteAccess, check_control_url, with_port, without_password
from oa_base.refusal import Refusal

ENV = {"OA_CONTROL_URL": "https://site.example", "OA_API_KEY": "oak_x"}


def test_a_site_has_an_address_and_a_key_and_perhaps_a_way() -> None:
    assert SiteAccess.from_env(ENV) == SiteAccess("https://site.example", "oak_x")
    more = {"OA_PROXY": "http://user:word@proxy.example:3128", "OA_CA_FILE": "/ca.pem"}
    assert SiteAccess.from_env(ENV | more) == SiteAccess(
        "https://site.example", "oak_x", "http://user:word@proxy.example:3128", Path("/ca.pem")
    )


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("http://127.0.0.1:8080", 8080),
        ("http://site.example", 80),
        ("https://site.example/", 443),
        ("http://[::1]", 80),
    ],
)
def test_an_address_says_its_port(url: str, port: int) -> None:
    assert check_control_url(url) == port


@pytest.mark.parametrize(
    ("proxy", "whole", "shown"),
    [
        ("http://proxy.example", "http://proxy.example:80", "http://proxy.example:80"),
        ("https://user:word@proxy.example:", "https://user:word@proxy.example:443", "https://proxy.example:443"),
        ("http://user:word@[fd00::1]", "http://user:word@[fd00::1]:80", "http://[fd00::1]:80"),
        ("http://[fd00::1]:3128", "http://[fd00::1]:3128", "http://[fd00::1]:3128"),
    ],
)
def test_a_proxy_has_a_port_and_is_shown_without_its_password(proxy: str, whole: str, shown: str) -> None:
    assert with_port(proxy) == whole
    assert without_password(whole) == shown


@pytest.mark.parametrize(
    ("env", "variable"),
    [
        ({"OA_CONTROL_URL": ""}, "OA_CONTROL_URL"),
        ({"OA_CONTROL_URL": "site.example"}, "OA_CONTROL_URL"),
        ({"OA_CONTROL_URL": "ftp://site.example"}, "OA_CONTROL_URL"),
        ({"OA_CONTROL_URL": "http://"}, "OA_CONTROL_URL"),
        ({"OA_CONTROL_URL": "http://site.example:99999"}, "OA_CONTROL_URL"),
        ({"OA_CONTROL_URL": "http://[::1"}, "OA_CONTROL_URL"),
        ({"OA_API_KEY": ""}, "OA_API_KEY"),
        ({"OA_API_KEY": "", "OA_API_KEY_FILE": "/nowhere"}, "OA_API_KEY_FILE"),
        ({"OA_API_KEY_FILE": "/nowhere"}, "OA_API_KEY_FILE"),
        ({"OA_PROXY": "user:word@proxy.example"}, "OA_PROXY"),
        ({"OA_PROXY": "socks5://user:word@proxy.example"}, "OA_PROXY"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_variable(env: dict[str, str], variable: str) -> None:
    with pytest.raises(Refusal) as refused:
        SiteAccess.from_env(ENV | env)
    assert (refused.value.reason, refused.value.field) == ("invalid_setting", variable)
    assert "word" not in refused.value.message


@pytest.mark.parametrize(
    "url", ["ftp://user:geheim@site.example", "user:geheim@site.example", "http://u:geheim@x:99999"]
)
def test_a_password_in_a_url_is_not_shown(url: str) -> None:
    with pytest.raises(Refusal, match="this is no URL of a control plane") as refused:
        check_control_url(url)
    assert "geheim" not in str(refused.value)


def test_a_key_in_a_file_is_the_one_that_the_file_has_now(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("oak_1\n", "utf-8")
    site = SiteAccess.from_env({"OA_CONTROL_URL": "https://site.example", "OA_API_KEY_FILE": str(file)})
    key = ApiKey(site.api_key, site.api_key_file)
    assert key.current() == "oak_1"
    file.write_text("oak_2\n", "utf-8")
    assert key.current() == "oak_2"
    for while_it_is_replaced in (lambda: file.write_text("", "utf-8"), lambda: file.write_bytes(b"\xff"), file.unlink):
        while_it_is_replaced()
        assert key.current() == "oak_2"


def test_a_key_that_is_no_file_stays() -> None:
    assert ApiKey("oak_1").current() == "oak_1"
    assert "oak_1" not in repr(ApiKey("oak_1"))
