"""Clients, their files, keys, tokens and quotas."""

import asyncio
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import structlog
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey

from service.access import Authenticator, Client, Permission, calling_account
from service.access import authenticator as access
from service.access.clients import read_clients
from service.errors import CredentialsInvalid, CredentialsMissing, QuotaExceeded
from service.settings import AuthSettings, InvalidSettings
from tests.fakes.clients import key_of, write_clients

DIGEST = "0" * 64
ISSUER, AUDIENCE = "https://issuer.example", "vecgate"


def bearer(credential: str) -> str:
    return f"Bearer {credential}"


@pytest.mark.parametrize(
    ("content", "faults"),
    [
        (b"\xff", ["is not valid TOML"]),
        (b"clients = ", ["is not valid TOML"]),
        (b"", ["clients: Field required"]),
        (b"[clients]\n", ["clients: Dictionary should have at least 1 item"]),
        (b'[clients."a b"]\nkeys_sha256=["' + DIGEST.encode() + b'"]\npermissions=["embed"]', ["clients.a b"]),
        (
            b'[clients.a]\nkeys_sha256=["secret-key"]\npermissions=["fly"]\nlimit=1\n[clients.a.quota]\ninputs_per_second=0',
            [
                "clients.a.keys_sha256.0: String should match pattern",
                "clients.a.permissions.0: Input should be 'embed', 'search', 'write' or 'admin'",
                "clients.a.permissions: Tuple should have at least 1 item",
                "clients.a.quota.inputs_per_second: Input should be greater than 0",
                "clients.a.limit: Extra inputs",
            ],
        ),
        (b"[clients.a]\npermissions=[]", ["clients.a.permissions: Tuple should have at least 1 item"]),
        (b'[clients.a]\npermissions=["embed"]', ["clients.a: has neither keys_sha256 nor subjects"]),
        (
            f'[clients.a]\npermissions=["embed"]\nkeys_sha256=["{DIGEST}"]\nsubjects=["s"]\n'
            f'[clients.b]\npermissions=["embed"]\nkeys_sha256=["{DIGEST}"]\nsubjects=["s"]'.encode(),
            [
                "clients.b.keys_sha256: one of them also belongs to a",
                "clients.b.subjects: one of them also belongs to a",
            ],
        ),
    ],
)
def test_a_file_that_is_wrong_says_all_that_is_wrong_and_no_key(content: bytes, faults: list[str]) -> None:
    with pytest.raises(InvalidSettings) as caught:
        read_clients(content, "clients.toml")
    lines = str(caught.value).splitlines()
    assert len(lines) == len(faults)
    for line, fault in zip(lines, faults, strict=True):
        assert line.startswith("clients.toml")
        assert fault in line
    assert "secret-key" not in str(caught.value)
    assert DIGEST not in str(caught.value)


@pytest.mark.parametrize(
    ("patterns", "yes", "no"),
    [
        (("*",), ["Anything"], []),
        (("Mine*",), ["Mine", "mine", "MineToo"], ["Not", "AMine", "MINE"]),
        (("team_?",), ["Team_a", "team_b"], ["Team_", "Team_ab"]),
        (("A", "B"), ["A", "B", "a"], ["C", ""]),
        ((), [], ["A"]),
    ],
)
def test_patterns_of_collections_are_a_shells(patterns: tuple[str, ...], yes: list[str], no: list[str]) -> None:
    client = Client("a", frozenset(Permission), patterns, patterns)
    assert [client.may_touch(each) for each in yes] == [True] * len(yes)
    assert [client.may_touch(each) for each in no] == [False] * len(no)


def test_the_case_of_a_tenant_counts() -> None:
    client = Client("a", frozenset(Permission), tenants=("anna",))
    assert client.may_touch_tenant("anna")
    assert not client.may_touch_tenant("Anna")


def test_without_a_file_everybody_may_do_everything() -> None:
    authenticator = Authenticator(AuthSettings())
    for authorization in (None, "Bearer x", "nonsense"):
        account = authenticator.admit(authorization)
        assert account.client.permissions == frozenset(Permission)
        assert account.client.may_touch("Any")


def test_a_client_is_known_by_any_of_its_keys(tmp_path: Path) -> None:
    file = write_clients(tmp_path / "clients.toml", a='permissions = ["embed"]', b='permissions = ["search", "write"]')
    authenticator = Authenticator(AuthSettings(clients_file=file))
    assert authenticator.identify(bearer(key_of("a"))).name == "a"
    assert authenticator.identify(f"bearer  {key_of('b')} ").permissions == {Permission.SEARCH, Permission.WRITE}
    for wrong in (None, "", "Bearer", "Bearer ", key_of("a"), f"Basic {key_of('a')}"):
        with pytest.raises(CredentialsMissing):
            authenticator.identify(wrong)
    for wrong in ("x", key_of("a") + "x", DIGEST):
        with pytest.raises(CredentialsInvalid) as caught:
            authenticator.identify(bearer(wrong))
        assert wrong not in str(caught.value)
    assert "key-of" not in repr(vars(authenticator))


