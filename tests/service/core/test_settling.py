from uuid import UUID

from service.core.objects.writing import PAGE, _pages


def test_writes_are_settled_in_pages_of_one_collection_and_tenant_and_none_is_left_out() -> None:
    keys = [(f"C{number % 2}", f"t{number % 3}", UUID(int=number)) for number in range(1000)]

    pages = list(_pages(keys))

    assert sorted(key for page in pages for key in page) == sorted(keys)
    assert all(len({key[:2] for key in page}) == 1 and len(page) <= PAGE for page in pages)
    assert len(pages) == 6 * 2
