"""What was acknowledged against what every store holds. No I/O: it is tested with made-up stores."""
import collections


def effective(verdicts):
    """The verdicts that count, by (tenant, id): of each source partition, in the order of the
    log, readers drop what is not above the last source offset that they hold.

    `verdicts`: {partition: [records.Verdict in the order of the log]}.
    """
    kept = collections.defaultdict(list)
    for partition in verdicts.values():
        fences = {}
        for verdict in partition:
            if verdict.offset > fences.get(verdict.partition, -1):
                fences[verdict.partition] = verdict.offset
                kept[verdict.message.tenant, verdict.message.id].append(verdict)
    return kept


def compare(expected, optional, log, verdicts, stores):
    """Every violation as (what, id), sorted.

    expected: {(tenant, id): (channel, sender, text)} of what was acknowledged.
    optional: ids whose request never got a clear answer: they may be there, once.
    log: {partition: [(offset, records.Message)]} of weir.messages.
    verdicts: see `effective`.
    stores: {name: [((tenant, id), judged_at or None)]}, a row for each that the store shows.
    """
    wrong = []
    logged = collections.defaultdict(list)
    for records in log.values():
        for _, message in records:
            logged[message.tenant, message.id].append(message)
    kept = effective(verdicts)
    for key, (channel, sender, text) in expected.items():
        if key not in logged:
            wrong.append(("acknowledged, not in weir.messages", key))
        elif (logged[key][0].channel, logged[key][0].sender, logged[key][0].text) != (channel, sender, text):
            wrong.append(("in weir.messages, but not what was acknowledged", key))
        if len(kept.get(key, ())) != 1:
            wrong.append((f"{len(kept.get(key, ()))} effective verdicts", key))
    for key, found in kept.items():
        if key not in expected and key not in optional:
            wrong.append(("judged, never sent", key))
        if key in optional and len(found) > 1:
            wrong.append((f"{len(found)} effective verdicts", key))
    for name, rows in stores.items():
        held = collections.defaultdict(list)
        for key, judged_at in rows:
            held[key].append(judged_at)
        for key in expected:
            if len(held.get(key, ())) != 1:
                wrong.append((f"{len(held.get(key, ()))} rows in {name}", key))
        for key, found in held.items():
            if key not in expected and (key not in optional or len(found) > 1):
                wrong.append((f"{len(found)} rows in {name} of what was not acknowledged", key))
            judged = {at for at in found if at is not None}
            if key in kept and judged - {kept[key][0].judged_at}:
                wrong.append((f"another verdict in {name} than in weir.verdicts", key))
    return sorted(set(wrong))


def answered(judged, verdicts):
    """Messages whose second send was answered with another verdict than the one that counts.

    judged: {(tenant, id): {judged_at of each answer}}; verdicts: see `effective`.
    """
    kept = effective(verdicts)
    return [("a second send was answered with another verdict", key) for key, moments in judged.items()
            if moments != {verdict.judged_at for verdict in kept.get(key, ())}]


def out_of_order(sent, log):
    """Messages that lie in the log before one that was acknowledged earlier.

    sent: {(tenant, channel): [ids in the order in which they were acknowledged, each sent after that]}.
    """
    first = {}
    for records in log.values():
        for offset, message in records:
            first.setdefault((message.tenant, message.channel, message.id), offset)
    wrong = []
    for (tenant, channel), ids in sent.items():
        last = -1
        for id in ids:
            offset = first.get((tenant, channel, id), last)
            if offset < last:
                wrong.append(("before one that was acknowledged earlier", (tenant, id)))
            last = max(last, offset)
    return wrong


def dead_letters(found, expected):
    """Dead letters against those that had to come, each a (stage, reason, topic, partition, offset).

    A stage that went down may have written one twice; readers fold them.
    """
    found = {(d.stage, d.reason, d.topic, d.partition, d.offset) for d in found}
    missing = [("no dead letter", place) for place in sorted(expected - found)]
    return missing + [("an unexpected dead letter", place) for place in sorted(found - expected)]
