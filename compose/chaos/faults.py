"""What is broken, and how. Each fault is a function of the run; it returns when what it broke
is whole again (a killed process is started again by the supervisor)."""
import contextlib
import os
import signal
import subprocess
import time

import cluster
import tables
from copies import backup
from messages import clock_back, poison, stamps
from overload import overload

# Weir's consumers leave their group after 10 s of silence.
BEYOND_SESSION = 14
# How long a broker is away: longer than a request waits for it, so that it must be refused.
BEYOND_REQUEST = 12
# What the memory of a process may grow to while the database keeps it waiting: so many times its peak
# until then, and so many MiB.
MEMORY, ROOM = 1.5, 32


def kill(run):
    """SIGKILL of a random process"""
    process = run.random.choice([p for p in run.cluster.processes if p.running() and not p.paused])
    process.kill()
    return process.name


@contextlib.contextmanager
def refusing(run, when):
    """Requires a 503, in the long form: in the short one nothing is away for as long as a request waits."""
    before = run.ledger.answers[503]
    yield
    if not run.options.short and run.ledger.answers[503] == before:
        run.violated([(f"no 503 while {when}", ("", ""))])


def kill_broker(run):
    """Kafka killed and started again"""
    with refusing(run, "Kafka was away"):
        run.cluster.server("kill", "kafka")
        time.sleep(run.long(2, BEYOND_REQUEST))
        run.cluster.server("start", "kafka")


def kill_database(run):
    """Cassandra killed and started again"""
    run.cluster.server("kill", "cassandra")
    time.sleep(run.long(2, 10))
    run.cluster.server("start", "cassandra")


def kill_both(run):
    """Kafka and Cassandra killed and started again"""
    with refusing(run, "Kafka and Cassandra were away"):
        for name in ("kafka", "cassandra"):
            run.cluster.server("kill", name)
        time.sleep(run.long(2, BEYOND_REQUEST))
        for name in ("cassandra", "kafka"):
            run.cluster.server("start", name)


def outage(run, server, roles):
    """A server away, and meanwhile a process of each role killed, twice: it starts without the server."""
    killed = []
    run.cluster.server("kill", server)
    for seconds in (1, run.long(1, 10)):
        time.sleep(seconds)
        for role in roles:
            process = run.random.choice(run.cluster.of(role))
            process.kill()
            killed.append(process.name)
    time.sleep(1)
    run.cluster.server("start", server)
    return ", ".join(killed)


def kill_broker_and_roles(run):
    """Kafka killed, an ingest and a processor killed while it is away, Kafka started again"""
    return outage(run, "kafka", ("ingest", "process"))


def kill_database_and_roles(run):
    """Cassandra killed, a sink and a processor killed while it is away, Cassandra started again"""
    return outage(run, "cassandra", ("sink", "process"))


def rebalance(run):
    """processors added and removed"""
    added = run.cluster.add(f"process-{10 + run.rounds['rebalance']}", ["process"])
    time.sleep(run.long(8, 20))
    added.down = True
    added.stop()


def pause(run, role):
    # One that was killed just now has nothing to be late with.
    run.cluster.wait_ready()
    process = run.random.choice(run.cluster.of(role))
    with process.lock:
        process.paused = True
        process.signal(signal.SIGSTOP)
    try:
        time.sleep(BEYOND_SESSION)
    finally:
        process.signal(signal.SIGCONT)
        process.paused = False
    return process.name


def pause_processor(run):
    """a processor stopped (SIGSTOP) beyond its session, then continued"""
    return pause(run, "process")


def pause_sink(run):
    """a sink stopped (SIGSTOP) beyond its session, then continued"""
    return pause(run, "sink")


