"""Ten times the usual load, and what it may cost."""
import concurrent.futures
import multiprocessing
import time

import load

TIMES = 10
# Processes that send, and producers in each.
FLOODS, PRODUCERS = 2, 16
# What the memory of a process may grow by, and the p99 of an accepted request.
MEMORY, P99 = 1.2, 3
# Fewer requests have no p99.
ENOUGH = 200


def p99(seconds):
    return sorted(seconds)[int(len(seconds) * 0.99)] if seconds else 0.0


def bounds(before, most, normal, under):
    """[what is over its bound].

    before, most: {process: MiB}, the peaks under the usual load and under overload;
    normal, under: the seconds that each accepted request took.
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
    once(run, 0, "the first time")
    run.whole("the first overload")
    wrong = once(run, 1, "the second time")
    for what in wrong:
        # Some seconds tell no p99, and a short form runs beside other work.
        run.remarks.append(f"Overload: {what}.") if run.options.short else run.violated([(what, ("", ""))])


def once(run, number, when):
    """[what is over its bound]"""
    seconds, calm = run.long(10, 60), run.long(10, 30)
    answers, addresses = dict(run.ledger.answers), [door.address for door in run.cluster.doors()]
    begins, rate = time.time() + calm, run.rate * (TIMES - 1) / FLOODS
    first = 100 * (1 + 2 * run.rounds["overload"] + number)
    with concurrent.futures.ProcessPoolExecutor(FLOODS, multiprocessing.get_context("spawn")) as pool:
        floods = [pool.submit(load.flood, addresses, run.options.seed, run.keys, first + PRODUCERS * n, PRODUCERS, rate, begins, seconds)
                  for n in range(FLOODS)]
        before = peaks(run, begins)
        most = peaks(run, begins + seconds)
        ended = time.time()
        normal = [took for at, took in list(run.ledger.accepted) if begins - calm <= at < begins]
        usual = [took for at, took in list(run.ledger.accepted) if begins <= at < ended]
        for flood in floods:
            run.ledger.add(flood.result())
    under = [took for at, took in run.ledger.accepted if begins <= at < ended]
    refused = sum(run.ledger.answers[status] - answers.get(status, 0) for status in (429, 503))
    grown = {name: most[name] / mib for name, mib in before.items() if mib and name in most}
    largest = max(grown, key=grown.get)
    run.remarks.append(
        f"Overload, {when}: {len(under) / seconds:.0f} accepted requests a second, {len(normal) / calm:.0f} before; "
        f"p99 of one {p99(under) * 1e3:.0f} ms (of the usual producers {p99(usual) * 1e3:.0f} ms), {p99(normal) * 1e3:.0f} ms before; "
        f"{refused} requests refused; memory at most {grown[largest]:.2f} times what it was ({largest}: {before[largest]:.0f} MiB, "
        f"then {most[largest]:.0f}).")
    return bounds(before, most, normal, under)
