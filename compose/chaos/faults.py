"""What is broken, and how. Each fault is a function of the run; it returns when what it broke
is whole again (a killed process is started again by the supervisor)."""
import os
import signal
import subprocess
import time

import confluent_kafka as kafka

import records
import stores

# Weir's consumers leave their group after 10 s of silence.
BEYOND_SESSION = 14


def kill(run):
    """SIGKILL of a random process"""
    process = run.random.choice([p for p in run.cluster.processes if p.running() and not p.paused])
    process.kill()
    return process.name


def kill_broker(run):
    """Kafka killed and started again"""
    run.cluster.server("kill", "kafka")
    time.sleep(run.long(2, 10))
    run.cluster.server("start", "kafka")


def kill_database(run):
    """Cassandra killed and started again"""
    run.cluster.server("kill", "cassandra")
    time.sleep(run.long(2, 10))
    run.cluster.server("start", "cassandra")


def kill_both(run):
    """Kafka and Cassandra killed and started again"""
    for name in ("kafka", "cassandra"):
        run.cluster.server("kill", name)
    time.sleep(run.long(2, 10))
    for name in ("cassandra", "kafka"):
        run.cluster.server("start", name)


def rebalance(run):
    """processors added and removed"""
    added = run.cluster.add(f"process-{10 + run.rounds['rebalance']}", ["process"])
    time.sleep(run.long(8, 20))
    added.down = True
    added.stop()


def pause(run, role):
    process = run.random.choice(run.cluster.of(role))
    with process.lock:
        process.paused = True
        process.signal(signal.SIGSTOP)
    time.sleep(BEYOND_SESSION)
    process.signal(signal.SIGCONT)
    process.paused = False
    return process.name


def pause_processor(run):
    """a processor stopped (SIGSTOP) beyond its session, then continued"""
    return pause(run, "process")


def pause_sink(run):
    """a sink stopped (SIGSTOP) beyond its session, then continued"""
    return pause(run, "sink")


class Lag:
    """What the metrics of the sinks say while the database keeps them waiting."""

    def __init__(self, run):
        self.run, self.before, self.most = run, self.now(run), 0

    @staticmethod
    def now(run):
        return sum(stores.metric(sink.address, 'weir_consumer_lag{group="weir.history"') for sink in run.cluster.of("sink"))

    def look(self):
        self.most = max(self.most, self.now(self.run))

    def check(self):
        if self.most <= self.before:
            self.run.violations.append(("the metrics show no lag of the history", ("", "")))
        self.run.remarks.append(f"Lag of the history that the metrics showed while the database kept it waiting: {self.most:.0f} records.")


def slow_database(run):
    """every answer of Cassandra up to 2 s late"""
    pid, until = run.cluster.server_pid("cassandra"), time.time() + run.long(15, 60)
    lag = Lag(run)
    while time.time() < until:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(2)
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.1)
        lag.look()
    lag.check()


def deaf_database(run):
    """Cassandra answers nothing"""
    pid, until = run.cluster.server_pid("cassandra"), time.time() + run.long(15, 60)
    lag = Lag(run)
    os.kill(pid, signal.SIGSTOP)
    while time.time() < until:
        time.sleep(1)
        lag.look()
    os.kill(pid, signal.SIGCONT)
    lag.check()


def cut_network(run):
    """the network between a processor and Kafka cut"""
    run.cluster.proxy.cut()
    time.sleep(run.long(15, 30))
    run.cluster.proxy.mend()


def poison(run):
    """records that can't be processed, and one of a later version that can"""
    placed = []
    producer = kafka.Producer(run.cluster.kafka())

    def put(topic, key, value):
        place = []
        producer.produce(topic, value, key, on_delivery=lambda error, record: place.append((error, record)))
        if producer.flush(60) or place[0][0]:
            raise RuntimeError("the poison could not be placed")
        placed.append(topic)
        return topic, place[0][1].partition(), place[0][1].offset()

    now, number = int(time.time() * 1e6), run.rounds["poison"]
    tenant = next(iter(run.keys))
    run.dead.add(("process", "malformed_record", *put("weir.messages", b"poison", os.urandom(5) + b"\xff\xff\xff")))
    run.dead.add(("process", "missing_field", *put("weir.messages", b"poison", records.encode([(1, 1), (2, tenant)]))))
    unknown = records.new_message(tenant, "poison", f"unknown-{number}", "nobody can read this", now, schema=2, more=[(15, 2)])
    run.dead.add(("process", "unknown_schema", *put("weir.messages", b"poison", unknown)))
    place = put("weir.verdicts", b"poison", b"\xff\xff\xff\xff")
    run.dead |= {(stage, "malformed_record", *place) for stage in ("history", "lake")}
    id, text = f"later-{number}", "a message of a later version"
    put("weir.messages", b"later", records.new_message(tenant, "later", id, text, now, schema=2, more=[(99, "more")]))
    run.ledger.acknowledge((tenant, id), ("later", "", text), ordered=False)
    # A key longer than a store takes; the lake takes it.
    id = f"refused-{number}"
    put("weir.messages", b"refused", records.new_message(tenant, "x" * 70_000, id, "too long a channel", now))
    run.refused.add((tenant, id))


def overload(run):
    """ten times the usual load"""
    answers = dict(run.ledger.answers)
    before, began = {p.name: p.memory() for p in run.cluster.processes}, time.time()
    more, most = run.producers(20, rate=run.rate * 10 / 20, first=100), dict(before)
    while time.time() < began + run.long(10, 60):
        time.sleep(0.2)
        most = {p.name: max(most.get(p.name, 0), p.memory()) for p in run.cluster.processes}
    for producer in more:
        producer.done.set()
    for producer in more:
        producer.join()
    p99 = lambda waits: sorted(waits)[int(len(waits) * 0.99)] if waits else 0.0
    normal = p99([seconds for at, seconds in run.ledger.accepted if at < began])
    under = [seconds for at, seconds in run.ledger.accepted if at >= began]
    grown = max(most[name] / before[name] for name in before if before[name])
    refused = sum(run.ledger.answers[status] - answers.get(status, 0) for status in (429, 503))
    run.remarks.append(f"Overload: {len(under) / (time.time() - began):.0f} accepted requests a second; p99 of one {p99(under) * 1e3:.0f} ms, "
                       f"{normal * 1e3:.0f} ms before; {refused} requests refused; memory of a process at most {grown:.2f} times what it was.")


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
                run.violations.append((f"received before an earlier message{' after a restart' if again else ''}", key))


def full_disk(run):
    """the data folder full, then room again"""
    filler = run.cluster.data / "filler"
    with open(filler, "wb") as file:
        try:
            while True:
                file.write(b"\0" * (1 << 20))
                file.flush()
        except OSError:
            pass
    time.sleep(run.long(5, 15))
    filler.unlink()


REAL = (kill_broker, kill_database, kill_both, rebalance, pause_processor, pause_sink, slow_database, deaf_database,
        cut_network, poison, overload, clock_back)
EMBEDDED = (poison, overload, full_disk, clock_back)
# What the short form keeps; the rest takes too long for every change.
SHORT = (kill_broker, kill_database, pause_processor, poison, full_disk, clock_back)


def tmpfs(folder, megabytes):
    """A small disk of its own; `None` where we may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "weir-chaos", folder], capture_output=True)
    return folder if done.returncode == 0 else None
