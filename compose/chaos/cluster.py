"""Weir's processes, and the servers under them: started, killed, paused, started again.

Both kinds answer the same questions: which doors take messages, where SQL is asked, how Kafka
is reached. `Real` runs each role as processes of their own on Apache Kafka and Cassandra;
`Embedded` is one `weir up`.
"""
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time

import proxy

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PAGE = os.sysconf("SC_PAGE_SIZE")


# What a message is answered with that is safe: now, before, or before and judged.
TAKEN = ("accepted", "pending", "judged")


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def ask(address, method, path, key, body=None, timeout=30):
    """(status, headers, body) of one request; OSError where there is no answer."""
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    except http.client.HTTPException as error:
        raise OSError(f"no whole answer: {error!r}") from None
    finally:
        connection.close()


def patiently(address, path, key, body=None, seconds=120):
    """(status, body) of a GET, or of a POST with that body, again while it is refused for now or not answered."""
    until = time.time() + seconds
    while True:
        try:
            status, _, answer = ask(address, "POST" if body else "GET", path, key, body, timeout=60)
            if status not in (429, 503):
                return status, answer
            why = f"{path} answers {status}"
        except OSError as error:
            why = repr(error)
        if time.time() > until:
            raise OSError(f"{why} for {seconds} s")
        time.sleep(0.2)


def metric(address, series):
    """The sum of all series whose text begins so; 0 where the process does not answer."""
    try:
        _, _, body = ask(address, "GET", "/metrics", "", timeout=5)
    except OSError:
        return 0.0
    return total(body, series)


def total(body, series):
    return sum(float(line.rsplit(" ", 1)[1]) for line in body.decode().splitlines() if line.startswith(series))


class Process:
    """One `weir …`, which may be killed and started again under the same name."""

    def __init__(self, name, argv, env, log, address):
        self.name, self.argv, self.env, self.log, self.address = name, argv, env, log, address
        # `down`: told to stay down.
        self.child, self.paused, self.down, self.peak_mib = None, False, False, 0.0
        # Ends that nobody asked for, by exit status.
        self.ends, self.asked = [], True
        self.lock = threading.RLock()

    def start(self):
        with self.lock:
            if self.child is not None and not self.asked:
                self.ends.append(self.child.poll())
            self.asked = False
            with open(self.log, "a") as log:
                self.child = subprocess.Popen(self.argv, env=self.env, stdout=subprocess.DEVNULL, stderr=log)

    def restart(self):
        with self.lock:
            self.stop()
            self.start()

    def memory(self):
        """Resident now, in MiB."""
        try:
            return int(pathlib.Path(f"/proc/{self.child.pid}/statm").read_text().split()[1]) * PAGE / 2**20
        except (OSError, AttributeError, IndexError):
            return 0.0

    def running(self):
        return self.child is not None and self.child.poll() is None

    def signal(self, number):
        if self.running():
            self.child.send_signal(number)

    def kill(self):
        with self.lock:
            self.asked = self.asked or self.running()
            self.signal(signal.SIGKILL)
            if self.child:
                self.child.wait()

    def stop(self):
        with self.lock:
            self.asked = self.asked or self.running()
            self.signal(signal.SIGTERM)
            if self.child:
                self.child.wait(60)

    def ready(self):
        try:
            return ask(self.address, "GET", "/health/ready", "", timeout=5)[0] == 200
        except OSError:
            return False

    def measure(self):
        self.peak_mib = max(self.peak_mib, self.memory())


class Cluster:
    """What both kinds share."""

    def __init__(self, weir, folder):
        self.weir, self.folder = str(pathlib.Path(weir).resolve()), pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.processes, self.stopping = [], False
        # Nothing of the caller's settings, but for where model and library are.
        kept = ("WEIR_MODEL__PATH", "WEIR_MODEL__RUNTIME", "WEIR_ONNXRUNTIME")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("WEIR_") or name in kept}
        self.env["WEIR_MODEL__PATH"] = str(ROOT / "models/weir-small-1")
        if library := os.environ.get("WEIR_ONNXRUNTIME"):
            self.env["WEIR_MODEL__RUNTIME"] = library
        # What a door remembers is soon full, as in a Weir that has run for a day.
        self.env |= {"WEIR_INGEST__RECENT_IDS": "2000", "WEIR_INGEST__RECENT_VERDICT_BYTES": str(2**20)}

    def add(self, name, args, **env):
        address = f"127.0.0.1:{free_port()}"
        argv = [self.weir, *args, "--listen", address]
        if args[0] in ("process", "sink", "query"):
            # Where roles share cores, what no acknowledgement waits for gives way.
            argv = ["nice", "-n", "10", *argv]
        process = Process(name, argv, self.env | env, self.folder / f"{name}.log", address)
        process.start()
        self.processes.append(process)
        return process

    def of(self, role):
        """Those of that role that are to run."""
        return [process for process in self.processes if process.name.split("-")[0] == role and not process.down]

    def watch(self):
        """Like a supervisor: starts again what has ended, unless it was told to stay down."""
        for process in self.processes:
            process.measure()
            with process.lock:
                if not self.stopping and not process.running() and not process.down:
                    process.start()

    def wait_ready(self, seconds=120):
        began = time.time()
        up = lambda: [process for process in self.processes if not process.down]
        while not all(process.running() and process.ready() for process in up()):
            if time.time() - began > seconds:
                late = [process.name for process in up() if not process.ready()]
                raise RuntimeError(f"not ready after {seconds} s: {late}")
            self.watch()
            time.sleep(0.2)

    def sql(self):
        return self.queries()[0]

    def metric(self, series):
        """The sum of all series whose text begins so, over all processes, each of which has to answer."""
        return sum(total(patiently(process.address, "/metrics", "")[1], series) for process in self.processes if not process.down)

    def admin(self):
        return json.loads((self.folder / "data/admin.json").read_text())["api_key"]

    def make_key(self, tenant):
        body = {"tenant": tenant, "label": "chaos", "scopes": ["ingest", "read", "sql"]}
        status, _, answer = ask(self.doors()[0].address, "POST", "/v1/admin/keys", self.admin(), body)
        if status != 201:
            raise RuntimeError(answer)
        return json.loads(answer)["key"]

    def close(self):
        self.stopping = True
        for process in self.processes:
            process.signal(signal.SIGCONT)
            process.signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.child.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


