"""Weir's own counters against what happened while nothing else did: before anything is broken, and after all is."""
import time

import cluster

# Messages that are sent one by one, in one batch, once more, and with another text.
SINGLE, BATCH, AGAIN, OTHER = 20, 10, 5, 3
MOVES = {
    "weir_messages_accepted_total": SINGLE + BATCH + AGAIN,
    "weir_messages_repeated_total": AGAIN,
    "weir_messages_refused_total": OTHER,
    "weir_verdicts_total": SINGLE + BATCH,
    "weir_history_rows_total": SINGLE + BATCH,
    "weir_lake_rows_total": SINGLE + BATCH,
}


def counters(run, when):
    """Sends some messages and waits until every counter, over all processes, has moved by just that."""
    tenant, key = next(iter(run.keys.items()))
    doors = run.cluster.doors()
    now = lambda: {series: run.cluster.metric(series) for series in MOVES}
    message = lambda at: {"id": f"counted-{when}-{at:02}", "channel": f"counted-{at % 4}", "sender": "counter", "text": "how many of us"}
    before = now()

    def send(door, path, body, wanted):
        status, _, _ = cluster.ask(door.address, "POST", path, key, body)
        if status not in wanted:
            run.violated([(f"{status} to a message that is counted, {when}", (tenant, body[0]["id"] if isinstance(body, list) else body["id"]))])

    def acknowledged(one):
        run.ledger.acknowledge((tenant, one["id"]), (one["channel"], one["sender"], one["text"]), ordered=False)

    # What is sent again goes to the door that knows of it.
    for at in range(SINGLE):
        door, one = doors[at % len(doors)], message(at)
        send(door, "/v1/messages", one, (202,))
        acknowledged(one)
        if at < AGAIN:
            send(door, "/v1/messages", one, (200, 202))
        if at < OTHER:
            send(door, "/v1/messages", one | {"text": "not what was said"}, (409,))
    batch = [message(at) for at in range(SINGLE, SINGLE + BATCH)]
    send(doors[0], "/v1/messages/batch", batch, (200, 202))
    for one in batch:
        acknowledged(one)

    moved = lambda: {series: number - before[series] for series, number in now().items()}
    until = time.time() + run.options.patience
    while any(moved()[series] < number for series, number in MOVES.items()) and time.time() < until:
        time.sleep(0.5)
    # One that is counted twice may come a little later.
    time.sleep(1)
    found = moved()
    run.violated([(f"{series} moved by {found[series]:.0f} and not by {number}, {when}", ("", ""))
                  for series, number in MOVES.items() if found[series] != number])
