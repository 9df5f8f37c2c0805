"""Messages that no good producer sends: records that can't be read, that another version wrote, or whose
times lie far away. Each function is a fault, as those of `faults`."""
import json
import time

import confluent_kafka as kafka

import cluster
import compare
import records
import stores

# Records as the first version encoded them, which every later one must read.
FIRST_VERSION = cluster.ROOT / "schemas/records/tests/it/v1"
DAY = 86_400
# What each reader of verdicts counts as dropped because it holds it.
DROPPED = {"the history": "weir_history_replays_total", "the lake": "weir_lake_replays_total", "the tail": "weir_tail_repeated_total"}
# How long it may take until each has met a late verdict, in seconds.
MET = 60


def poison(run):
    """records that can't be processed; one of a later version and two of the first, which can; verdicts that come late"""
    # On its way through a restart of the broker it need not tell that it is away.
    producer = kafka.Producer(run.cluster.kafka() | {"log_level": 2})

    def put(topic, key, value, partition=-1):
        place = []
        producer.produce(topic, value, key, partition, on_delivery=lambda error, record: place.append((error, record)))
        if producer.flush(60) or place[0][0]:
            raise RuntimeError("the poison could not be placed")
        return topic, place[0][1].partition(), place[0][1].offset()

    now, number = int(time.time() * 1e6), run.rounds["poison"]
    tenant = next(iter(run.keys))
    run.dead.add(("process", "malformed_record", *put("weir.messages", b"poison", b"\xff" * 8)))
    run.dead.add(("process", "missing_field", *put("weir.messages", b"poison", records.encode([(1, 1), (2, tenant)]))))
    unknown = records.new_message(tenant, "poison", f"unknown-{number}", "nobody can read this", now, schema=2, more=[(15, 2)])
    run.dead.add(("process", "unknown_schema", *put("weir.messages", b"poison", unknown)))
    place = put("weir.verdicts", b"poison", b"\xff\xff\xff\xff")
    run.dead |= {(stage, "malformed_record", *place) for stage in ("history", "lake")}
    id, text = f"later-{number}", "a message of a later version"
    put("weir.messages", b"later", records.new_message(tenant, "later", id, text, now, schema=2, more=[(99, "more")]))
    run.ledger.acknowledge((tenant, id), ("later", "", text), ordered=False)
    for name in ("message", "message_bare"):
        # As the first version wrote it, but for whose it is and when it came.
        fields = records.fields((FIRST_VERSION / f"{name}.bin").read_bytes())
        id, channel = f"first-{name}-{number}", "first"
        put("weir.messages", b"first", records.encode((fields | {2: tenant, 3: channel, 5: id, 8: now}).items()))
        run.ledger.acknowledge((tenant, id), (channel, fields.get(4, b"").decode(), fields[6].decode()), ordered=False)
    # A key longer than a store takes; the lake takes it.
    id = f"refused-{number}"
    put("weir.messages", b"refused", records.new_message(tenant, "x" * 70_000, id, "too long a channel", now))
    run.refused.add((tenant, id))
    late(run, put)


def late(run, put):
    """The oldest and the newest verdict of each partition again, but another one, as from a processor that was
    away for long and judges otherwise: each reader must drop it, and each door go on to answer the first."""
    # A door that has forgotten the first one.
    run.cluster.doors()[0].restart()
    # The counters of a process begin with it.
    run.cluster.wait_ready()
    before = {reader: run.cluster.metric(series) for reader, series in DROPPED.items()}
    rows = stores.decoded(stores.topic(run.cluster.kafka(), "weir.verdicts"), lambda payload: (records.verdict(payload), payload))
    kept = compare.effective({partition: [verdict for _, (verdict, _) in found] for partition, found in rows.items()})
    first = {}
    for partition, found in rows.items():
        good = []
        for _, (verdict, payload) in found:
            key = (verdict.message.tenant, verdict.message.id)
            if key in run.ledger.acknowledged and verdict in kept[key]:
                good.append((key, verdict, payload))
        for key, verdict, payload in dict.fromkeys((good[0], good[-1]) if good else ()):
            put("weir.verdicts", b"late", records.another_verdict(payload, int(time.time() * 1e6)), partition)
            first[key] = verdict.judged_at
    until = time.time() + MET
    met = lambda reader, series: run.cluster.metric(series) - before[reader] >= len(first)
    for reader, series in DROPPED.items():
        while not met(reader, series) and time.time() < until:
            time.sleep(0.2)
        if not met(reader, series):
            run.violated([(f"a late verdict that {reader} did not drop", next(iter(first), ("", "")))])
    # The doors follow the verdicts without counting them.
    time.sleep(1)
    for door in run.cluster.doors():
        for key, judged_at in first.items():
            found = stores.judged(door.address, run.keys[key[0]], key[1])
            if stores.micros(found["verdict"]["judged_at"]) != judged_at:
                run.violated([("a door answers a late verdict", key)])
    run.remarks.append(f"Late verdicts, of messages that had one: {len(first)}.")


