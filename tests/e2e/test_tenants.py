"""Collections whose objects belong to tenants, over a process with a real Weaviate."""

from collections.abc import Iterator

import pytest

from tests.e2e.serving import serving, tiny_model
from vecgate.client import Client, Object, VecgateError
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import tenant_pb2 as tenant_pb

INACTIVE = tenant_pb.TENANT_ACTIVITY_STATUS_INACTIVE


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a server with a model of random weights."""
    folder = tmp_path_factory.mktemp("tenants")
    with serving(folder / "data", **tiny_model(folder / "model")) as running, running.client() as connected:
        yield connected


def create(client: Client, name: str, **tenancy: bool) -> None:
    client.create_collection(
        pb.Collection(
            name=name,
            properties=[property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT)],
            vectors=[pb.VectorConfig(name="default", text_fields=[{"name": "title"}])],
            multi_tenancy=pb.MultiTenancyConfig(enabled=True, **tenancy),
        )
    )


def put(client: Client, collection: str, tenant: str, *titles: str) -> list[VecgateError | None]:
    objects = [Object({"title": title}) for title in titles]
    return [outcome.error for outcome in client.import_objects(collection, objects, tenant=tenant)]


def titles(client: Client, collection: str, tenant: str, **query: str) -> set[str]:
    if query:
        found = [hit.object for hit in client.search(collection, tenant=tenant, **query).hits]
    else:
        found = list(client.list_objects(collection, tenant=tenant))
    return {str(each.properties["title"]) for each in found}


def test_tenants_share_a_collection_and_see_their_own_objects_only(client: Client) -> None:
    create(client, "Letters")
    client.create_tenants("Letters", ["anna", "ben"])

    assert put(client, "Letters", "anna", "a red car", "a dog") == [None, None]
    assert put(client, "Letters", "ben", "a red car") == [None]

    assert titles(client, "Letters", "anna", text="a red car") == {"a red car", "a dog"}
    assert titles(client, "Letters", "ben", text="a red car") == {"a red car"}
    assert titles(client, "Letters", "ben") == {"a red car"}
    counts = [client.get_collection("Letters", tenant).object_count for tenant in ("anna", "ben")]
    assert counts == [2, 1]
    assert not client.get_collection("Letters").HasField("object_count")

    client.delete_tenants("Letters", ["anna"])
    with pytest.raises(VecgateError, match="TENANT_NOT_FOUND"):
        client.search("Letters", text="a dog", tenant="anna")
    assert titles(client, "Letters", "ben") == {"a red car"}


def test_an_inactive_tenant_rests_until_it_is_activated(client: Client) -> None:
    create(client, "Resting")
    client.create_tenants("Resting", ["anna"])
    put(client, "Resting", "anna", "a dog")

    client.update_tenants("Resting", [tenant_pb.Tenant(name="anna", activity_status=INACTIVE)])
    with pytest.raises(VecgateError, match="not active"):
        client.search("Resting", text="a dog", tenant="anna")
    with pytest.raises(VecgateError, match="'anna' is not active; activate it"):
        put(client, "Resting", "anna", "a cat")
    client.update_tenants(
        "Resting", [tenant_pb.Tenant(name="anna", activity_status=tenant_pb.TENANT_ACTIVITY_STATUS_ACTIVE)]
    )

    assert titles(client, "Resting", "anna") == {"a dog"}


def test_tenants_are_created_and_activated_on_their_own_where_that_is_set(client: Client) -> None:
    create(client, "Auto", auto_tenant_creation=True, auto_tenant_activation=True)

    assert put(client, "Auto", "new", "a dog") == [None]
    client.update_tenants("Auto", [tenant_pb.Tenant(name="new", activity_status=INACTIVE)])

    assert titles(client, "Auto", "new", text="a dog") == {"a dog"}
    client.update_tenants("Auto", [tenant_pb.Tenant(name="new", activity_status=INACTIVE)])
    assert put(client, "Auto", "new", "a cat") == [None]
    assert titles(client, "Auto", "new") == {"a dog", "a cat"}
    assert [each.name for each in client.list_tenants("Auto")] == ["new"]
    assert client.get_collection("Auto").multi_tenancy == pb.MultiTenancyConfig(
        enabled=True, auto_tenant_creation=True, auto_tenant_activation=True
    )
