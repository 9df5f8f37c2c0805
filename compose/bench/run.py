#!/usr/bin/env python3
"""Measures a release build of Weir, and beside it the same path in Python, in one run.

    compose/bench/run.py --texts FILE [--peer DIR --kafka HOST:PORT --cql HOST:PORT] [--only ingest,path,...]

--texts: one message a line (first tab-separated column). Needs `wrk` on the PATH for `ingest`.
--peer: a folder with the Python stack's bench.py and its interpreter in $PEER_PYTHON; it needs
Apache Kafka and Cassandra running. Each measurement of Weir gets a data folder of its own. CPU
`--only roles` runs Weir's roles as processes of their own on Kafka and Cassandra; it starts the two by
compose/servers, empty, so that they must listen where it lets them. CPU
seconds are user and system time of all of Weir, the embedded broker included; the peer's are
Python's alone and, beside them, with its servers'. The load program is in neither.
"""
import argparse
import concurrent.futures
import http.client
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def quantile(values, q):
    return round(sorted(values)[min(int(len(values) * q), len(values) - 1)], 2)


class Weir:
    """`weir up` on a fresh folder."""

    def __init__(self, program, roles=None, **settings):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="weir-bench-"))
        env = os.environ | {name: str(value) for name, value in settings.items()}
        argv = [program, "up", "--data", str(self.folder / "data"), "--listen", "127.0.0.1:0"]
        if roles:
            argv += ["--roles", roles]
        began = time.time()
        self.child = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=open(self.folder / "log", "w"), text=True)
        first = self.child.stdout.readline()
        if not first:
            sys.exit("weir did not start: " + (self.folder / "log").read_text()[-500:])
        self.start_s = round(time.time() - began, 2)
        threading.Thread(target=lambda: [None for _ in self.child.stdout], daemon=True).start()
        self.address = urllib.parse.urlparse(first.split()[-1]).netloc
        self.key = json.loads((self.folder / "data/admin.json").read_text())["api_key"]
        self.local = threading.local()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def cpu(self):
        fields = pathlib.Path(f"/proc/{self.child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def rss_mib(self):
        return round(int(pathlib.Path(f"/proc/{self.child.pid}/statm").read_text().split()[1]) * PAGE / 2**20, 1)

    def peak_mib(self):
        """The most that was ever resident."""
        status = pathlib.Path(f"/proc/{self.child.pid}/status").read_text()
        return round(int(status.split("VmHWM:")[1].split()[0]) / 1024, 1)

    def call(self, method, path, body=None):
        if not hasattr(self.local, "connection"):
            self.local.connection = http.client.HTTPConnection(self.address, timeout=120)
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        self.local.connection.request(method, path, body, headers)
        answer = self.local.connection.getresponse()
        return answer.status, answer.read()

    def sql(self, query):
        status, body = self.call("POST", "/v1/sql", json.dumps({"query": query}))
        if status != 200:
            raise RuntimeError(body.decode())
        return json.loads(body)["rows"]

    def histogram(self, name):
        """[(upper bound, cumulative count)] of a histogram of /metrics."""
        lines = self.call("GET", "/metrics")[1].decode().splitlines()
        rows = [line.split() for line in lines if line.startswith(name + "_bucket")]
        return [(float(label.split('le="')[1].split('"')[0]), float(count)) for label, count in rows]

    def counter(self, name):
        """Sum of a counter of /metrics over its labels."""
        lines = self.call("GET", "/metrics")[1].decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith((name + " ", name + "{")))

    def stored(self):
        """Messages that are in history and in the lake."""
        return min(self.counter("weir_history_rows_total"), self.counter("weir_lake_rows_total"))

    def stop(self):
        self.child.terminate()
        self.child.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)


def messages(texts, number):
    return [{"channel": f"channel-{i * 37 % 64}", "sender": f"user-{i * 7919 % 5000}", "text": texts[i % len(texts)]}
            for i in range(number)]


