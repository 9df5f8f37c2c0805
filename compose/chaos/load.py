"""Producers: they send real comments, retry with the same id until they are acknowledged, and
remember what was. Texts stay in this process; reports and logs name ids only."""
import collections
import json
import random
import threading
import time
import types

import cluster
import stores
from compare import UNNAMED

# How many of the single messages are sent without an id, as by a client that can't choose one.
WITHOUT_ID = 0.25
SAMPLE = cluster.ROOT / "compose/sample/comments.jsonl"


class Ledger:
    """What was acknowledged, and what never got a clear answer."""

    def __init__(self):
        self.lock = threading.Lock()
        self.acknowledged = {}
        self.unclear = {}
        self.order = collections.defaultdict(list)
        self.answers = collections.Counter()
        self.faults = []
        # When the verdicts were given that second sends were answered with.
        self.judged = collections.defaultdict(set)
        # Other texts under an id that was taken, by how the door answered.
        self.conflicts = collections.Counter()
        # When a message was accepted, and how long that took, in seconds.
        self.accepted = []
        self.last_ack = time.time()
        self.longest_silence = 0.0

    def sending(self, key, value):
        with self.lock:
            self.unclear[key] = value

    def acknowledge(self, key, value, ordered=True):
        with self.lock:
            now = time.time()
            self.longest_silence = max(self.longest_silence, now - self.last_ack)
            self.last_ack = now
            self.unclear.pop(key, None)
            if key not in self.acknowledged:
                self.acknowledged[key] = value
                if ordered:
                    self.order[key[0], value[0]].append(key[1])

    def add(self, other):
        """What producers in another process have seen."""
        with self.lock:
            for name in ("acknowledged", "order", "unclear", "answers", "conflicts"):
                getattr(self, name).update(other[name])
            self.faults += other["faults"]
            self.accepted += other["accepted"]
            for key, moments in other["judged"].items():
                self.judged[key] |= moments

    def answer(self, status, headers, seconds=None):
        with self.lock:
            self.answers[status] += 1
            if status in (200, 202) and seconds is not None:
                self.accepted.append((time.time(), seconds))
            if status in (429, 503) and not headers.get("Retry-After"):
                self.faults.append((f"{status} without Retry-After", ("", "")))


