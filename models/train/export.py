"""Writes the model folder that the scorer loads: int8 ONNX, tokenizer, thresholds, golden scores.

    python export.py --data DIR --model OUT/model.pt --to ../weir-small-1

The graph is int8 with activation ranges measured on dev texts (see graph.py). Thresholds are chosen on the dev rows of data.py. Prints how far int8 is from fp32.
"""
import argparse
import hashlib
import json
import pathlib
import random

import numpy as np
import torch
from sklearn.metrics import f1_score, precision_recall_curve
from tokenizers import Tokenizer

import data
import graph
import model as nets
from normalise import normalise
from scorer import Scorer
from vectors import PICKED

TOLERANCE = 0.05  # of a golden score, any processor, any batch


def export(checkpoint, calibration, path):
    """Writes the int8 graph; answers the PyTorch model it came from."""
    kept = torch.load(checkpoint, weights_only=True)
    net = nets.Weir(len(kept["keep"]))
    net.load_state_dict(kept["state"])
    net.eval()
    t = Tokenizer.from_file(str(path.with_name("tokenizer.json")))
    rows = sorted((e.ids for e in t.encode_batch(calibration)), key=len)

    def batches():
        for n in range(0, len(rows), 16):
            ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(r) for r in rows[n : n + 16]], batch_first=True)
            yield ids, (ids != 0).long()

    graph.build(net, graph.ranges(net, batches()), path)
    return net


class Exact:
    """The PyTorch model in float, behind the face of Scorer."""

    def __init__(self, net, folder):
        self.net, self.tokenizer = net, Tokenizer.from_file(str(folder / "tokenizer.json"))

    @torch.no_grad()
    def score(self, texts):
        attributes, sentiment, tokens = [], [], []
        for e in self.tokenizer.encode_batch(texts):
            ids = torch.tensor([e.ids])
            a, s, t = self.net(ids, torch.ones_like(ids))
            attributes.append(a[0].sigmoid().numpy())
            sentiment.append(s[0].softmax(-1).numpy())
            tokens.append((e.offsets, t[0].sigmoid().numpy()))
        return np.stack(attributes), np.stack(sentiment), tokens


def tokenizer(path):
    t = json.loads((nets.package_dir() / "tokenizer.json").read_text())
    t["padding"] = None
    t["truncation"] = {"direction": "Right", "max_length": nets.POSITIONS, "strategy": "LongestFirst", "stride": 0}
    path.write_text(json.dumps(t, ensure_ascii=False))


def level(gold, score, precision):
    """The lowest threshold from which on precision holds with 30 or more texts above it, else None."""
    order = np.argsort(-score)
    right = np.cumsum(gold[order]) / np.arange(1, len(gold) + 1)
    fine = [n for n in range(29, len(gold)) if right[n] >= precision]
    return None if not fine else round(float(score[order[fine[-1]]]), 3)


def thresholds(rows, attributes):
    """{attribute: {flag, hold, block}}: best F1 with precision 0.5 or more, precision 0.9, precision 0.97; rising, or null."""
    out = {}
    for n, name in enumerate(data.ATTRIBUTES):
        at = [i for i, r in enumerate(rows) if r.labels[name] is not None]
        gold, score = np.array([rows[i].labels[name] for i in at]), attributes[at, n]
        precision, recall, cut = precision_recall_curve(gold, score)
        best = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
        best[precision < 0.5] = 0
        flag = round(float(cut[best[:-1].argmax()]), 3)
        hold, block = level(gold, score, 0.9), level(gold, score, 0.97)
        hold = None if hold is None else max(hold, min(0.99, round(flag + 0.05, 3)))
        block = None if block is None or hold is None else max(block, min(0.995, round(hold + 0.05, 3)))
        out[name] = {"flag": flag, "hold": hold, "block": block}
        print(f"{name}: {gold.sum()} of {len(gold)}, F1 {best.max():.3f}", out[name])
    return out


def span_threshold(rows, tokens):
    """Best mean character F1 over rows with spans."""
    def mean(cut):
        return np.mean([char_f1(r.spans, [o for o, s in zip(*t) if s >= cut and o[1] > o[0]]) for r, t in zip(rows, tokens)])
    scores = {c: mean(c) for c in np.round(np.arange(0.2, 0.85, 0.05), 2)}
    best = max(scores, key=scores.get)
    print("spans: character F1", round(scores[best], 4), "at", best)
    return float(best)


def char_f1(gold, found):
    gold = {c for s, e in gold for c in range(s, e)}
    found = {c for s, e in found for c in range(s, e)}
    if not gold or not found:
        return float(gold == found)
    return 2 * len(gold & found) / (len(gold) + len(found))