def wrk(weir, path, bodies, connections, seconds):
    env = os.environ | {"URL_PATH": path, "API_KEY": weir.key, "BODIES": str(bodies)}
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(HERE / "load.lua"), f"http://{weir.address}"]
    out = subprocess.run(argv, env=env, capture_output=True, text=True, check=True).stdout
    return json.loads(out.strip().splitlines()[-1])


def ingest(options, texts):
    """The door and the broker alone: nothing scores meanwhile."""
    with Weir(options.weir, roles="ingest") as weir:
        return ingest_on(weir, options, texts)


def ingest_on(weir, options, texts):
    source, result = messages(texts, 20_000), {"rss_idle_mib": weir.rss_mib()}
    kinds = {"single": (1, "/v1/messages", 64, [json.dumps(m) for m in source[:5000]]),
             "batch100": (100, "/v1/messages/batch", 16, [json.dumps(source[i:i + 100]) for i in range(0, 20_000, 100)])}
    for kind, (per, path, connections, bodies) in kinds.items():
        file = weir.folder / kind
        file.write_text("\n".join(bodies))
        wrk(weir, path, file, connections, 2)
        used, number = weir.cpu(), weir.counter("weir_messages_accepted_total")
        load = wrk(weir, path, file, connections, options.seconds)
        used, number = weir.cpu() - used, weir.counter("weir_messages_accepted_total") - number
        result[kind] = {"messages_per_s": round(number / load["seconds"]), "messages_per_cpu_s": round(number / used),
                        "p50_ms": load["p50_ms"], "p99_ms": load["p99_ms"], "bad": load["bad"]}
    result["rss_peak_mib"] = weir.peak_mib()
    return result


def gentle(weir, texts, rate=50, seconds=30):
    """From sending to the verdict in hand, one message at a time on its own connection."""
    acks, verdicts, lock = [], [], threading.Lock()

    def one(message, sent):
        status, body = weir.call("POST", "/v1/messages", json.dumps(message))
        assert status == 202, body
        acked = time.time()
        status, body = weir.call("GET", f"/v1/messages/{json.loads(body)['id']}?wait=20")
        assert b'"verdict"' in body, body
        with lock:
            acks.append((acked - sent) * 1e3)
            verdicts.append((time.time() - sent) * 1e3)

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        began, under_way = time.time(), []
        for i, message in enumerate(messages(texts, rate * seconds)):
            time.sleep(max(0, began + i / rate - time.time()))
            under_way.append(pool.submit(one, message, began + i / rate))
        for future in under_way:
            future.result()
    return {"messages": len(verdicts), "verdict_p50_ms": quantile(verdicts, .5), "verdict_p99_ms": quantile(verdicts, .99),
            "ack_p50_ms": quantile(acks, .5), "ack_p99_ms": quantile(acks, .99)}


def path(options, texts, number=20_000):
    """Idle, gentle, then 20,000 messages until history and lake hold them."""
    with Weir(options.weir) as weir:
        return path_on(weir, texts, number)


def path_on(weir, texts, number):
    time.sleep(5)
    result = {"start_s": weir.start_s, "rss_idle_mib": weir.rss_mib()}
    used = weir.cpu()
    time.sleep(5)
    result["idle_cpu_percent"] = round((weir.cpu() - used) * 20, 1)
    result["gentle"] = gentle(weir, texts)
    before = result["gentle"]["messages"]
    while weir.stored() < before:
        time.sleep(0.2)
    source = messages(texts, number)
    bodies = [json.dumps(source[i:i + 100]) for i in range(0, number, 100)]
    used, began = weir.cpu(), time.time()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert {status for status, _ in pool.map(lambda b: weir.call("POST", "/v1/messages/batch", b), bodies)} == {202}
    result["accept_s"] = round(time.time() - began, 2)
    while weir.stored() < before + number:
        time.sleep(0.2)
    seconds, used = time.time() - began, weir.cpu() - used
    rows = weir.sql("SELECT count(*), count(DISTINCT message_id) FROM messages")[0]
    assert rows == [before + number] * 2, rows
    result |= {"messages_per_s": round(number / seconds), "cpu_s": round(used, 2), "messages_per_cpu_s": round(number / used),
               "rss_peak_mib": weir.peak_mib()}
    return result


