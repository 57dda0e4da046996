"""Who may call and for what: clients, their keys and tokens, their permissions, and their quotas."""

from service.access.authenticator import Authenticator
from service.access.clients import CALLER_KEY, EVERYBODY, Client, Permission
from service.access.policy import (
    authorize,
    authorize_method,
    authorize_route,
    check_collection,
    check_permission,
    follow_alias,
)
from service.access.quotas import NOBODY, Account, calling_account

__all__ = [
    "CALLER_KEY",
    "EVERYBODY",
    "NOBODY",
    "Account",
    "Authenticator",
    "Client",
    "Permission",
    "authorize",
    "authorize_method",
    "authorize_route",
    "calling_account",
    "check_collection",
    "check_permission",
    "follow_alias",
]
