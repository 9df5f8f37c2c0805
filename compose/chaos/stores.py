"""Reads every store by clients of others: Kafka, CQL, the Delta table, and Weir's own doors."""
import datetime
import json
import time
import urllib.parse

import confluent_kafka as kafka
import deltalake

import cluster as weir
import records

PAGE = 1_000


def topic(conf, name):
    """{partition: [(offset, payload)]} from the first record to the last there is now."""
    consumer = kafka.Consumer(conf | {"group.id": "chaos-reader", "enable.auto.commit": False, "enable.partition.eof": True})
    try:
        found, ends = {}, {}
        for partition in consumer.list_topics(name, timeout=30).topics[name].partitions:
            place = kafka.TopicPartition(name, partition, kafka.OFFSET_BEGINNING)
            low, high = consumer.get_watermark_offsets(place, timeout=30)
            found[partition] = []
            if high > low:
                ends[partition] = high
        consumer.assign([kafka.TopicPartition(name, partition, kafka.OFFSET_BEGINNING) for partition in ends])
        while ends:
            record = consumer.poll(30)
            if record is None:
                raise RuntimeError(f"{name} can't be read to its end")
            partition = record.partition()
            if record.error():
                # The end: behind the last record there may be offsets without one.
                ends.pop(partition, None)
                continue
            found[partition].append((record.offset(), record.value()))
            if partition in ends and record.offset() + 1 >= ends[partition]:
                ends.pop(partition)
        return found
    finally:
        consumer.close()


def decoded(topic, read):
    """The records that can be read; poison is for the dead letters."""
    found = {}
    for partition, rows in topic.items():
        found[partition] = []
        for offset, payload in rows:
            try:
                found[partition].append((offset, read(payload)))
            except (ValueError, KeyError, IndexError, UnicodeDecodeError):
                pass
    return found


def lake(folder):
    """Rows of the Delta table, by another Delta reader."""
    table = deltalake.DeltaTable(str(folder)).to_pyarrow_table(columns=["tenant", "message_id", "judged_at"])
    at = [int(moment.timestamp() * 1e6 + 0.5) if moment else None for moment in table["judged_at"].to_pylist()]
    return [((tenant, id), judged) for tenant, id, judged in zip(table["tenant"].to_pylist(), table["message_id"].to_pylist(), at)]


def sql(address, keys):
    """Rows that each tenant sees of its own."""
    rows = []
    for tenant, key in keys.items():
        last = ""
        while True:
            query = (f"SELECT message_id, CAST(judged_at AS BIGINT) FROM messages WHERE message_id >= '{last}' "
                     f"ORDER BY message_id LIMIT {PAGE}")
            status, body = weir.patiently(address, "/v1/sql", key, {"query": query})
            if status != 200:
                raise OSError(f"SQL answers {status}")
            page = json.loads(body)["rows"]
            # The last one again: it may be there twice.
            rows += [((tenant, id), at) for id, at in (page if len(page) < PAGE else [row for row in page if row[0] != page[-1][0]])]
            if len(page) < PAGE:
                break
            last = page[-1][0]
    return rows


def history_over_http(address, keys, expected):
    """By id, by channel and by sender, as a user reads it."""
    by_id, by_channel, by_sender, order = [], [], [], []
    for tenant, key in keys.items():
        mine = {id: value for (owner, id), value in expected.items() if owner == tenant}
        for id in mine:
            status, body = weir.patiently(address, f"/v1/messages/{urllib.parse.quote(id)}", key)
            if status == 200 and (found := json.loads(body))["status"] == "judged":
                by_id.append(((tenant, id), micros(found["verdict"]["judged_at"])))
                order += content((tenant, id), mine[id], found, "history by id")
        for kind, names, rows in (("channels", {value[0] for value in mine.values()}, by_channel),
                                  ("senders", {value[1] for value in mine.values() if value[1]}, by_sender)):
            for name in sorted(names):
                page = list(pages(address, key, f"/v1/{kind}/{urllib.parse.quote(name)}/messages"))
                rows += [((tenant, row["id"]), micros(row["verdict"]["judged_at"])) for row in page]
                order += [wrong for row in page if row["id"] in mine for wrong in content((tenant, row["id"]), mine[row["id"]], row, f"history by {kind}")]
                times = [row["received_at"] for row in page]
                if [micros(at) for at in times] != sorted((micros(at) for at in times), reverse=True):
                    order.append((f"{kind} out of order", (tenant, name)))
    return {"history by id": by_id, "history by channel": by_channel, "history by sender": by_sender}, order


def content(key, expected, row, name):
    """What a store says of a message that was acknowledged with another channel, sender or text."""
    found = (row["channel"], row.get("sender") or "", row["text"])
    return [] if found == expected else [(f"another channel, sender or text in {name}", key)]


def lake_content(folder, expected):
    """The same of every row of the Delta table."""
    table = deltalake.DeltaTable(str(folder)).to_pyarrow_table(columns=["tenant", "message_id", "channel", "sender", "text"])
    rows = ((row["tenant"], row["message_id"], row) for row in table.to_pylist())
    return [wrong for tenant, id, row in rows if (tenant, id) in expected for wrong in content((tenant, id), expected[tenant, id], row, "the lake")]


def pages(address, key, path):
    cursor = ""
    while True:
        status, body = weir.patiently(address, f"{path}?limit=200{cursor}", key)
        if status != 200:
            raise OSError(f"{path} answers {status}")
        page = json.loads(body)
        yield from page["messages"]
        if not page.get("next"):
            return
        cursor = "&cursor=" + urllib.parse.quote(page["next"])


def judged(address, key, id, seconds=60):
    """The message with its verdict, once it has one."""
    until = time.time() + seconds
    while time.time() < until:
        status, _, body = weir.ask(address, "GET", f"/v1/messages/{id}?wait=5", key)
        if status == 200 and (found := json.loads(body))["status"] == "judged":
            return found
    raise RuntimeError(f"{id} is not judged")


def sent(address, key, message, seconds=60):
    """Sends it until it is accepted."""
    until = time.time() + seconds
    while time.time() < until:
        try:
            if weir.ask(address, "POST", "/v1/messages", key, message)[0] in (200, 202):
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"{message['id']} is not accepted")


def accepted(address, key, message):
    """Sends it until it is accepted; when it was received, in microseconds."""
    sent(address, key, message)
    return micros(judged(address, key, message["id"])["received_at"])


def actions(address, keys):
    """How many of its messages have which verdict, as each tenant asks SQL."""
    counts = {}
    for tenant, key in keys.items():
        query = {"query": "SELECT action, count(*) FROM messages GROUP BY action"}
        status, body = weir.patiently(address, "/v1/sql", key, query)
        if status != 200:
            raise OSError(f"SQL answers {status}")
        counts |= {(tenant, action): number for action, number in json.loads(body)["rows"]}
    return counts


def micros(text):
    return int(datetime.datetime.fromisoformat(text).timestamp() * 1e6 + 0.5)


def wait(what, seconds, done):
    """Until `done` answers truth; what it can't do for now counts as not yet."""
    began, last = time.time(), None
    while time.time() - began < seconds:
        try:
            last = done()
            if last is True:
                return
        except (OSError, kafka.KafkaException, RuntimeError, deltalake.exceptions.DeltaError) as error:
            last = repr(error)[:200]
        time.sleep(1)
    raise RuntimeError(f"not within {seconds} s: {what} ({last})")
