"""The collections page shows what is stored, and counts what lacks vectors."""

import re
from collections.abc import Iterator

import pytest
from playwright.async_api import Page, expect

from tests.e2e.serving import Serving
from tests.explorer.watching import Watch
from vecgate.client import Object
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1.tenant_pb2 import Tenant

TITLE = property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT, description="What it is called.")


@pytest.fixture(scope="module")
def stored(gallery: Serving) -> Iterator[Serving]:
    """Store a collection two of whose three objects lack their vector, with an alias, and one with tenants."""
    with gallery.client() as client:
        vector = pb.VectorConfig(name="words", text_fields=[{"name": "title", "weight": 2}])
        client.create_collection(
            pb.Collection(name="Half", description="Half of it", properties=[TITLE], vectors=[vector])
        )
        outcomes = client.import_objects("Half", [Object({"title": "a dog"}), Object({}, id=ID), Object({}, id=OTHER)])
        assert all(each.stored for each in outcomes)
        client.create_alias("Also", "Half")
        tenants = pb.MultiTenancyConfig(enabled=True)
        client.create_collection(
            pb.Collection(name="Shared", properties=[TITLE], vectors=[vector], multi_tenancy=tenants)
        )
        client.create_tenants("Shared", [Tenant(name="anna"), Tenant(name="ben")])
        assert all(each.stored for each in client.import_objects("Shared", [Object({"title": "x"})], tenant="anna"))
        yield gallery
        client.delete_alias("Also")
        for name in ("Half", "Shared"):
            client.delete_collection(name)


ID, OTHER = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"


async def test_all_collections_are_shown_with_what_the_server_says_of_them(stored: Serving, page: Page) -> None:
    await page.goto("#/collections")
    with stored.client() as client:
        for each in client.list_collections():
            card = page.get_by_role("article", name=each.name, exact=True)
            found = client.get_collection(each.name)
            objects = f"{found.object_count:,}" if found.HasField("object_count") else "Its tenants hold its objects"
            await expect(card).to_contain_text(objects)
            for vector in each.vectors:
                await expect(card).to_contain_text(vector.space)
                await expect(card).to_contain_text(vector.embedder)

    half = page.get_by_role("article", name="Half", exact=True)
    await expect(half).to_contain_text("Also called Also")
    await expect(half).to_contain_text("Half of it")
    await expect(
        page.get_by_role("article", name="Shared", exact=True).get_by_text("tenants", exact=True)
    ).to_be_visible()


async def test_objects_that_lack_vectors_are_counted_on_request_and_only_then(stored: Serving, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto("#/collections")
    half = page.get_by_role("article", name="Half", exact=True)
    await expect(half).to_contain_text("3 objects")
    before = [each for each in asked if "CountMissingVectors" in each]

    await half.get_by_role("button", name="Count objects").click()

    await expect(half).to_contain_text("2 lack words")
    await expect(half.get_by_label("the command that fills them in", exact=True)).to_contain_text(
        "vecgate objects backfill Half"
    )
    assert before == []


async def test_a_collection_where_nothing_is_missing_says_so(gallery: Serving, page: Page) -> None:
    await page.goto("#/collections?collection=Pictures")
    await page.get_by_role("button", name="Count objects").click()

    await expect(page.get_by_text("All have all their vectors")).to_be_visible()


async def test_a_collection_has_a_page_with_its_schema_and_ways_on(stored: Serving, page: Page) -> None:
    await page.goto("#/collections")
    await page.get_by_role("link", name="Half", exact=True).click()

    await expect(page.get_by_role("heading", name="Half", level=1)).to_be_visible()
    vectors, properties = (page.get_by_role("region", name=name) for name in ("Named vectors", "Properties"))
    row = vectors.get_by_role("row", name="words")
    await expect(row).to_contain_text("title (2)")
    await expect(row).to_contain_text("hnsw")
    await expect(row).to_contain_text("cosine")
    title = properties.get_by_role("row", name="title")
    await expect(title).to_contain_text("text")
    await expect(title).to_contain_text("filters, keywords, vectors")
    await expect(title).to_contain_text("What it is called.")
    for name, target in (("Search", "search"), ("Map", "map"), ("Import", "import")):
        link = page.get_by_role("link", name=re.compile(f"^{name} .*Half"))
        await expect(link).to_have_attribute("href", f"#/{target}?collection=Half")
    await expect(page.get_by_role("button", name=re.compile("delete|remove", re.IGNORECASE))).to_have_count(0)


async def test_the_objects_of_a_tenant_are_counted_once_it_is_chosen(stored: Serving, page: Page) -> None:
    await page.goto("#/collections?collection=Shared")
    await expect(page.get_by_text("2 tenants, 2 active")).to_be_visible()
    await expect(page.get_by_text("held by its tenants")).to_be_visible()

    tenant = page.get_by_label("Tenant", exact=True)
    await tenant.fill("anna")
    await tenant.press("Enter")

    await expect(page).to_have_url(re.compile("tenant=anna"))
    facts = page.locator("dl.short-facts > div").filter(has_text="Objects of this tenant").locator("dd")
    await expect(facts).to_have_text("1")
    await page.get_by_role("button", name="Count objects").click()
    await expect(page.get_by_text("All have all their vectors")).to_be_visible()


async def test_a_collection_that_is_not_there_is_told(gallery: Serving, page: Page, watch: Watch) -> None:
    watch.expect("Failed to load resource: .* 404")
    await page.goto("#/collections?collection=Nowhere")

    await expect(page.get_by_role("alert")).to_contain_text("This does not exist")
