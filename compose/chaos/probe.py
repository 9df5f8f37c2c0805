"""How long a message waits for its verdict, asked of every partition all the time."""
import collections
import json
import threading
import time

import cluster
import records
import stores

# Names to choose from: enough that each partition gets one.
NAMES = 64
# Partitions that are probed, at most.
MOST = 8


def longest(finished, unfinished, since, now):
    """The longest wait of those that were under way at `since` or later.

    finished: [(began, seconds)]; unfinished: [began] of those that still wait, which count with their age.
    """
    waits = [seconds for began, seconds in finished if began + seconds >= since]
    return max(waits + [now - began for began in unfinished], default=0)


def one_each(placed):
    """Of {channel: partition}, the first channel of each partition."""
    chosen = {}
    for channel, partition in sorted(placed.items()):
        chosen.setdefault(partition, channel)
    return [channel for _, channel in sorted(chosen.items())]


def channels(target, tenant, key, ledger):
    """Channels of which each lies in another partition: a message to each of many shows where they lie."""
    for number in range(NAMES):
        channel = f"probe-{number:02}"
        message = {"id": f"scout-{number:02}", "channel": channel, "sender": "prober", "text": "where am I"}
        ledger.sending((tenant, message["id"]), (channel, "prober", message["text"]))
        stores.sent(target.doors()[0].address, key, message)
        ledger.acknowledge((tenant, message["id"]), (channel, "prober", message["text"]))
    log = stores.decoded(stores.topic(target.kafka(), "weir.messages"), records.message)
    placed = {message.channel: partition for partition, rows in log.items() for _, message in rows
              if message.tenant == tenant and message.channel.startswith("probe-")}
    chosen = one_each(placed)[:MOST]
    if len(chosen) < min(len(log), MOST):
        raise RuntimeError(f"probes reach {len(chosen)} of {len(log)} partitions")
    return chosen


class Probers:
    """One for each partition, so that a partition that stands still is seen."""

    def __init__(self, target, tenant, key, ledger):
        self.each = [Prober(target, tenant, key, ledger, channel) for channel in channels(target, tenant, key, ledger)]

    def start(self):
        for prober in self.each:
            prober.start()

    def stop(self):
        for prober in self.each:
            prober.done.set()
        for prober in self.each:
            prober.join()

    def waits(self):
        """[(began, seconds)] of every probe that has its verdict."""
        return [wait for prober in self.each for wait in list(prober.waits)]

    def longest(self, since):
        waiting = [prober.waiting for prober in self.each]
        return longest(self.waits(), [began for began in waiting if began is not None], since, time.time())

    def passed(self, moment):
        """Whether every partition had a verdict for what was sent after that moment."""
        return all(prober.waits and prober.waits[-1][0] >= moment for prober in self.each)


class Prober(threading.Thread):
    """Sends a message now and then and waits for its verdict: how long from here to there."""

    def __init__(self, target, tenant, key, ledger, channel):
        super().__init__(daemon=True)
        self.target, self.tenant, self.key, self.ledger, self.channel = target, tenant, key, ledger, channel
        # When the one began that still waits.
        self.done, self.waits, self.waiting = threading.Event(), [], None

    def run(self):
        number = 0
        while not self.done.wait(0.25):
            number += 1
            message = {"id": f"{self.channel}-{number:05}", "channel": self.channel, "sender": "prober", "text": "is anybody there"}
            key, value = (self.tenant, message["id"]), (self.channel, "prober", message["text"])
            self.waiting = began = time.time()
            self.ledger.sending(key, value)
            while not self.done.is_set():
                door = self.target.doors()[number % len(self.target.doors())]
                try:
                    status, headers, _ = cluster.ask(door.address, "POST", "/v1/messages", self.key, message)
                    self.ledger.answer(status, headers)
                    if status in (200, 202):
                        self.ledger.acknowledge(key, value)
                        if self.judged(message["id"]):
                            self.waits.append((began, time.time() - began))
                            break
                except OSError:
                    pass
                time.sleep(0.1)
            self.waiting = None

    def judged(self, id):
        while not self.done.is_set():
            door = self.target.doors()[0]
            try:
                status, _, body = cluster.ask(door.address, "GET", f"/v1/messages/{id}?wait=2", self.key)
                if status == 200 and json.loads(body)["status"] == "judged":
                    return True
            except OSError:
                pass
            time.sleep(0.1)
        return False


class Counts(threading.Thread):
    """Asks SQL of lake and tail, while both move, whether anything is there twice: every process that answers
    it, for every tenant. What is away need not answer."""

    QUERY = {"query": "SELECT count(*), count(DISTINCT message_id) FROM messages"}

    def __init__(self, target, keys, violated, pause=4):
        super().__init__(daemon=True)
        self.target, self.keys, self.violated, self.pause = target, keys, violated, pause
        self.done, self.answers = threading.Event(), collections.Counter()

    def run(self):
        while not self.done.wait(self.pause):
            for process in self.target.queries():
                for tenant, key in self.keys.items():
                    self.ask(process, tenant, key)

    def ask(self, process, tenant, key):
        try:
            status, _, body = cluster.ask(process.address, "POST", "/v1/sql", key, self.QUERY)
        except OSError:
            status = "no answer"
        self.answers[status] += 1
        if status == 200:
            rows, ids = json.loads(body)["rows"][0]
            if rows != ids:
                self.violated([(f"SQL of {process.name} counts {rows} rows of {ids} messages", (tenant, ""))])
        elif status not in (429, 503, 504, "no answer"):
            self.violated([(f"SQL of {process.name} answers {status}", (tenant, ""))])

    def stop(self):
        self.done.set()
        self.join()
        if not self.answers[200]:
            self.violated([("SQL never answered while something was broken", ("", ""))])
