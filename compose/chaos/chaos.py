"""Breaks Weir on purpose and compares what was acknowledged with every store. See README.md."""
import argparse
import collections
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import cluster
import compare
import copies
import counters
import faults
import load
import probe
import records
import stores
import tables
from report import FIRST, report

DISK_MIB = 400
# The longest that a rebalance may hold up a verdict, in seconds.
STALL = 10
# Of the messages that the producers would send undisturbed, at least so many must be acknowledged:
# with hardly any, nothing can go wrong.
SHARE = 0.1
# The longest that Weir may take to be whole again after anything, in seconds.
WHOLE = 120
ACTIONS = {1: "allow", 2: "flag", 3: "hold", 4: "block"}


class Run:
    """One run on one kind of backends."""

    def __init__(self, options, kind, folder):
        self.options, self.kind, self.rounds = options, kind, collections.Counter()
        self.random = random.Random(f"{options.seed} {kind}")
        self.folder, self.mounted, self.left_out = folder, None, {}
        self.ledger, self.rate = load.Ledger(), options.rate
        self.dead, self.refused, self.events, self.violations, self.remarks = set(), set(), [], [], []
        self.looked, self.copies, self.suffix = 0, [], ""
        if kind == "real":
            self.cluster = cluster.Real(options.weir, folder, options.partitions)
            return
        self.mounted = faults.tmpfs(folder / "disk", DISK_MIB)
        if not self.mounted:
            self.left_out["full_disk"] = "it needs the right to mount a small disk"
        try:
            self.cluster = cluster.Embedded(options.weir, folder, self.mounted and self.mounted / "data")
        except BaseException:
            # Nobody else knows of it yet.
            self.unmount()
            raise

    def long(self, short, long):
        return short if self.options.short else long

    def say(self, text):
        print(f"{time.strftime('%H:%M:%S')} {self.kind}: {text}", file=sys.stderr, flush=True)

    def violated(self, found):
        """Said at once, up to some: whoever watches need not wait for the report."""
        found = [(what + self.suffix, key) for what, key in found]
        for what, key in found[:max(0, FIRST - len(self.violations))]:
            self.say(f"VIOLATION {what}: {key}")
        self.violations += found

    def look(self):
        """What the producers have found since."""
        found = self.ledger.faults[self.looked:]
        self.looked += len(found)
        self.violated(found)

    def producers(self, number, rate):
        made = [load.Producer(n, self.options.seed, self.cluster, self.keys, self.ledger, rate) for n in range(number)]
        for producer in made:
            producer.start()
        return made

    def supervise(self):
        while not self.over.wait(0.2):
            self.cluster.watch()

    def faults(self):
        """In an order that the seed decides."""
        all_of_them = faults.ALL[self.kind]
        chosen = (faults.SHORT if self.options.short else faults.ALL)[self.kind]
        if self.options.only:
            known = {fault.__name__ for fault in faults.REAL + faults.EMBEDDED} | {"kill"}
            if unknown := set(self.options.only) - known:
                raise SystemExit(f"there is no fault {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
            chosen = [fault for fault in all_of_them if fault.__name__ in self.options.only]
        chosen = [fault for fault in chosen if fault.__name__ not in self.left_out]
        chosen *= self.options.repeat
        self.random.shuffle(chosen)
        if faults.backup in chosen:
            # Of one that has something to lose, and of one that has been through it.
            chosen = [fault for fault in chosen if fault is not faults.backup]
            chosen.insert(len(chosen) // 2, faults.backup)
            chosen.append(faults.backup)
        return chosen

    def work(self):
        self.over = threading.Event()
        self.cluster.wait_ready()
        self.keys = {tenant: self.cluster.make_key(tenant) for tenant in ("default", "other")}
        threading.Thread(target=self.supervise, daemon=True).start()
        counters.counters(self, "before")
        self.sql = probe.Counts(self.cluster, self.keys, self.violated)
        self.sql.start()
        self.probers = probe.Probers(self.cluster, "default", self.cluster.make_key("default"), self.ledger)
        self.probers.start()
        began, producers = time.time(), self.producers(8, self.rate / 8)
        time.sleep(3)
        kills = 0 if self.options.only and "kill" not in self.options.only else self.options.kills
        plan = self.faults()
        for number in range(max(kills, len(plan))):
            if number < len(plan):
                self.broken(plan[number])
            # The kills are spread over the other faults.
            for _ in range(kills * (number + 1) // max(len(plan), 1) - self.rounds["kill"] if number < len(plan) else kills - self.rounds["kill"]):
                self.broken(faults.kill)
                if self.kind == "embedded":
                    # One process is all of Weir: it has to be up to lose something.
                    self.cluster.watch()
                    self.cluster.wait_ready()
                time.sleep(max(0, 1 - self.random.random() * 0.2))
        time.sleep(2)
        self.sent_for = time.time() - began
        self.probers.stop()
        self.sql.stop()
        for producer in producers:
            producer.done.set()
        for producer in producers:
            producer.join()
        self.settle()
        counters.counters(self, "after")
        self.compare()
        for made in self.copies:
            copies.compare(self, made)

    def broken(self, fault):
        if fault is faults.rebalance:
            # A processor that was killed is missed for as long as its session lasts: that is no rebalance.
            self.whole("kills")
        began = time.time()
        what = fault(self)
        self.rounds[fault.__name__] += 1
        broken = time.time() - began
        self.say(f"{fault.__name__} {self.rounds[fault.__name__]}{f' ({what})' if what else ''}: {broken:.1f} s, "
                 f"{len(self.ledger.acknowledged)} acknowledged")
        if fault is not faults.kill:
            # The next fault meets a Weir that is whole again, and this says when it was.
            took = self.whole(fault.__name__)
            # Of those that were under way as well.
            longest = self.probers.longest(began)
            self.events.append((fault.__name__, broken, took, longest))
            if fault is faults.rebalance and longest > STALL:
                self.violated([(f"a verdict came only after {longest:.1f} s of a rebalance", ("", ""))])
        self.look()

    def whole(self, after):
        """Waits until every partition gives verdicts to what is sent now; how long that took, in seconds."""
        self.cluster.wait_ready()
        mended = time.time()
        while not self.probers.passed(mended):
            time.sleep(0.05)
            if time.time() - mended > WHOLE:
                self.violated([(f"no verdict in {WHOLE} s after {after}", ("", ""))])
                break
        return time.time() - mended

    def read(self):
        kafka = self.cluster.kafka()
        log = stores.decoded(stores.topic(kafka, "weir.messages"), records.message)
        verdicts = stores.decoded(stores.topic(kafka, "weir.verdicts"), records.verdict)
        return log, verdicts

    def settle(self):
        """Until everything that was acknowledged, and whatever else is in the log, is judged and in history and lake."""
        self.cluster.wait_ready()
        self.say("settling")
        began, wanted = time.time(), {}

        def judged():
            log, verdicts = self.read()
            wanted.update(compare.certain(self.ledger.acknowledged, self.ledger.unclear, log))
            left = wanted.keys() - {(v.message.tenant, v.message.id) for rows in verdicts.values() for _, v in rows}
            return not left or f"{len(left)} are not judged"

        def in_lake():
            left = wanted.keys() - {key for key, _ in stores.lake(self.cluster.lake)}
            return not left or f"{len(left)} are not in the lake"

        def in_history():
            if self.kind == "real":
                held = tables.held(self.cluster.cassandra_port)
            else:
                rows = stores.history_over_http(self.cluster.doors()[0].address, self.keys, wanted)[0]["history by channel"]
                held = {key for key, _ in rows}
            left = wanted.keys() - held
            return not left or f"{len(left)} are not in the history"

        for what, done in (("all is judged", judged), ("all is in the lake", in_lake), ("all is in the history", in_history)):
            try:
                stores.wait(what, self.options.patience, done)
            except RuntimeError as error:
                # The comparison says which they are.
                self.violated([(str(error), ("", ""))])
        time.sleep(3)
        self.settled = time.time() - began

    def compare(self):
        ledger, address = self.ledger, self.cluster.doors()[0].address
        log, verdicts = self.read()
        expected = compare.certain(ledger.acknowledged, ledger.unclear, log)
        optional = self.refused
        plain = {partition: [v for _, v in rows] for partition, rows in verdicts.items()}
        found, order = {}, []
        found["lake"] = stores.lake(self.cluster.lake)
        self.violated(stores.lake_content(self.cluster.lake, expected))
        found["SQL"] = stores.sql(self.cluster.sql().address, self.keys)
        doors = self.cluster.doors()
        for door in doors:
            shown, wrong = stores.history_over_http(door.address, self.keys, expected)
            order += wrong
            suffix = f", {door.name}" if len(doors) > 1 else ""
            found |= {f"{name}{suffix}": rows for name, rows in shown.items()}
        if self.kind == "real":
            held = tables.read(self.cluster.cassandra_port)
            found |= tables.rows(held)
            self.violated(tables.wrong(held, expected, compare.effective(plain)))
        self.look()
        self.violated(order)
        self.violated([(f"{process.name} ended by itself ({end})", ("", "")) for process in self.cluster.processes for end in process.ends])
        if len(ledger.acknowledged) < self.options.rate * self.sent_for * SHARE:
            self.violated([(f"only {len(ledger.acknowledged)} messages were acknowledged in {self.sent_for:.0f} s", ("", ""))])
        self.violated(compare.compare(expected, optional, log, plain, found))
        self.violated(compare.answered(ledger.judged, plain))
        self.violated(compare.out_of_order(ledger.order, log))
        counted = collections.Counter((tenant, ACTIONS[rows[0].action]) for (tenant, _), rows in compare.effective(plain).items())
        shown = stores.actions(self.cluster.sql().address, self.keys)
        self.violated([(f"SQL counts {shown.get(key, 0)} and not {counted[key]} of", key)
                       for key in sorted(counted.keys() | shown.keys()) if shown.get(key, 0) != counted[key]])
        self.violated(compare.dead_letters(self.letters(), self.expected_letters(expected, log, verdicts)))
        self.counts = {"acknowledged": len(ledger.acknowledged), "unclear": len(ledger.unclear),
                       "of these in the log": len(expected) - len(ledger.acknowledged),
                       "records in weir.messages": sum(map(len, log.values())),
                       "records in weir.verdicts": sum(map(len, verdicts.values())),
                       "of these repeats": compare.repeats(plain), "stores compared": len(found)}

    def letters(self):
        rows = stores.topic(self.cluster.kafka(), "weir.dead")
        return [records.dead_letter(payload) for partition in rows.values() for _, payload in partition]

    def expected_letters(self, expected, log, verdicts):
        wanted = set(self.dead)
        # Another text under an id that was taken, and that no door knew of.
        for partition, rows in log.items():
            for offset, message in rows:
                key = (message.tenant, message.id)
                if expected.get(key, compare.said(message)) != compare.said(message):
                    wanted.add(("process", "id_conflict", "weir.messages", partition, offset))
        for partition, rows in verdicts.items():
            wanted |= {("history", "refused_by_store", "weir.verdicts", partition, offset) for offset, verdict in rows
                       if (verdict.message.tenant, verdict.message.id) in self.refused}
        return wanted

    def close(self):
        self.over.set() if hasattr(self, "over") else None
        self.cluster.close()
        self.unmount()

    def unmount(self):
        if self.mounted:
            subprocess.run(["umount", "-l", self.mounted], check=False)


def terminated(number, frame):
    """As a failure would: what was started is ended, once."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + number)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weir", required=True, help="the program")
    parser.add_argument("--backends", default="embedded,real", help="embedded, real or both")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--short", action="store_true", help="a few minutes: few kills, some of the faults")
    parser.add_argument("--kills", type=int, help="SIGKILL rounds [default: 300, short 6]")
    parser.add_argument("--rate", type=int, default=120, help="messages a second")
    parser.add_argument("--repeat", type=int, default=1, help="rounds of each other fault")
    parser.add_argument("--only", type=lambda text: text.split(","), help="these faults only, such as kill_broker,poison")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--patience", type=int, default=180, help="seconds to settle")
    parser.add_argument("--out", default="chaos.md")
    parser.add_argument("--keep", action="store_true", help="keep logs and data")
    options = parser.parse_args()
    options.said = [word for word in sys.argv[1:] if word not in ("--weir", options.weir, "--out", options.out, "--keep")]
    options.kills = options.kills if options.kills is not None else (6 if options.short else 300)
    signal.signal(signal.SIGTERM, terminated)
    runs, failed = [], None
    for kind in options.backends.split(","):
        folder = pathlib.Path(tempfile.mkdtemp(prefix=f"weir-chaos-{kind}-"))
        run = None
        try:
            run = Run(options, kind, folder)
            runs.append(run)
            run.work()
            run.say(f"{len(run.violations)} violations, {run.counts}")
        except (Exception, KeyboardInterrupt) as error:
            failed = f"{kind}: {error!r}"
            print(failed, file=sys.stderr)
        finally:
            if run:
                run.close()
            if options.keep or failed or (run and run.violations):
                print(f"logs and data are in {folder}", file=sys.stderr)
            else:
                shutil.rmtree(folder, ignore_errors=True)
        # After each kind: one that is interrupted leaves what the one before has shown.
        text = report(options, runs, failed)
        pathlib.Path(options.out).write_text(text)
        if failed:
            break
    print(text)
    return 1 if failed or any(run.violations for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
