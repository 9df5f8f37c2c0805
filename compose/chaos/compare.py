"""What was acknowledged against what every store holds. No I/O: it is tested with made-up stores."""
import collections

UNNAMED = "?"


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


def repeats(verdicts):
    """How many records of weir.verdicts do not count."""
    return sum(map(len, verdicts.values())) - sum(map(len, effective(verdicts).values()))


def said(message):
    return message.channel, message.sender, message.text


def by_key(log):
    """{(tenant, id): [what each record of it in weir.messages says]}"""
    logged = collections.defaultdict(list)
    for rows in log.values():
        for _, message in rows:
            logged[message.tenant, message.id].append(said(message))
    return logged


def certain(acknowledged, unclear, log):
    """What must be judged, and be once in every store: what was acknowledged, and of what never got a clear
    answer, that which weir.messages has. Both {(tenant, id): (channel, sender, text)}; of what was sent without
    an id the log says which one Weir gave it, and its id here begins with `UNNAMED`."""
    logged = by_key(log)
    given = {(key[0], value): key for key, values in logged.items() if key not in acknowledged for value in values}
    key_of = lambda key, value: given.get((key[0], value)) if key[1].startswith(UNNAMED) else key
    found = {key_of(key, value): value for key, value in unclear.items()}
    return acknowledged | {key: value for key, value in found.items() if key in logged}


def compare(expected, optional, log, verdicts, stores):
    """Every violation as (what, id), sorted.

    expected: see `certain`. optional: ids that stores may refuse: they are there once, or not.
    log: {partition: [(offset, records.Message)]} of weir.messages.
    verdicts: see `effective`.
    stores: {name: [((tenant, id), judged_at or None)]}, a row for each that the store shows. Those that list
    by sender show what has one.
    """
    wrong = []
    logged, kept = by_key(log), effective(verdicts)
    for key, value in expected.items():
        if key not in logged:
            wrong.append(("acknowledged, not in weir.messages", key))
        # The others of them are another's under the same id.
        elif value not in logged[key]:
            wrong.append(("in weir.messages, but not what was acknowledged", key))
        if len(kept.get(key, ())) != 1:
            wrong.append((f"{len(kept.get(key, ()))} effective verdicts", key))
        elif said(kept[key][0].message) != value:
            wrong.append(("judged, but not what was acknowledged", key))
    for key, found in kept.items():
        if key not in expected and key not in optional:
            wrong.append(("judged, never sent", key))
        if key in optional and len(found) > 1:
            wrong.append((f"{len(found)} effective verdicts", key))
    named = {key for key, value in expected.items() if value[1]}
    for name, rows in stores.items():
        held = collections.defaultdict(list)
        for key, judged_at in rows:
            held[key].append(judged_at)
        wanted = named if "sender" in name else expected
        for key in wanted:
            if len(held.get(key, ())) != 1:
                wrong.append((f"{len(held.get(key, ()))} rows in {name}", key))
        for key, found in held.items():
            if key not in wanted and (key not in optional or len(found) > 1):
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
