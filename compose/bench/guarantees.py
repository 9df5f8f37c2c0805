"""What the guarantees cost: the same messages with and without the memory of ids and fdatasync.

fdatasync is left out by libeatmydata (Debian `eatmydata`), the memory of ids by a setting that
keeps one. Neither is a way to run Weir.
"""
import concurrent.futures
import glob
import json
import time

import run

VARIANTS = {
    # name: (producer chooses ids, settings, without fdatasync)
    "as it is, ids chosen by the producer": (True, {}, False),
    "as it is, ids given by Weir": (False, {}, False),
    "no memory of ids": (False, {"WEIR_INGEST__RECENT_IDS": 1}, False),
    "no fdatasync": (True, {}, True),
    "neither": (False, {"WEIR_INGEST__RECENT_IDS": 1}, True),
}


def measure(options, texts, roles, number, with_ids, settings):
    source = run.messages(texts, number + 1_000)
    if with_ids:
        source = [message | {"id": f"m-{at}"} for at, message in enumerate(source)]
    bodies = [json.dumps(source[at:at + 100]) for at in range(0, len(source), 100)]
    with run.Weir(options.weir, roles=roles, **settings) as weir:
        def send(part):
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                assert {status for status, _ in pool.map(lambda body: weir.call("POST", "/v1/messages/batch", body), part)} == {202}

        def settled(count):
            while roles is None and weir.stored() < count:
                time.sleep(0.1)

        send(bodies[:10])
        settled(1_000)
        used, began = weir.cpu(), time.time()
        send(bodies[10:])
        settled(number + 1_000)
        seconds, used = time.time() - began, weir.cpu() - used
        return {"messages_per_s": round(number / seconds), "cpu_ms_per_1000": round(used * 1e6 / number, 1)}


def costs(options, texts):
    library = next(iter(glob.glob("/usr/lib/*/libeatmydata.so") + glob.glob("/usr/lib/*/libeatmydata.so.1")), None)
    results = {}
    for name, (with_ids, settings, unsynced) in VARIANTS.items():
        if unsynced and not library:
            print(f"left out, there is no libeatmydata: {name}")
            continue
        settings = settings | ({"LD_PRELOAD": library} if unsynced else {})
        results[name] = {"accepting": measure(options, texts, "ingest", 200_000, with_ids, settings),
                         "whole_path": measure(options, texts, None, 10_000, with_ids, settings)}
        print(name, json.dumps(results[name]), flush=True)
    return results


def bytes_per_id(options, number=1_000_000):
    """Resident memory of the door for each id that a producer chose and that it remembers."""
    with run.Weir(options.weir, roles="ingest", WEIR_INGEST__RECENT_IDS=2 * number) as weir:
        def send(first, last):
            for at in range(first, last, 1_000):
                batch = [{"channel": f"c-{n % 64}", "id": f"message-{n:012}", "text": "hello"} for n in range(at, at + 1_000)]
                assert weir.call("POST", "/v1/messages/batch", json.dumps(batch))[0] == 202
            time.sleep(2)
            return weir.rss_mib()

        before = send(0, number // 2)
        after = send(number // 2, number * 3 // 2)
        return {"ids": number, "rss_before_mib": before, "rss_after_mib": after, "bytes_per_id": round((after - before) * 2**20 / number)}
