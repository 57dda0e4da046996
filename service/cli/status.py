"""`vecgate status`: what the server reports about itself."""

from datetime import timedelta

import typer
from grpc import StatusCode

from service.cli.connection import AddressOption, connected
from service.cli.output import EXIT_FAILED, describe_error, print_table, say
from vecgate.client import Client, Health, Unreachable, VecgateError
from vecgate.v1 import admin_service_pb2 as admin_pb
from vecgate.v1 import embedding_service_pb2 as pb

SERVICES = ("EmbeddingService", "CollectionService", "ObjectService", "SearchService")
MIB = 1024 * 1024


def status(context: typer.Context, address: AddressOption = None) -> None:
    """Show health, embedders, limits and collections; exit code 1 if something is wrong."""
    with connected(context, address) as client:
        whole = client.health()
        say(f"Vecgate at {client.target} is {_words(whole)}")
        say()
        services = ((name, _words(client.health(f"vecgate.v1.{name}"))) for name in SERVICES)
        print_table(("service", "health"), services)
        say()
        _show_embedders(client.embedders())
        say()
        _show_work(client)
        listed = _show_collections(client)
    if whole is not Health.SERVING or not listed:
        raise typer.Exit(EXIT_FAILED)


def _words(health: Health) -> str:
    return health.name.lower().replace("_", " ")


def _show_embedders(answer: pb.ListEmbeddersResponse) -> None:
    rows = []
    for position, each in enumerate(answer.embedders):
        name = each.name + (" (default)" if position == 0 else "")
        rows.append((name, each.model, each.space, str(each.dimension), _kinds(each), _state(each)))
    print_table(("embedder", "model", "space", "dimension", "embeds", "state"), rows)
    if answer.rerankers:
        say()
        rerankers = ((each.name, each.model, _kinds(each), _state(each)) for each in answer.rerankers)
        print_table(("reranker", "model", "reads", "state"), rerankers)
    limits = answer.limits
    say()
    say(
        f"One call takes up to {limits.max_inputs} inputs or {limits.max_objects} objects in "
        f"{limits.max_request_bytes / MIB:g} MiB, and answers up to {limits.max_hits} hits in "
        f"{limits.max_response_bytes / MIB:g} MiB."
    )
    for each in answer.embedders:
        bounds = each.limits
        tokens = f" of {bounds.max_text_tokens} tokens" if bounds.max_text_tokens else ""
        say(
            f"{each.name} reads texts up to {bounds.max_text_bytes / 1024:g} KiB{tokens} and images up to "
            f"{bounds.max_image_bytes / MIB:g} MiB and {bounds.max_image_pixels / 1e6:g} megapixels."
        )


def _kinds(info: pb.EmbedderInfo | pb.RerankerInfo) -> str:
    names = (pb.Modality.Name(kind).removeprefix("MODALITY_").lower() for kind in info.modalities)
    return " and ".join(name.replace("_", " with ") for name in names)


def _state(info: pb.EmbedderInfo | pb.RerankerInfo) -> str:
    if info.health == pb.EMBEDDER_HEALTH_READY:
        return f"ready, but {info.health_detail}" if info.health_detail else "ready"
    return f"unavailable: {info.health_detail}".rstrip(": ")


def _show_work(client: Client) -> None:
    """Show queues, running batches and quotas, if the server reports them and this client may see them."""
    try:
        status = client.server_status()
    except Unreachable:
        raise
    except VecgateError as error:
        if error.code not in (StatusCode.PERMISSION_DENIED, StatusCode.UNIMPLEMENTED):
            raise
        return
    _show_server(status)
    say()
    _show_embedders_work(status)
    if status.rerankers:
        say()
        print_table(
            ("reranker", "searches waiting", "searches running", "breaker", "time of a call"),
            [
                (
                    each.name,
                    str(each.waiting_calls),
                    str(each.running_calls),
                    _asked(open_=each.breaker_open),
                    _mean(each.seconds),
                )
                for each in status.rerankers
            ],
        )
    if status.clients:
        say()
        _show_clients(status)
    say()


