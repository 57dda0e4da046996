"""Values of every type through the client and the server to a store in memory and back."""

import asyncio

from tests.service.conftest import Wire
from tests.service.store.round_trip import check_dates_in_order, check_values, create_collection
from vecgate.client import Client


async def test_values_of_every_type_come_back_and_can_be_written_changed_and_filtered_by(wire: Wire) -> None:
    def check() -> None:
        with Client(f"127.0.0.1:{wire.server.port}") as client:
            create_collection(client)
            check_values(client, examples=60)
            check_dates_in_order(client)

    await asyncio.to_thread(check)