async def test_files_are_read_again_when_they_change_and_bad_ones_are_not_taken(tmp_path: Path) -> None:
    file = write_clients(tmp_path / "clients.toml", a='permissions = ["embed"]')
    authenticator = Authenticator(AuthSettings(clients_file=file))
    await authenticator.start()
    with structlog.testing.capture_logs() as lines:
        write_clients(file, b='permissions = ["embed"]')
        await _until(lambda: authenticator.identify(bearer(key_of("b"))))
        with pytest.raises(CredentialsInvalid):
            authenticator.identify(bearer(key_of("a")))
        file.write_text("[clients")
        await _until(lambda: next(line for line in lines if line["event"] == "clients_not_read_again"))
        assert authenticator.identify(bearer(key_of("b"))).name == "b"
        file.unlink()
        await _until(lambda: [line for line in lines if line["event"] == "clients_not_read_again"][1])
        write_clients(file, c='permissions = ["embed"]')
        await _until(lambda: authenticator.identify(bearer(key_of("c"))))
    await authenticator.close()
    await authenticator.close()
    assert not any("key-of" in str(line) for line in lines)
    assert len([line for line in lines if line["event"] == "clients_read_again"]) == 2


async def test_a_file_that_stays_away_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_clients(tmp_path / "clients.toml", a='permissions = ["embed"]')
    content = file.read_bytes()
    authenticator = Authenticator(AuthSettings(clients_file=file))
    read, looks = authenticator._read, []
    monkeypatch.setattr(authenticator, "_read", lambda: (looks.append(file.exists()), read())[1])
    await authenticator.start()
    with structlog.testing.capture_logs() as lines:
        for _ in range(2):
            file.unlink()
            looks.clear()
            await _until(lambda: looks[3])
            other = tmp_path / "written"
            other.write_bytes(content)
            other.replace(file)
            looks.clear()
            await _until(lambda: looks[2])
    await authenticator.close()

    assert [line["event"] for line in lines] == ["clients_not_read_again"] * 2


async def test_files_are_read_again_after_an_error_that_nobody_thought_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_clients(tmp_path / "clients.toml", a='permissions = ["embed"]')
    authenticator = Authenticator(AuthSettings(clients_file=file))
    read = authenticator._read
    faults = [RuntimeError("a bug")]
    monkeypatch.setattr(authenticator, "_read", lambda: read() if not faults else _throw(faults.pop()))
    await authenticator.start()
    with structlog.testing.capture_logs() as lines:
        await _until(lambda: next(line for line in lines if line["event"] == "clients_not_read_again"))
        write_clients(file, b='permissions = ["embed"]')
        await _until(lambda: authenticator.identify(bearer(key_of("b"))))
    await authenticator.close()


def _throw(error: Exception) -> None:
    raise error


@pytest.fixture(autouse=True)
def _changes_are_seen_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "LOOK_EVERY_S", 0.01)


async def _until(look: Any) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                look()
            except (IndexError, StopIteration, CredentialsInvalid):
                await asyncio.sleep(0.01)
            else:
                return


@pytest.mark.parametrize("name", ["missing.toml", "folder"])
def test_a_file_that_cannot_be_read_is_a_fault_of_the_settings(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="cannot be read"):
        AuthSettings(clients_file=tmp_path / name)