# Of Kafka, which takes the next two as well; Cassandra is 50 above it. Below the ports that systems give
# to connections.
PORT = int(os.environ.get("WEIR_CHAOS_PORT", 29092))


class Real(Cluster):
    """Roles as processes, on Apache Kafka and Cassandra of their own."""

    kind = "real"

    def __init__(self, weir, folder, partitions=4):
        super().__init__(weir, folder)
        self.kafka_port, self.cassandra_port, self.proxy_port = PORT, PORT + 50, free_port()
        self.servers_env = os.environ | {
            "WEIR_SERVERS_HOME": str(self.folder / "servers"), "WEIR_KAFKA_PORT": str(self.kafka_port),
            "WEIR_CASSANDRA_PORT": str(self.cassandra_port), "WEIR_KAFKA_PROXY_PORT": str(self.proxy_port)}
        self.brokers = f"127.0.0.1:{self.kafka_port}"
        try:
            self.server("up", "kafka", "cassandra")
            self.set_up(partitions)
        except BaseException:
            # Nobody else knows of them yet.
            super().close()
            self.server("down")
            raise

    def set_up(self, partitions):
        # One processor reaches Kafka through this, so that its network can be cut.
        self.proxy = proxy.Proxy(self.proxy_port, self.kafka_port + 2)
        config = self.folder / "weir.toml"
        config.write_text(f"""store = "scylla"
data = "{self.folder}/data"
lake = "{self.folder}/lake"
[bus]
brokers = "{self.brokers}"
partitions = {partitions}
[cql]
nodes = "127.0.0.1:{self.cassandra_port}"
keyspace = "weir_chaos"
replication = 1
""")
        self.env["WEIR_CONFIG"] = str(config)
        self.migrate()
        self.lake = self.folder / "lake"
        for role, number in (("ingest", 2), ("process", 2), ("sink", 2), ("query", 1)):
            for at in range(1, number + 1):
                through = {"WEIR_BUS__BROKERS": f"127.0.0.1:{self.proxy_port}"} if (role, at) == ("process", 2) else {}
                self.add(f"{role}-{at}", [role], **through)

    def migrate(self):
        """As two machines that are set up at the same moment would: one has made the accounts and the
        key that signs tokens, the other is told to copy it. Then both at once on the one folder. A third,
        that has no copy, starts Weir as if it were alone."""
        data, other = self.folder / "data", self.folder / "other"
        said = self.migrations(data, other)
        if sorted(status for status, _ in said) != [0, 1] or not any("--new-signing-key" in errors for _, errors in said):
            raise RuntimeError(f"one weir migrate of two had to be refused: {said}")
        if said[0][0]:
            data.rename(self.folder / "refused")
            other.rename(data)
        said = self.migrations(data, data)
        if any(status for status, _ in said):
            raise RuntimeError(f"weir migrate can't be repeated: {said}")
        up = subprocess.run([self.weir, "up", "--roles", "ingest", "--listen", "127.0.0.1:0", "--data", self.folder / "third"],
                            env=self.env, text=True, capture_output=True, timeout=120)
        if up.returncode != 1 or "--new-signing-key" not in up.stderr:
            raise RuntimeError(f"weir up without the key had to be refused: {up.returncode} {up.stderr}")

    def migrations(self, *folders):
        """Exit status and errors of each, run at once."""
        running = [subprocess.Popen([self.weir, "migrate"], env=self.env | {"WEIR_DATA": str(data)}, text=True,
                                    stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for data in folders]
        errors = [one.communicate(timeout=120)[1] for one in running]
        return [(one.returncode, said) for one, said in zip(running, errors)]

    def server(self, *args):
        subprocess.run([ROOT / "compose/servers", *args], env=self.servers_env, check=True, stdout=subprocess.DEVNULL)

    def server_pid(self, name):
        return int((self.folder / "servers" / name / "pid").read_text())

    def doors(self):
        return self.of("ingest")

    def queries(self):
        return self.of("query")

    def kafka(self):
        return {"bootstrap.servers": self.brokers}

    def close(self):
        super().close()
        self.proxy.close()
        self.server("down")


class Embedded(Cluster):
    """One `weir up`."""

    kind = "embedded"

    def __init__(self, weir, folder, data=None):
        super().__init__(weir, folder)
        self.data = pathlib.Path(data or self.folder / "data")
        self.port = free_port()
        self.lake = self.data / "lake"
        self.add("up", ["up", "--data", str(self.data)], WEIR_BUS__LISTEN=f"127.0.0.1:{self.port}")

    def admin(self):
        return json.loads((self.data / "admin.json").read_text())["api_key"]

    def doors(self):
        return self.processes

    def queries(self):
        return self.processes

    def kafka(self):
        secret = (self.data / "secrets/broker").read_text().strip()
        return {"bootstrap.servers": f"127.0.0.1:{self.port}", "security.protocol": "SASL_PLAINTEXT",
                "sasl.mechanism": "PLAIN", "sasl.username": "weir", "sasl.password": secret}