class Waiting:
    """What the metrics of roles say while the database keeps them waiting, and what memory that takes."""

    def __init__(self, run, roles={"sink": "weir.history"}):
        self.run, self.roles = run, roles
        self.before, self.most = self.now(), 0
        # What the fault before has left is worked off first.
        until = time.time() + 20
        while self.before and time.time() < until:
            time.sleep(0.5)
            self.before = min(self.before, self.now())
        self.peaks = {process.name: process.peak_mib for process in run.cluster.processes}

    def now(self):
        return sum(cluster.metric(process.address, f'weir_consumer_lag{{group="{group}"')
                   for role, group in self.roles.items() for process in self.run.cluster.of(role))

    def look(self):
        self.most = max(self.most, self.now())

    def check(self, what):
        groups = " and ".join(self.roles.values())
        if self.most <= self.before:
            self.run.violated([(f"the metrics show no lag of {groups}", ("", ""))])
        self.run.remarks.append(f"Lag of {groups} that the metrics showed, {what}: {self.most:.0f} records.")
        self.run.violated([(f"memory of {wrong}, {what}", ("", ""))
                           for wrong in grown(self.peaks, {process.name: process.peak_mib for process in self.run.cluster.processes})])


def grown(before, after):
    """[what took more memory than it may]; both {process: MiB}, its peak."""
    return [f"{name} {after[name]:.0f} MiB, {mib:.0f} before" for name, mib in before.items()
            if mib and after[name] > MEMORY * mib + ROOM]


@contextlib.contextmanager
def stopped(pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def slow_database(run):
    """every answer of Cassandra up to 2 s late"""
    pid, waiting = run.cluster.server_pid("cassandra"), Waiting(run)
    until = time.time() + run.long(15, 60)
    while time.time() < until:
        with stopped(pid):
            time.sleep(2)
        time.sleep(0.1)
        waiting.look()
    waiting.check("database slow")


def deaf_database(run):
    """Cassandra answers nothing"""
    pid, waiting = run.cluster.server_pid("cassandra"), Waiting(run)
    until = time.time() + run.long(15, 60)
    with stopped(pid):
        while time.time() < until:
            time.sleep(1)
            waiting.look()
    waiting.check("database silent")


def refusing_database(run):
    """Cassandra refuses every request"""
    # Reads are refused as well: processors and doors wait too, and the sinks soon have nothing to do.
    waiting = Waiting(run, {"sink": "weir.history", "process": "weir.process"})
    until = time.time() + run.long(15, 60)
    tables.refusing(run.cluster.cassandra_port, True)
    try:
        while time.time() < until:
            time.sleep(1)
            waiting.look()
    finally:
        tables.refusing(run.cluster.cassandra_port, False)
    waiting.check("database refusing")


def cut_network(run):
    """the network between a processor and Kafka cut"""
    run.cluster.proxy.cut()
    time.sleep(run.long(15, 30))
    run.cluster.proxy.mend()


def full_disk(run):
    """the data folder full, then room again"""
    filler = run.cluster.data / "filler"
    with refusing(run, "the disk was full"):
        fill(filler)
        time.sleep(run.long(5, 15))
    filler.unlink()


def fill(filler):
    with open(filler, "wb") as file:
        try:
            while True:
                file.write(b"\0" * (1 << 20))
                file.flush()
        except OSError:
            pass


REAL = (kill_broker, kill_database, kill_both, kill_broker_and_roles, kill_database_and_roles, rebalance, pause_processor, pause_sink,
        slow_database, deaf_database, refusing_database, cut_network, poison, overload, clock_back, stamps)
EMBEDDED = (backup, poison, overload, full_disk, clock_back, stamps)
ALL = {"real": REAL, "embedded": EMBEDDED}
# What the short form keeps; the rest takes too long for every change.
SHORT = {"real": (kill_broker_and_roles, kill_database, pause_processor, poison, stamps),
         "embedded": (backup, poison, full_disk, clock_back, stamps)}


def tmpfs(folder, megabytes):
    """A small disk of its own; `None` where we may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "weir-chaos", folder], capture_output=True)
    return folder if done.returncode == 0 else None
