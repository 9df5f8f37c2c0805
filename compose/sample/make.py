"""Writes comments.jsonl: a fixed sample of real comments under invented channels and senders.

    python make.py --data DIR
"""
import argparse
import csv
import json
import pathlib
import random

CHANNELS = """general off-topic introductions help feedback announcements-chat ranked-matches casual-lobby trading-post
guild-hall patch-notes speedruns music movies-and-tv books cooking pets sports world-news local-politics science
programming memes late-night""".split()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--data", type=pathlib.Path, required=True)
    data, rng = p.parse_args().data, random.Random(20260101)
    reddit = [line.split("\t")[0] for name in ("dev", "test") for line in open(data / f"goemotions/{name}.tsv", encoding="utf-8")]
    civil = []
    for name in ("tsd_test", "tsd_trial"):
        with open(data / f"civil_toxic_spans/{name}.csv", encoding="utf-8", newline="") as file:
            civil += [r["text"] for r in csv.DictReader(file)]

    def some(texts, number):
        texts = sorted({t.strip() for t in texts if 1 <= len(t.strip().encode()) <= 8192})
        return rng.sample(texts, number)

    texts = some(reddit, 2000) + some(civil, 1000)
    rng.shuffle(texts)
    senders = [f"user-{n:03}" for n in range(1, 301)]
    with open(pathlib.Path(__file__).with_name("comments.jsonl"), "w", encoding="utf-8") as out:
        for n, text in enumerate(texts, 1):
            record = {"id": f"sample-{n:05}", "channel": rng.choice(CHANNELS), "sender": rng.choice(senders), "text": text}
            out.write(json.dumps(record, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