def _show_server(status: admin_pb.GetServerStatusResponse) -> None:
    up = status.observe_time.ToDatetime() - status.start_time.ToDatetime()
    since = timedelta(seconds=round(up.total_seconds()))
    processes = f"{status.workers} processes" if status.workers > 1 else "1 process"
    say(f"Release {status.release}, up for {since}, in {processes} with {status.resident_bytes / MIB:.0f} MiB.")
    if status.store.fault:
        say(f"Weaviate does not answer: {status.store.fault}")
        return
    nodes = ", ".join(f"{each.name} {each.status.lower()}" for each in status.store.nodes)
    searches = next((each.seconds for each in status.store.operations if each.name == "search"), None)
    took = "" if searches is None else f"; it takes {_mean(searches)} for a search on average"
    say(f"Weaviate {status.store.version}{f' ({nodes})' if nodes else ''}{took}.")


def _show_embedders_work(status: admin_pb.GetServerStatusResponse) -> None:
    rows = []
    for each in status.embedders:
        waits = f"{each.queued_inputs} inputs"
        if each.queued_inputs:
            since_s = each.oldest_wait.ToTimedelta().total_seconds()
            waits += f", {each.queued_bytes / MIB:.1f} MiB, the first since {since_s:.1f} s"
        looked_up = each.cache_hits + each.cache_joins + each.cache_misses
        cached = f"{(each.cache_hits + each.cache_joins) / looked_up:.0%}" if looked_up else ""
        running, asked = str(each.running_batches), _asked(open_=each.breaker_open)
        rows.append((each.name, waits, running, asked, _mean(each.backend_seconds), cached, str(each.embedded_inputs)))
    titles = ("embedder", "waiting", "batches running", "breaker", "time of a batch", "from the cache", "embedded")
    print_table(titles, rows)


def _show_clients(status: admin_pb.GetServerStatusResponse) -> None:
    rows = []
    for each in status.clients:
        left_s = each.retry_delay.ToTimedelta().total_seconds()
        quota = f"used up for {left_s:.1f} s" if each.HasField("retry_delay") else "free"
        calls = f"{each.calls} ({each.refused_calls} refused)" if each.refused_calls else str(each.calls)
        size = f"{each.request_bytes / MIB:.1f}"
        rows.append((each.name, calls, str(each.inputs), size, str(each.inputs_in_flight), _allowed(each), quota))
    print_table(("client", "calls", "inputs", "MiB", "inputs in flight", "may use", "quota"), rows)


def _allowed(client: admin_pb.ClientStatus) -> str:
    """Return a client's quota in words."""
    bounds = []
    if client.HasField("max_inputs_per_second"):
        bounds.append(f"{client.max_inputs_per_second:g} inputs a second")
    if client.HasField("max_bytes_per_second"):
        bounds.append(f"{client.max_bytes_per_second / MIB:g} MiB a second")
    if client.HasField("max_inputs_in_flight"):
        bounds.append(f"{client.max_inputs_in_flight} inputs in flight")
    return ", ".join(bounds) or "any"


def _mean(seconds: admin_pb.Histogram) -> str:
    """Return the mean of measured times; empty if there is none."""
    return f"{seconds.sum / seconds.count * 1000:.1f} ms" if seconds.count else ""


def _asked(*, open_: bool) -> str:
    return "not asked for a while, because it failed" if open_ else "asked"


def _show_collections(client: Client) -> bool:
    rows = []
    try:
        for each in client.list_collections():
            count = client.get_collection(each.name).object_count
            vectors = ", ".join(f"{vector.name} ({vector.space or 'not bound'})" for vector in each.vectors)
            rows.append((each.name, str(count), vectors))
    except Unreachable:
        raise
    except VecgateError as error:
        text, _ = describe_error(error, target=client.target)
        say(f"The collections cannot be listed: {text}")
        return False
    if rows:
        print_table(("collection", "objects", "vectors (space)"), rows)
    else:
        say("There are no collections.")
    return True
