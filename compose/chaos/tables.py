"""The tables of the history in the database: read by Cassandra's own client, and compared with each
other and with the log. What they hold is told in `schemas/store/src/cql/mod.rs`."""
import contextlib
import time

import records

# The minute of a bucket that holds a whole day.
WHOLE_DAY = -1
# How long a database that was broken lately, on a busy machine, may take for one request, and in all.
REQUEST, PATIENCE = 60, 180


@contextlib.contextmanager
def database(port):
    """A session; what goes wrong in it is an OSError, as with every other store."""
    from cassandra import DriverException
    from cassandra.cluster import Cluster, NoHostAvailable
    from cassandra.query import tuple_factory
    nodes = Cluster(["127.0.0.1"], port=port, protocol_version=5, connect_timeout=REQUEST, control_connection_timeout=REQUEST)
    try:
        session = nodes.connect("weir_chaos")
        session.row_factory, session.default_timeout = tuple_factory, REQUEST
        yield session
    except (DriverException, NoHostAvailable) as error:
        raise OSError(f"the database: {error!r}") from None
    finally:
        nodes.shutdown()


def execute(port, *statements):
    """The rows of each, all of them again while the database does not answer."""
    until = time.time() + PATIENCE
    while True:
        try:
            with database(port) as session:
                return [[tuple(row) for row in session.execute(statement)] for statement in statements]
        except OSError:
            if time.time() > until:
                raise
            time.sleep(1)


def held(port):
    """Whose record is there."""
    return {(tenant, id) for tenant, id, record in execute(port, "SELECT tenant, id, record FROM messages")[0] if record}


def read(port):
    """{table: its rows}, whole."""
    columns = {
        "sources": "tenant, id, source", "messages": "tenant, id, record, text", "list_days": "kind, tenant, name, day",
        "channel_messages": "tenant, channel, day, minute, source_partition, source_offset, id",
        "sender_messages": "tenant, sender, day, minute, source_partition, source_offset, id",
        "list_minutes": "kind, tenant, name, day, minute", "fences": "source_partition, source_offset"}
    return dict(zip(columns, execute(port, *(f"SELECT {names} FROM {table}" for table, names in columns.items()))))


def rows(tables):
    """A row for each message that a table shows, as `compare.compare` takes them."""
    found = {"table sources": [((tenant, id), None) for tenant, id, _ in tables["sources"]],
             "table messages": [((tenant, id), records.fields(records.fields(record)[3]).get(8))
                                for tenant, id, record, _ in tables["messages"]],
             "table channel_messages": [((row[0], row[-1]), None) for row in tables["channel_messages"]],
             "table sender_messages": [((row[0], row[-1]), None) for row in tables["sender_messages"]]}
    return found


def wrong(tables, expected, kept):
    """Violations as (what, id).

    expected: {(tenant, id): (channel, sender, text)} of what was acknowledged; kept: see `compare.effective`.
    """
    found, place = [], {key: (verdicts[0].partition, verdicts[0].offset) for key, verdicts in kept.items()}
    for tenant, id, source in tables["sources"]:
        if (tenant, id) in place and tuple(source) != place[tenant, id]:
            found.append(("another source in table sources than in weir.verdicts", (tenant, id)))
    for tenant, id, _, text in tables["messages"]:
        if (tenant, id) in expected and text != expected[tenant, id][2]:
            found.append(("another text in table messages", (tenant, id)))
    days, minutes = set(tables["list_days"]), set(tables["list_minutes"])
    for at, kind in enumerate(("channel", "sender")):
        name = f"table {kind}_messages"
        for tenant, list, day, minute, partition, offset, id in tables[f"{kind}_messages"]:
            if (tenant, id) in expected and list != expected[tenant, id][at]:
                found.append((f"another {kind} in {name}", (tenant, id)))
            if (tenant, id) in place and (partition, offset) != place[tenant, id]:
                found.append((f"another source in {name} than in weir.verdicts", (tenant, id)))
            if (kind, tenant, list, day) not in days:
                found.append((f"a day of {name} that table list_days does not have", (tenant, id)))
            if minute != WHOLE_DAY and (kind, tenant, list, day, minute) not in minutes:
                found.append((f"a minute of {name} that table list_minutes does not have", (tenant, id)))
    # Behind the fence everything is there, and nothing is there that was not judged.
    fences, least, most = dict(tables["fences"]), {}, {}
    for key, (partition, offset) in place.items():
        most[partition] = max(most.get(partition, -1), offset)
        if key in expected:
            least[partition] = max(least.get(partition, -1), offset)
    for partition in sorted(most.keys() | fences.keys()):
        if not least.get(partition, -1) <= fences.get(partition, -1) <= most.get(partition, -1):
            found.append((f"fence at {fences.get(partition)}, and not from {least.get(partition)} to {most.get(partition)}", ("", partition)))
    return found


def refusing(port, yes):
    """Asks for more replicas than there are nodes: the database then refuses each request of a quorum, and
    goes on when the one node is enough again."""
    execute(port, "ALTER KEYSPACE weir_chaos WITH replication = "
                  f"{{'class': 'NetworkTopologyStrategy', 'datacenter1': {3 if yes else 1}}}")
