"""What is broken, and how. Each fault is a function of the run; it returns when what it broke
is whole again (a killed process is started again by the supervisor)."""
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


class Lag:
    """What the metrics of roles say while the database keeps them waiting."""

    def __init__(self, run, roles={"sink": "weir.history"}):
        self.run, self.roles = run, roles
        self.before, self.most = self.now(), 0

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
    lag.check("database slow")


def deaf_database(run):
    """Cassandra answers nothing"""
    pid, until = run.cluster.server_pid("cassandra"), time.time() + run.long(15, 60)
    lag = Lag(run)
    os.kill(pid, signal.SIGSTOP)
    while time.time() < until:
        time.sleep(1)
        lag.look()
    os.kill(pid, signal.SIGCONT)
    lag.check("database silent")


def refusing_database(run):
    """Cassandra refuses every request"""
    # Reads are refused as well: processors and doors wait too, and the sinks soon have nothing to do.
    until, lag = time.time() + run.long(15, 60), Lag(run, {"sink": "weir.history", "process": "weir.process"})
    tables.refusing(run.cluster.cassandra_port, True)
    try:
        while time.time() < until:
            time.sleep(1)
            lag.look()
    finally:
        tables.refusing(run.cluster.cassandra_port, False)
    lag.check("database refusing")


def cut_network(run):
    """the network between a processor and Kafka cut"""
    run.cluster.proxy.cut()
    time.sleep(run.long(15, 30))
    run.cluster.proxy.mend()


def full_disk(run):
    """the data folder full, then room again"""
    filler, refused = run.cluster.data / "filler", run.ledger.answers[503]
    with open(filler, "wb") as file:
        try:
            while True:
                file.write(b"\0" * (1 << 20))
                file.flush()
        except OSError:
            pass
    time.sleep(run.long(5, 15))
    # A request waits for the broker as long as its time allows, which is longer than the short form.
    if not run.options.short and run.ledger.answers[503] == refused:
        run.violated([("no 503 while the disk was full", ("", ""))])
    filler.unlink()


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
