"""Values of every type through the client and the server to a real Weaviate and back."""

import asyncio

import pytest

from service.settings import WeaviateSettings
from service.store.weaviate import WeaviateStore
from tests.service.conftest import start_wire, stop_wire
from tests.service.store.round_trip import check_dates_in_order, check_values, create_collection
from vecgate.client import Client


@pytest.mark.timeout(600)
async def test_values_of_every_type_come_back_and_can_be_written_changed_and_filtered_by(
    weaviate_settings: WeaviateSettings,
) -> None:
    store = WeaviateStore(weaviate_settings)
    await store.start()
    wire = await start_wire(store=store)

    def check() -> None:
        with Client(f"127.0.0.1:{wire.server.port}") as client:
            create_collection(client)
            check_values(client, examples=30)
            check_dates_in_order(client)

    try:
        await asyncio.to_thread(check)
    finally:
        await stop_wire(wire)
        await store.close()
