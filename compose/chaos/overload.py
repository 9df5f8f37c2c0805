"""Ten times the usual load, most of it by two keys that are over their limit, and what it may cost the others."""
import concurrent.futures
import contextlib
import multiprocessing
import os
import time

import load

TIMES = 10
# Processes that send, and producers in each.
FLOODS, PRODUCERS = 2, 16
# Messages a second that a door takes of one key meanwhile, as a multiple of the usual load: more than the
# usual producers and the probers send, each with keys of their own, and less than the flood. At least so many.
LIMIT, LEAST = 1.5, 30
# What the memory of a process may grow by, and the p99 of an accepted request of the usual producers.
MEMORY, P99 = 1.2, 3
# Fewer requests have no p99.
ENOUGH = 200


def p99(seconds):
    return sorted(seconds)[int(len(seconds) * 0.99)] if seconds else 0.0


def bounds(before, most, normal, under):
    """[what is over its bound].

    before, most: {process: MiB}, the peaks under the usual load and under overload;
    normal, under: the seconds that each accepted request of the usual producers took.
    """
    wrong = [f"memory of {name} {most[name] / mib:.2f} times its usual, over the bound of {MEMORY}"
             for name, mib in before.items() if mib and most.get(name, 0) > MEMORY * mib]
    if min(len(normal), len(under)) < ENOUGH:
        wrong.append(f"only {len(normal)} and {len(under)} accepted requests to tell a p99 from")
    elif p99(under) > P99 * p99(normal):
        wrong.append(f"p99 of accepted requests {p99(under) / p99(normal):.1f} times its usual, over the bound of {P99}")
    return wrong


def peaks(run, until):
    """The most memory of each process from now to then, in MiB."""
    most = {}
    while time.time() < until:
        for process in run.cluster.processes:
            if process.running():
                most[process.name] = max(most.get(process.name, 0), process.memory())
        time.sleep(0.2)
    return most


def overload(run):
    """ten times the usual load, twice"""
    # What a young process grows by is its program and its buffers, which it keeps: the first time fills
    # them, and the second shows whether more load takes more memory.
    keys = {tenant: run.cluster.make_key(tenant) for tenant in run.keys}
    with limited(run):
        once(run, 0, "the first time", keys)
        run.whole("the first overload")
        wrong = once(run, 1, "the second time", keys)
    for what in wrong:
        # Some seconds tell no p99, and a short form runs beside other work.
        run.remarks.append(f"Overload: {what}.") if run.options.short else run.violated([(what, ("", ""))])


@contextlib.contextmanager
def limited(run):
    """Doors that refuse a key what is over the limit."""
    setting = {"WEIR_AUTH__CALLER_PER_SECOND": str(max(LEAST, int(LIMIT * run.rate)))}

    def restart(change):
        for door in run.cluster.doors():
            door.env = change(door.env)
            door.restart()
            run.cluster.wait_ready()

    restart(lambda env: env | setting)
    try:
        run.whole("a restart of the doors")
        yield
    finally:
        restart(lambda env: {name: value for name, value in env.items() if name not in setting})


def flood(*args):
    # It would come from other machines: it takes no core from those that it is to be measured on.
    os.nice(5)
    return load.flood(*args)


def once(run, number, when, keys):
    """[what is over its bound]"""
    seconds, calm = run.long(10, 60), run.long(10, 30)
    answers, addresses = dict(run.ledger.answers), [door.address for door in run.cluster.doors()]
    begins, rate = time.time() + calm, run.rate * (TIMES - 1) / FLOODS
    first = 100 * (1 + 2 * run.rounds["overload"] + number)
    with concurrent.futures.ProcessPoolExecutor(FLOODS, multiprocessing.get_context("spawn")) as pool:
        floods = [pool.submit(flood, addresses, run.options.seed, keys, first + PRODUCERS * n, PRODUCERS, rate, begins, seconds)
                  for n in range(FLOODS)]
        before = peaks(run, begins)
        most = peaks(run, begins + seconds)
        ended = time.time()
        normal = [took for at, took in list(run.ledger.accepted) if begins - calm <= at < begins]
        under = [took for at, took in list(run.ledger.accepted) if begins <= at < ended]
        for one in floods:
            run.ledger.add(one.result())
    taken = [took for at, took in run.ledger.accepted if begins <= at < ended]
    refused = sum(run.ledger.answers[status] - answers.get(status, 0) for status in (429, 503))
    grown = {name: most[name] / mib for name, mib in before.items() if mib and name in most}
    largest = max(grown, key=grown.get)
    run.remarks.append(
        f"Overload, {when}: {len(taken) / seconds:.0f} accepted requests a second, {len(normal) / calm:.0f} before; "
        f"p99 of one {p99(taken) * 1e3:.0f} ms, of the usual producers {p99(under) * 1e3:.0f} ms, {p99(normal) * 1e3:.0f} ms before; "
        f"{refused / seconds:.0f} requests a second refused; memory at most {grown[largest]:.2f} times what it was ({largest}: {before[largest]:.0f} MiB, "
        f"then {most[largest]:.0f}).")
    if not refused:
        run.violated([("nothing was refused under ten times the load", ("", ""))])
    return bounds(before, most, normal, under)