class TestTokens:
    keys = KeySet([ECKey.generate_key("P-256", {"kid": "ec"}), RSAKey.generate_key(2048, {"kid": "rsa"})])

    @pytest.fixture
    def settings(self, tmp_path: Path) -> AuthSettings:
        jwks = tmp_path / "jwks.json"
        jwks.write_text(json.dumps(self.keys.as_dict(private=False)))
        clients = write_clients(
            tmp_path / "clients.toml", svc='permissions = ["search"]\nsubjects = ["svc-1", "svc-2"]'
        )
        return AuthSettings(clients_file=clients, jwks_file=jwks, jwt_issuer=ISSUER, jwt_audience=AUDIENCE)

    def token(self, kid: str = "ec", alg: str = "ES256", keys: KeySet | None = None, **changes: object) -> str:
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "svc-1",
            "exp": 60,
        } | changes
        now_s = int(time.time())
        claims |= {name: now_s + claims[name] for name in ("exp", "nbf") if claims.get(name) is not None}
        header = {"alg": alg, "kid": kid}
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(header, claims, keys or self.keys, algorithms=[alg])

    @pytest.mark.parametrize(
        "given",
        [{}, {"kid": "rsa", "alg": "RS256"}, {"sub": "svc-2"}, {"aud": ["x", AUDIENCE]}, {"exp": -5}],
    )
    def test_a_valid_token_names_its_client(self, settings: AuthSettings, given: Mapping[str, Any]) -> None:
        assert Authenticator(settings).identify(bearer(self.token(**given))).name == "svc"

    def test_keys_go_on_working_beside_tokens(self, settings: AuthSettings) -> None:
        assert Authenticator(settings).identify(bearer(key_of("svc"))).name == "svc"

    @pytest.mark.parametrize(
        "given",
        [
            {"iss": "https://other.example"},
            {"iss": None},
            {"aud": "other"},
            {"aud": None},
            {"sub": "other"},
            {"sub": None},
            {"exp": -60},
            {"exp": None},
            {"nbf": 600},
            {"kid": "rsa", "alg": "RS512"},
            {"keys": KeySet([ECKey.generate_key("P-256", {"kid": "ec"})])},
            {"keys": KeySet([ECKey.generate_key("P-256", {"kid": "unknown"})]), "kid": "unknown"},
            {"keys": KeySet([OctKey.generate_key(256, {"kid": "ec"})]), "alg": "HS256"},
        ],
        ids=lambda given: str({**given, "keys": "others"} if "keys" in given else given),
    )
    def test_one_that_is_not_valid_here_is_refused_without_repeating_it(
        self, settings: AuthSettings, given: Mapping[str, Any]
    ) -> None:
        token = self.token(**given)
        with pytest.raises(CredentialsInvalid) as caught:
            Authenticator(settings).identify(bearer(token))
        assert not any(part in str(caught.value) for part in token.split("."))

    @pytest.mark.parametrize(
        "token",
        [
            "eyJ.a.b",
            "eyJhbGciOiJub25lIn0.e30.",
            "eyJhbGciOiJFUzI1NiJ9.e30.AAAA",
            # {"crit":1}, which is to be a list, and {"alg":[[[...
            "eyJjcml0IjoxLCJhbGciOiJFUzI1NiIsImtpZCI6ImVjIn0.e30.AAAA",
            "eyJhbGciOl" + "tbW1tb" * 5000 + ".e30.AAAA",
        ],
    )
    def test_what_only_looks_like_one_is_refused(self, settings: AuthSettings, token: str) -> None:
        with pytest.raises(CredentialsInvalid):
            Authenticator(settings).identify(bearer(token))

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "[]",
            "{}",
            '{"keys": []}',
            '{"keys": [{"kty": "what"}]}',
            json.dumps(keys.as_dict(private=True)),
            json.dumps(KeySet([OctKey.generate_key(256)]).as_dict(private=True)),
        ],
    )
    def test_a_file_of_no_public_keys_is_a_fault_of_the_settings(self, settings: AuthSettings, content: str) -> None:
        assert settings.jwks_file is not None
        settings.jwks_file.write_text(content)
        with pytest.raises(InvalidSettings, match=r"jwks\.json"):
            Authenticator(settings)

    @pytest.mark.parametrize(
        ("wrong", "fault"),
        [
            ({"jwt_issuer": ""}, "auth.jwt_issuer"),
            ({"jwt_audience": "", "clients_file": None}, r"auth.clients_file.*\n.*auth.jwt_audience"),
            ({"jwt_algorithms": "HS256"}, "auth.jwt_algorithms"),
            ({"jwt_algorithms": "none"}, "auth.jwt_algorithms"),
            ({"jwt_algorithms": ""}, "auth.jwt_algorithms"),
            ({"without_key": "health,everything"}, "'health', 'metrics' or 'reflection'"),
        ],
    )
    def test_settings_that_make_no_sense_together_are_refused(
        self, settings: AuthSettings, wrong: dict[str, object], fault: str
    ) -> None:
        with pytest.raises(ValueError, match=fault):
            AuthSettings.model_validate(settings.model_dump() | wrong)


async def test_what_a_client_has_used_outlasts_a_file_that_is_read_again_unless_its_quota_changes(
    tmp_path: Path,
) -> None:
    file = tmp_path / "clients.toml"
    line = 'permissions = ["embed"]\n[clients.a.quota]\ninputs_per_second = 1'
    write_clients(file, a=line)
    authenticator = Authenticator(AuthSettings(clients_file=file))
    await authenticator.start()
    async with authenticator.admit(bearer(key_of("a"))).embedding(100):
        pass
    with pytest.raises(QuotaExceeded):
        authenticator.admit(bearer(key_of("a")))
    write_clients(file, a=line, b='permissions = ["embed"]')
    await _until(lambda: authenticator.identify(bearer(key_of("b"))))
    with pytest.raises(QuotaExceeded):
        authenticator.admit(bearer(key_of("a")))
    write_clients(file, a=line.replace("= 1", "= 1000"), c='permissions = ["embed"]')
    await _until(lambda: authenticator.identify(bearer(key_of("c"))))
    assert authenticator.admit(bearer(key_of("a"))).client.quota.inputs_per_second == 1000
    await authenticator.close()


async def test_the_account_is_that_of_the_call_in_every_task_that_works_for_it(tmp_path: Path) -> None:
    file = write_clients(tmp_path / "clients.toml", a='permissions = ["embed"]', b='permissions = ["embed"]')
    authenticator = Authenticator(AuthSettings(clients_file=file))

    async def call(name: str) -> str:
        authenticator.admit(bearer(key_of(name)))
        return await asyncio.create_task(work())

    async def work() -> str:
        await asyncio.sleep(0)
        return calling_account.get().client.name

    names = await asyncio.gather(*(asyncio.create_task(call(name)) for name in ("a", "b")))
    assert names == ["a", "b"]
    assert calling_account.get().client.name == ""
