"""Which addresses may be called."""

import ipaddress

import pytest

from service.fetching.addresses import may_call

PUBLIC = ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "172.32.0.1", "100.128.0.1"]
PRIVATE = [
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "127.0.0.1",
    "127.255.255.255",
    "::1",
    "fc00::1",
    "fd12::1",
    "100.64.0.1",
]
NEVER = [
    "169.254.169.254",
    "169.254.0.1",
    "fe80::1",
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
    "fd00:ec2::254",
    "fd20:ce::254",
    "0.0.0.0",
    "::",
    "224.0.0.1",
    "239.255.255.255",
    "ff02::1",
    "255.255.255.255",
    "240.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::127.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "fec0::1",
    "192.88.99.1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
]


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_may_be_called(address: str, *, private: bool) -> None:
    assert may_call(ipaddress.ip_address(address), private=private)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_may_be_called_where_the_operator_says_so(address: str) -> None:
    assert not may_call(ipaddress.ip_address(address), private=False)
    assert may_call(ipaddress.ip_address(address), private=True)


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("address", NEVER)
def test_addresses_of_metadata_and_those_that_hold_another_are_never_called(address: str, *, private: bool) -> None:
    assert not may_call(ipaddress.ip_address(address), private=private)