def golden(root, scorer, path):
    """Scores of single texts, each alone in its batch."""
    lines = [line.split("\t")[0] for line in open(root / "goemotions/test.tsv", encoding="utf-8")]
    texts = [t for t in PICKED if t.strip()][::4] + random.Random(3).sample(lines, 24)
    texts += ["You are a complete idiot and everybody hates you.", "I will find you and kill you", "Thank you so much, have a lovely day!",
              "gg ez noob team", "what the fuck was that play lol", "All of them should be deported, vermin.", "The bus leaves at nine.",
              "this is fucking awesome, love it", "shut up you worthless piece of trash", "kys", "I don't like this film at all.", "meh"]
    with open(path, "w", encoding="utf-8") as out:
        for text in texts:
            a, s, _ = scorer.score([text])
            out.write(json.dumps({"text": text, "normalised": normalise(text),
                                  "scores": {n: round(float(v), 5) for n, v in zip(data.ATTRIBUTES, a[0])},
                                  "sentiment": {n: round(float(v), 5) for n, v in zip(data.SENTIMENT, s[0])}}, ensure_ascii=False) + "\n")


def compare(name, one, other):
    for head, a, b in (("attributes", one[0], other[0]), ("sentiment", one[1], other[1])):
        d = np.abs(a - b)
        print(f"{name}, {head}: mean {d.mean():.4f}, 99.9 % {np.quantile(d, 0.999):.4f}, max {d.max():.4f}")
    d = np.concatenate([np.abs(x[1] - y[1]) for x, y in zip(one[2], other[2])])
    print(f"{name}, token_toxicity: mean {d.mean():.4f}, 99.9 % {np.quantile(d, 0.999):.4f}, max {d.max():.4f}")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--data", type=pathlib.Path, required=True)
    p.add_argument("--model", type=pathlib.Path, required=True)
    p.add_argument("--to", type=pathlib.Path, required=True)
    p.add_argument("--dev", type=int, default=10**6, help="use at most so many dev rows (for a trial)")
    o = p.parse_args()
    torch.set_num_threads(1)
    o.to.mkdir(parents=True, exist_ok=True)
    tokenizer(o.to / "tokenizer.json")
    _, dev = data.load(o.data, train=False)
    dev = random.Random(4).sample(dev, min(o.dev, len(dev)))
    texts = [r.text for r in dev]
    net = export(o.model, random.Random(6).sample(texts, min(400, len(texts))), o.to / "model.onnx")
    served = Scorer(o.to)
    scores = served.score(texts, normalised=True)
    some = random.Random(5).sample(range(len(dev)), min(2000, len(dev)))

    def pick(r):
        return r[0][some], r[1][some], [r[2][i] for i in some]

    exact = Exact(net, o.to).score([texts[i] for i in some])
    alone = Scorer(o.to, batch=1).score([texts[i] for i in some], normalised=True)
    mixed = served.score([texts[i] for i in some], normalised=True)
    compare("int8 in batches of 16 against fp32", mixed, exact)
    compare("int8 alone against int8 in batches of 16", alone, mixed)
    compare("int8 in other company", pick(scores), mixed)
    for source, column in (("offensive", 0), ("conda", 0), ("hatemoji", 4)):
        at = [k for k, i in enumerate(some) if dev[i].source == source]
        gold = [dev[some[k]].labels[data.ATTRIBUTES[column]] for k in at]
        print(source, "macro-F1 at 0.5, fp32, int8:", [round(f1_score(gold, r[0][at, column] > 0.5, average="macro"), 4) for r in (exact, mixed)])
    at = [k for k, i in enumerate(some) if dev[i].source == "semeval"]
    print("sentiment accuracy, fp32, int8:", [round(float(np.mean([r[1][k].argmax() == dev[some[k]].sentiment for k in at])), 4) for r in (exact, mixed)])
    levels = thresholds(dev, scores[0])
    spanned = [i for i, r in enumerate(dev) if r.spans is not None]
    cut = span_threshold([dev[i] for i in spanned], [scores[2][i] for i in spanned])
    golden(o.data, served, o.to / "golden.jsonl")
    files = {n: hashlib.sha256((o.to / n).read_bytes()).hexdigest() for n in ("model.onnx", "tokenizer.json")}
    info = {"name": "weir-small-1", "layers": len(net.layers), "sha256": files, "max_tokens": nets.POSITIONS, "attributes": data.ATTRIBUTES,
            "sentiment": data.SENTIMENT, "inputs": ["input_ids", "attention_mask"], "outputs": ["attributes", "sentiment", "token_toxicity"],
            "thresholds": levels, "span_threshold": cut, "tolerance": TOLERANCE}
    (o.to / "model.json").write_text(json.dumps(info, indent=1) + "\n")
    print({f.name: f.stat().st_size for f in o.to.iterdir()})


if __name__ == "__main__":
    main()
