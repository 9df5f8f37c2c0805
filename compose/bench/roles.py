"""Weir's roles as processes of their own on Apache Kafka and Cassandra, measured as one."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid

import run  # beside this file

SERVERS = run.ROOT / "compose/servers"
HOME = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "weir/servers"
ROLES = ("ingest", "process", "sink", "query")
# Messages before those that are measured. The servers compile themselves while they run: Cassandra took
# 0.9 CPU ms for a message after 10,000 of them, and 0.6 from 60,000 on.
FIRST = 200_000
WARM = 60_000

def cpu(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / run.TICK


def peak_mib(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return round(int(status.split("VmHWM:")[1].split()[0]) / 1024, 1)


def servers(*what):
    subprocess.run([SERVERS, *what], check=True, stdout=sys.stderr)


class Roles:
    """The four roles on an empty Kafka and a keyspace of their own; the same questions as `run.Weir` answers."""

    def __init__(self, program, kafka, cql, keyspace, partitions, **settings):
        servers("stop", "kafka")
        servers("up", "kafka")
        self.servers = {name: int((HOME / name / "pid").read_text()) for name in ("kafka", "cassandra")}
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="weir-bench-"))
        config = self.folder / "weir.toml"
        config.write_text(f"""store = "scylla"
data = "{self.folder}/data"
lake = "{self.folder}/lake"
[bus]
brokers = "{kafka}"
partitions = {partitions}
[cql]
nodes = "{cql}"
keyspace = "{keyspace}"
replication = 1
""")
        self.children, self.addresses = {}, {}
        env = os.environ | {"WEIR_CONFIG": str(config)} | {name: str(value) for name, value in settings.items()}
        subprocess.run([program, "migrate"], env=env, check=True, stdout=sys.stderr)
        self.key = json.loads((self.folder / "data/admin.json").read_text())["api_key"]
        for at, role in enumerate(ROLES):
            self.addresses[role] = f"127.0.0.1:{18301 + at}"
            log = open(self.folder / f"{role}.log", "w")
            self.children[role] = subprocess.Popen([program, role, "--listen", self.addresses[role]], env=env, stderr=log)
        for role in ROLES:
            self.wait_ready(role)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for child in self.children.values():
            child.send_signal(signal.SIGTERM)
        for child in self.children.values():
            child.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)

    def wait_ready(self, role):
        for _ in range(600):
            try:
                if self.call("GET", "/health/ready", role=role)[0] == 200:
                    return
            except OSError:
                pass
            if self.children[role].poll() is not None:
                break
            time.sleep(0.1)
        sys.exit(f"{role} did not start: " + (self.folder / f"{role}.log").read_text()[-500:])

    def call(self, method, path, body=None, role="ingest"):
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        data = body.encode() if body else None
        request = urllib.request.Request(f"http://{self.addresses[role]}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def sql(self, query):
        status, body = self.call("POST", "/v1/sql", json.dumps({"query": query}), role="query")
        if status != 200:
            raise RuntimeError(body.decode())
        return json.loads(body)["rows"]

    def stored(self, where):
        """Messages that are in the `history` or in the `lake`."""
        lines = self.call("GET", "/metrics", role="sink")[1].decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"weir_{where}_rows_total "))

    def used(self):
        """CPU seconds of each role and server."""
        pids = {role: child.pid for role, child in self.children.items()} | self.servers
        return {name: cpu(pid) for name, pid in pids.items()}

    def peaks_mib(self):
        pids = {role: child.pid for role, child in self.children.items()} | self.servers
        return {name: peak_mib(pid) for name, pid in pids.items()}


    def send(self, messages):
        parts = (json.dumps(messages[i:i + 100]) for i in range(0, len(messages), 100))
        assert {self.call("POST", "/v1/messages/batch", part)[0] for part in parts} == {202}

    def wait_stored(self, number, where=("history", "lake")):
        while any(self.stored(one) < number for one in where):
            time.sleep(0.1)


def path(options, texts, number=20_000):
    """20,000 messages until the history holds them, as the peer counts, and until the lake does, for each
    number of partitions. CPU seconds go to the end of both."""
    servers("down")
    servers("up", "cassandra")
    def messages(number):
        made = run.messages(texts, number)
        return [message | {"id": str(uuid.uuid4())} for message in made] if options.named else made

    with Roles(options.weir, options.kafka, options.cql, "weir_first", 4) as roles:
        roles.send(messages(FIRST))
        roles.wait_stored(FIRST)
    results = []
    for partitions in options.partitions:
        with Roles(options.weir, options.kafka, options.cql, f"weir_{partitions}", partitions) as roles:
            source = messages(WARM + number)
            roles.send(source[:WARM])
            roles.wait_stored(WARM)
            before, began = roles.used(), time.time()
            roles.send(source[WARM:])
            accepted = time.time() - began
            roles.wait_stored(WARM + number, ["history"])
            seconds = time.time() - began
            roles.wait_stored(WARM + number)
            whole = time.time() - began
            used = {name: round(now - before[name], 2) for name, now in roles.used().items()}
            rows = roles.sql("SELECT count(*), count(DISTINCT message_id) FROM messages")[0]
            assert rows == [WARM + number] * 2, rows
            mine = sum(used[role] for role in ROLES)
            results.append({"partitions": partitions, "messages_per_s": round(number / seconds), "accept_s": round(accepted, 2),
                            "lake_s": round(whole, 2),
                            "weir_cpu_s": round(mine, 2), "cpu_s": used, "messages_per_cpu_s": round(number / mine),
                            "messages_per_cpu_s_with_servers": round(number / sum(used.values())), "peak_mib": roles.peaks_mib()})
            print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    return results