class Producer(threading.Thread):
    """One loop: each message only after the one before was acknowledged, to any door."""

    def __init__(self, number, seed, target, keys, ledger, rate):
        super().__init__(daemon=True)
        self.number, self.target, self.keys, self.ledger = number, target, keys, ledger
        self.random, self.pause = random.Random(seed * 1_000 + number), 1 / rate
        self.texts = [json.loads(line)["text"].strip() for line in SAMPLE.read_text().splitlines()]
        self.done, self.count, self.batch = threading.Event(), 0, 20 if number % 4 == 3 else 1

    def run(self):
        try:
            self.produce()
        except Exception as error:
            # A producer that has ended sends nothing, and nothing goes wrong with nothing.
            self.ledger.faults.append((f"a producer broke off: {error!r}", ("", f"p{self.number}")))

    def produce(self):
        due = time.time()
        while not self.done.is_set():
            due = max(due + self.pause * self.batch, time.time() - 1)
            time.sleep(max(0, due - time.time()))
            tenant = self.random.choice(list(self.keys))
            channel = self.channel()
            if self.batch == 1 and self.random.random() < WITHOUT_ID:
                self.send_without_id(tenant, self.message(channel))
                continue
            messages = [self.message(channel) for _ in range(self.batch)]
            self.send(tenant, messages)
            dice = self.random.random()
            if dice < 0.1:
                # A client that did not hear the answer.
                self.send(tenant, messages)
            elif dice < 0.2:
                # The same ids belong to another tenant as well.
                other = next(name for name in self.keys if name != tenant)
                self.send(other, [message | {"text": f"{message['text']} ({other})"} for message in messages])
            elif dice < 0.23 and not self.done.is_set():
                self.conflict(tenant, messages[0])

    def send_without_id(self, tenant, message):
        """Once: sent again it would be another message. The text tells which it is, should no answer come."""
        own = UNNAMED + message.pop("id")
        message["text"] = f"{message['text']} ({own})"
        value = (message["channel"], message["sender"], message["text"])
        self.ledger.sending((tenant, own), value)
        began = time.time()
        try:
            status, headers, body = cluster.ask(self.random.choice(self.target.doors()).address, "POST", "/v1/messages", self.keys[tenant], message)
        except OSError:
            self.ledger.answers["no answer"] += 1
            time.sleep(0.1)
            return
        self.ledger.answer(status, headers, time.time() - began)
        if status in (200, 202):
            with self.ledger.lock:
                del self.ledger.unclear[tenant, own]
            id = json.loads(body)["id"]
            self.ledger.acknowledge((tenant, id), value)
            if self.random.random() < 0.1:
                # Under the id that it was given, it is the same message.
                self.send(tenant, [message | {"id": id}])
        elif status in (429, 503):
            time.sleep(min(float(headers.get("Retry-After") or 0.1), 1))
        else:
            self.ledger.faults.append((f"{status} to a good message", (tenant, own)))

    def conflict(self, tenant, message):
        """Another text under an id that is taken, here or in another channel: refused, or given up with a letter;
        nothing is sent again."""
        other = message | {"text": f"not what was said: {message['text']}"}
        if self.random.random() < 0.5 and self.stored(tenant, message):
            other["channel"] = self.channel(but=message["channel"])
        try:
            status, headers, _ = cluster.ask(self.random.choice(self.target.doors()).address, "POST", "/v1/messages", self.keys[tenant], other)
        except OSError:
            status, headers = "no answer", {}
        self.ledger.answer(status, headers)
        self.ledger.conflicts[status] += 1
        if status not in (202, 409, 429, 503, "no answer"):
            self.ledger.faults.append((f"{status} to another text under the same id", (tenant, message["id"])))

    def channel(self, but=None):
        """A channel belongs to one producer: only so its order can be told."""
        return self.random.choice([name for name in (f"channel-{self.number}-{at}" for at in range(4)) if name != but])

    def stored(self, tenant, message, seconds=2):
        """Whether the history has it within that time: before, two channels at once may both get a verdict, as
        `processors` tells. A page of the channel comes from nowhere else."""
        until = time.time() + seconds
        while time.time() < until:
            try:
                status, _, body = cluster.ask(self.random.choice(self.target.doors()).address, "GET",
                                              f"/v1/channels/{message['channel']}/messages?limit=200", self.keys[tenant])
                if status == 200 and any(row["id"] == message["id"] for row in json.loads(body)["messages"]):
                    return True
            except OSError:
                pass
            time.sleep(0.2)
        return False

    def message(self, channel):
        self.count += 1
        text = self.random.choice(self.texts)
        return {"id": f"p{self.number}-{self.count:06}", "channel": channel, "text": text,
                "sender": f"sender-{self.random.randrange(50)}"}

    def send(self, tenant, messages):
        """Until each is acknowledged; one after the other is sent, so that a batch may come in pieces."""
        value = lambda message: (message["channel"], message["sender"], message["text"])
        for message in messages:
            if (tenant, message["id"]) not in self.ledger.acknowledged:
                self.ledger.sending((tenant, message["id"]), value(message))
        left = messages
        while left and not self.done.is_set():
            door, began = self.random.choice(self.target.doors()), time.time()
            try:
                if len(left) == 1:
                    status, headers, body = cluster.ask(door.address, "POST", "/v1/messages", self.keys[tenant], left[0])
                    results = [json.loads(body)] if status in (200, 202) else [None]
                else:
                    status, headers, body = cluster.ask(door.address, "POST", "/v1/messages/batch", self.keys[tenant], left)
                    results = json.loads(body).get("results", [None] * len(left)) if status < 300 else [None] * len(left)
            except OSError:
                self.ledger.answers["no answer"] += 1
                time.sleep(0.1)
                continue
            self.ledger.answer(status, headers, time.time() - began)
            if status not in (200, 202, 429, 503):
                self.ledger.faults.append((f"{status} to a good message", (tenant, left[0]["id"])))
                return
            again = []
            for message, result in zip(left, results):
                if result and result["status"] in cluster.TAKEN:
                    if "verdict" in result:
                        with self.ledger.lock:
                            self.ledger.judged[tenant, message["id"]].add(stores.micros(result["verdict"]["judged_at"]))
                    # Pieces of a batch that were accepted at another time are in no order.
                    self.ledger.acknowledge((tenant, message["id"]), value(message), ordered=len(left) == len(messages) and not again)
                elif result and result["status"] == "rejected":
                    self.ledger.faults.append(("a good message was rejected", (tenant, message["id"])))
                else:
                    again.append(message)
            left = again
            if left:
                time.sleep(min(float(headers.get("Retry-After") or 0.1), 1))


def flood(addresses, seed, keys, first, number, rate, begins, seconds):
    """Producers in a process of their own, so that they take no time from those that are measured; a
    ledger's content is the answer. `first`: the number of the first one; `rate`: of all of them."""
    ledger, doors = Ledger(), [types.SimpleNamespace(address=address) for address in addresses]
    target = types.SimpleNamespace(doors=lambda: doors)
    producers = [Producer(first + n, seed, target, keys, ledger, rate / number) for n in range(number)]
    time.sleep(max(0, begins - time.time()))
    for producer in producers:
        producer.start()
    time.sleep(seconds)
    for producer in producers:
        producer.done.set()
    for producer in producers:
        producer.join()
    return {name: value for name, value in vars(ledger).items() if name != "lock"}