def freshness(options, texts, rate=500, seconds=20):
    """Accepted to visible in SQL, by Weir's own histogram and by asking for single messages."""
    with Weir(options.weir) as weir:
        return freshness_on(weir, texts, rate, seconds)


def freshness_on(weir, texts, rate, seconds):
    stop = threading.Event()

    def probe():
        waited = []
        while not stop.wait(0.5):
            id = f"probe-{len(waited)}"
            assert weir.call("POST", "/v1/messages", json.dumps({"channel": "probe", "id": id, "text": "is this visible yet"}))[0] == 202
            began = time.time()
            while weir.sql(f"SELECT count(*) FROM messages WHERE message_id = '{id}'")[0][0] == 0:
                time.sleep(0.01)
            waited.append((time.time() - began) * 1e3)
        return waited

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        probing = pool.submit(probe)
        began, source = time.time(), messages(texts, rate * seconds)
        try:
            for i in range(0, len(source), 10):
                time.sleep(max(0, began + i / rate - time.time()))
                assert weir.call("POST", "/v1/messages/batch", json.dumps(source[i:i + 10]))[0] == 202
        finally:
            sent_s = time.time() - began
            stop.set()
        probes = probing.result()
    total = len(source) + len(probes)
    while weir.sql("SELECT count(*) FROM messages")[0][0] < total:
        time.sleep(0.1)
    buckets = weir.histogram("weir_accept_to_queryable_seconds")
    assert buckets[-1][1] == total, (buckets[-1], total)
    p99 = next(bound for bound, count in buckets if count >= 0.99 * total)
    return {"messages": total, "sent_per_s": round(len(source) / sent_s), "queryable_p99_s_at_most": p99, "probes": len(probes),
            "probe_p50_ms": quantile(probes, .5), "probe_max_ms": quantile(probes, 1)}


def on_servers(options, texts):
    """The roles as processes of their own, on Apache Kafka and Cassandra."""
    import roles
    return roles.path(options, texts)


def guarantees(options, texts):
    """With and without the memory of ids and fdatasync."""
    import guarantees
    return guarantees.costs(options, texts) | {"memory": guarantees.bytes_per_id(options)}


def peer(options, parts):
    out = pathlib.Path(tempfile.mkdtemp()) / "peer.json"
    python = os.environ.get("PEER_PYTHON", sys.executable)
    # It writes beside itself.
    shutil.copytree(options.peer, out.parent / "stack")
    argv = [python, "bench.py", "--kafka", options.kafka, "--cql", options.cql, "--texts", options.texts,
            "--only", parts, "--repeats", "1", "--seconds", str(options.seconds), "--out", str(out)]
    subprocess.run(argv, cwd=out.parent / "stack", check=True, stdout=sys.stderr)
    return json.loads(out.read_text())


