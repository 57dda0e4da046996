"""Which network addresses may be called."""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

METADATA = frozenset(
    map(
        ipaddress.ip_address,
        # Link-local ones are refused as such. These are of Alibaba, Oracle, Azure, AWS and Google.
        ("100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254", "fd20:ce::254"),
    )
)
"""Where clouds tell a machine its credentials."""

EMBEDDING = tuple(
    map(
        ipaddress.IPv6Network,
        ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16"),
    )
)
"""IPv6 addresses that hold an IPv4 address, to which the network may translate them."""

SHARED = ipaddress.ip_network("100.64.0.0/10")
"""Of carriers and of clusters; Python counts it neither as private nor as global."""

RELAYS = ipaddress.ip_network("192.88.99.0/24")
"""Once of relays from IPv4 to IPv6, and now reserved; Python counts it as global."""


def may_call(address: Address, *, private: bool) -> bool:
    """Return whether an address may be called.

    Link-local, site-local, multicast, unspecified and reserved addresses never are, nor those of clouds' metadata, nor
    IPv6 addresses that hold an IPv4 address.

    Args:
        address: the address.
        private: whether private and loopback addresses may be.
    """
    if address in METADATA or address.is_link_local or address.is_multicast or address.is_unspecified:
        return False
    if address.is_loopback:
        return private
    if isinstance(address, ipaddress.IPv6Address) and (
        address.is_site_local or any(address in each for each in EMBEDDING)
    ):
        return False
    if address.is_reserved or address in RELAYS:
        return False
    return address.is_global or (private and (address.is_private or address in SHARED))
