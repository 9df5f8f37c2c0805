"""Scores the test splits and prints the table of the model card.

    python evaluate.py --data DIR --weir PATH        through the binary (`weir score`), as users get it
    python evaluate.py --data DIR --onnx ../weir-small-1   through Python ONNX Runtime

Two columns. "own": the threshold with the best macro-F1 on that benchmark's validation split (for CONDA, held-out
matches of its training file). "product": the model's `flag` threshold, the same for every benchmark.
HateCheck and HatemojiCheck have no validation split, so they have only the second. Test splits choose nothing.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile

import numpy as np
from sklearn.metrics import f1_score, recall_score

import data
from export import char_f1

TOXICITY, IDENTITY = 0, 4


def through_weir(binary, texts):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        file.writelines(json.dumps({"id": str(n), "text": t}) + "\n" for n, t in enumerate(texts))
        file.flush()
        out = subprocess.run([binary, "score", "--format", "jsonl", "--field", "text", file.name],
                             check=True, capture_output=True, text=True).stdout
    verdicts = [json.loads(line) for line in out.splitlines()]
    assert len(verdicts) == len(texts), (len(verdicts), len(texts))
    assert all(v.get("id", str(n)) == str(n) for n, v in enumerate(verdicts)), "verdicts out of order"
    attributes = np.array([[v["scores"][a] for a in data.ATTRIBUTES] for v in verdicts])
    return attributes, np.array([[v["sentiment"][s] for s in data.SENTIMENT] for v in verdicts])


def raw(root, name):
    """(texts as users send them, gold) of a test or validation split."""
    if name in ("offensive/test", "offensive/val", "hate/test", "hate/val", "sentiment/test", "sentiment/val"):
        return zip(*data.tweeteval(root, *name.split("/")))
    if name == "conda/valid":
        return zip(*[(r["utterance"], int(r["intentClass"] in "EI")) for r in data.table(root / "conda/CONDA_valid.csv")])
    if name == "conda/held":
        return zip(*[(r["utterance"], int(r["intentClass"] in "EI")) for r in data.table(root / "conda/CONDA_train.csv")
                     if data.fraction(r["matchId"]) < data.CONDA_HELD])
    if name == "hatecheck":
        return zip(*[(r["test_case"], int(r["label_gold"] == "hateful")) for r in data.table(root / "hatecheck/test_suite_cases.csv")])
    if name == "hatemojicheck":
        return zip(*[(r["text"], int(r["label_gold"])) for r in data.table(root / "hatemoji/HatemojiCheck_test.csv")])
    raise KeyError(name)


def best(gold, score):
    cuts = np.arange(0.02, 0.99, 0.01)
    return float(cuts[np.argmax([f1_score(gold, score >= c, average="macro") for c in cuts])])


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--data", type=pathlib.Path, required=True)
    p.add_argument("--weir")
    p.add_argument("--onnx", type=pathlib.Path)
    p.add_argument("--model", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent / "weir-small-1",
                   help="with --weir: whose thresholds are reported")
    o = p.parse_args()
    scorer = None
    if o.onnx:
        from scorer import Scorer
        scorer = Scorer(o.onnx)
    info = json.loads(((o.onnx or o.model) / "model.json").read_text())

    def scores(texts):
        return scorer.score(list(texts))[:2] if scorer else through_weir(o.weir, list(texts))

    print("| benchmark | texts | metric | own threshold | product threshold |\n|---|---|---|---|---|")
    for title, test, val, column in (("TweetEval offensive, test", "offensive/test", "offensive/val", TOXICITY),
                                     ("TweetEval hate, test", "hate/test", "hate/val", IDENTITY),
                                     ("CONDA, validation (toxic or not)", "conda/valid", "conda/held", TOXICITY),
                                     ("HateCheck", "hatecheck", None, IDENTITY),
                                     ("HatemojiCheck", "hatemojicheck", None, IDENTITY)):
        own = "none"
        texts, gold = raw(o.data, test)
        score = scores(texts)[0][:, column]
        if val:
            val_texts, val_gold = raw(o.data, val)
            cut = best(np.array(val_gold), scores(val_texts)[0][:, column])
            own = f"{100 * f1_score(gold, score >= cut, average='macro'):.1f} at {cut:.2f}"
        flag = info["thresholds"][data.ATTRIBUTES[column]]["flag"]
        product = f"{100 * f1_score(gold, score >= flag, average='macro'):.1f} at {flag:.2f}"
        print(f"| {title} | {len(gold)} | macro-F1, {data.ATTRIBUTES[column]} | {own} | {product} |", flush=True)
    texts, gold = raw(o.data, "sentiment/test")
    recall = recall_score(gold, scores(texts)[1].argmax(1), average="macro")
    print(f"| TweetEval sentiment, test | {len(gold)} | macro-recall | none needed | {100 * recall:.1f} |")
    if scorer:
        rows = list(data.civil(o.data, "tsd_test"))
        found = [[s for s, t in zip(*tokens) if t >= info["span_threshold"] and s[1] > s[0]]
                 for tokens in scorer.score([r.text for r in rows], normalised=True)[2]]
        f1 = np.mean([char_f1(r.spans, f) for r, f in zip(rows, found)])
        print(f"| Toxic spans (SemEval-2021 task 5), test | {len(rows)} | mean character F1 | none | {100 * f1:.1f} at {info['span_threshold']:.2f} |")


if __name__ == "__main__":
    main()