def stamps(run):
    """messages stamped in the far past or future"""
    now, number = time.time(), run.rounds["stamps"]
    tenant = next(iter(run.keys))
    far = [now - 30 * DAY, now + 3_600, "1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z", 0, 2**63 - 1, -2**62]
    near = [now - 6 * DAY, now + 60]
    for door in run.cluster.doors():
        message = lambda kind, at, stamp: {
            "id": f"{kind}-{number}-{door.name}-{at}", "channel": "stamped", "sender": "clock", "text": "when was this",
            "sent_at": int(stamp * 1_000) if isinstance(stamp, float) else stamp}
        refused = [message("far", at, stamp) for at, stamp in enumerate(far)]
        for one in refused:
            status, body = asked(door, run.keys[tenant], "/v1/messages", one)
            problem = json.loads(body)
            if status != 400 or problem.get("field") != "sent_at" or not problem.get("detail"):
                run.violated([(f"{status} and no reason to a message stamped {one['sent_at']}", (tenant, one["id"]))])
        # In a batch, what is beside it passes.
        good = [message("near", at, stamp) for at, stamp in enumerate(near)]
        value = lambda one: (one["channel"], one["sender"], one["text"])
        for one in good:
            run.ledger.sending((tenant, one["id"]), value(one))
        status, body = asked(door, run.keys[tenant], "/v1/messages/batch", refused + good)
        results = json.loads(body).get("results", [])
        for one, result in zip(refused, results):
            if result["status"] != "rejected" or result["problem"].get("field") != "sent_at" or not result["problem"].get("detail"):
                run.violated([(f"{result['status']} in a batch: a message stamped {one['sent_at']}", (tenant, one["id"]))])
        for one, result in zip(good, results[len(refused):]):
            if result["status"] in cluster.TAKEN:
                run.ledger.acknowledge((tenant, one["id"]), value(one), ordered=False)
        taken = [result["status"] in cluster.TAKEN for result in results[len(refused):]]
        if taken != [True] * len(good):
            run.violated([(f"{status} to a batch: what was stamped well beside what was not is not accepted", (tenant, good[0]["id"]))])


def asked(door, key, path, body, seconds=60):
    """(status, body) of a request, again while the door is overloaded or away."""
    until = time.time() + seconds
    while time.time() < until:
        try:
            status, _, answer = cluster.ask(door.address, "POST", path, key, body)
            if status not in (429, 503):
                return status, answer
        except OSError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"{door.name} refuses {path}")


def clock_back(run):
    """the clock set back: a message is there that was received 50 minutes from now"""
    # What a door whose clock was ahead has accepted; the same as a clock that went back since.
    tenant, id = next(iter(run.keys)), f"ahead-{run.rounds['clock_back']}"
    ahead, text = int((time.time() + 3_000) * 1e6), "received by a clock that was ahead"
    record = records.new_message(tenant, "ahead", id, text, ahead)
    producer = kafka.Producer(run.cluster.kafka())
    producer.produce("weir.messages", record, b"ahead")
    if producer.flush(60):
        raise RuntimeError("the message could not be placed")
    run.ledger.acknowledge((tenant, id), ("ahead", "", text), ordered=False)
    stores.judged(run.cluster.doors()[0].address, run.keys[tenant], id)
    time.sleep(1)
    for again in (False, True):
        for door in run.cluster.doors():
            if again:
                door.restart()
                run.cluster.wait_ready()
            later = {"id": f"{id}-{door.name}-{again}", "channel": "ahead", "text": "received later", "sender": "clock"}
            key = (tenant, later["id"])
            run.ledger.sending(key, ("ahead", "clock", "received later"))
            received = stores.accepted(door.address, run.keys[tenant], later)
            run.ledger.acknowledge(key, ("ahead", "clock", "received later"), ordered=False)
            if received < ahead:
                run.violated([(f"received before an earlier message{' after a restart' if again else ''}", key)])
