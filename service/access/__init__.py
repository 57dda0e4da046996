"""Who may call and for what: clients, their keys and tokens, their permissions, and their quotas."""

from service.access.accounts import Account, calling_account
from service.access.authenticator import Authenticator
from service.access.clients import EVERYBODY, Client, Permission
from service.access.policy import HTTP_EMBED, authorize, check_permission

__all__ = [
    "EVERYBODY",
    "HTTP_EMBED",
    "Account",
    "Authenticator",
    "Client",
    "Permission",
    "authorize",
    "calling_account",
    "check_permission",
]