def ratios(results):
    """Weir over the peer, from this run; more is better but for times and memory."""
    rows = []
    theirs, ours = results.get("peer", {}), results
    if "a_ingest_1_process" in theirs and "ingest" in ours:
        for kind in ("single", "batch100"):
            best = min(theirs["a_ingest_1_process"] + theirs["a_ingest_2_processes"], key=lambda r: r[kind]["cpu_s_per_1000"])
            python = 1000 / best[kind]["cpu_s_per_1000"]
            servers = best[kind]["kafka_cpu_s"]
            number = best[kind]["messages_per_s"] * results["seconds"]
            all_of_it = number / (number / python + servers)
            mine = ours["ingest"][kind]["messages_per_cpu_s"]
            rows += [(f"ingest {kind}, messages per CPU s, Python without its broker", mine, round(python), round(mine / python, 2)),
                     (f"ingest {kind}, messages per CPU s, Python with its broker", mine, round(all_of_it), round(mine / all_of_it, 2))]
            rows.append((f"ingest {kind}, messages per s", ours["ingest"][kind]["messages_per_s"], best[kind]["messages_per_s"],
                         round(ours["ingest"][kind]["messages_per_s"] / best[kind]["messages_per_s"], 2)))
    if "d_path" in theirs and "path" in ours:
        run, mine = theirs["d_path"][0], ours["path"]
        python = run["messages_per_python_cpu_s"]
        servers = run["python_cpu_s"] + run["kafka_cpu_s"] + run["cassandra_cpu_s"]
        rows += [("whole path, messages per CPU s, Python without its servers", mine["messages_per_cpu_s"], python,
                  round(mine["messages_per_cpu_s"] / python, 2)),
                 ("whole path, messages per CPU s, Python with its servers", mine["messages_per_cpu_s"], round(20_000 / servers),
                  round(mine["messages_per_cpu_s"] * servers / 20_000, 2)),
                 ("whole path, messages per s", mine["messages_per_s"], run["messages_per_s"],
                  round(mine["messages_per_s"] / run["messages_per_s"], 2))]
        for name in ("verdict_p50_ms", "verdict_p99_ms", "ack_p50_ms", "ack_p99_ms"):
            a, b = mine["gentle"][name], run["gentle"][name]
            rows.append((f"at 50/s, {name}", a, b, round(a / b, 2)))
    for mine in ours.get("roles", []) if "d_path" in theirs else []:
        run = theirs["d_path"][0]
        what = f"roles on the same servers, {mine['partitions']} partitions"
        servers = run["python_cpu_s"] + run["kafka_cpu_s"] + run["cassandra_cpu_s"]
        for unit, a, b in (("messages per CPU s, without servers", mine["messages_per_cpu_s"], run["messages_per_python_cpu_s"]),
                           ("messages per CPU s, with servers", mine["messages_per_cpu_s_with_servers"], round(20_000 / servers)),
                           ("messages per s", mine["messages_per_s"], run["messages_per_s"])):
            rows.append((f"{what}, {unit}", a, b, round(a / b, 2)))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", required=True)
    parser.add_argument("--weir", default=str(pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/weir"))
    parser.add_argument("--only", default="ingest,path,freshness")
    parser.add_argument("--seconds", type=int, default=15, help="length of one wrk run")
    parser.add_argument("--peer", help="folder of the Python stack")
    parser.add_argument("--kafka", default="127.0.0.1:9092")
    parser.add_argument("--cql", default="127.0.0.1:9042")
    parser.add_argument("--named", action="store_true", help="of `roles`: with ids that the producer chooses")
    parser.add_argument("--partitions", type=lambda text: [int(n) for n in text.split(",")], default=[4], help="of `roles`, such as 1,4,16,64")
    parser.add_argument("--out", default="results.json")
    options = parser.parse_args()
    options.texts, options.out = os.path.abspath(options.texts), os.path.abspath(options.out)
    os.chdir(ROOT)
    texts = [line.split("\t")[0].strip() for line in open(options.texts, encoding="utf-8")]
    texts = [text for text in texts if text][:20_000]
    parts = {"ingest": ingest, "path": path, "freshness": freshness, "roles": on_servers, "guarantees": guarantees}
    results = {"date": time.strftime("%Y-%m-%d"), "cpus": os.cpu_count(), "seconds": options.seconds}
    for name in options.only.split(","):
        results[name] = parts[name](options, texts)
        print(name, json.dumps(results[name], indent=1), flush=True)
    if options.peer:
        letters = {"ingest": "a", "path": "d", "roles": "d"}
        asked = sorted({letters[name] for name in options.only.split(",") if name in letters})
        results["peer"] = peer(options, ",".join(asked)) if asked else {}
        print("\n| measure | Weir | Python | ratio |\n|---|---|---|---|")
        for row in ratios(results):
            print("| " + " | ".join(map(str, row)) + " |")
    pathlib.Path(options.out).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
