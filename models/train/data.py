"""Reads every data set into one shape and maps its labels to the product's attributes.

A row holds raw text, six attribute labels (1, 0 or None = not known), a sentiment label or None,
and for some rows character spans of toxic words. The mapping is told in words in ../README.md.
Test splits are read only by the *_test functions, which training never calls.
"""
import ast
import csv
import dataclasses
import hashlib
import pathlib
import re

import lexicon
from normalise import normalise

ATTRIBUTES = ("toxicity", "severe_toxicity", "insult", "threat", "identity_attack", "profanity")
SENTIMENT = ("negative", "neutral", "positive")
CONDA_HELD = 0.08  # share of the matches of its training file that is held out
csv.field_size_limit(10_000_000)


@dataclasses.dataclass
class Row:
    source: str
    text: str  # normalised
    labels: dict  # attribute -> 0, 1 or None
    sentiment: int | None = None
    spans: list | None = None  # [(start, end)] characters of `text`


def fraction(text):
    """A stable number in [0, 1) for splitting and sampling."""
    return int.from_bytes(hashlib.sha1(text.encode()).digest()[:6]) / 2**48


def key(text):
    """Texts with the same key are taken for duplicates."""
    text = re.sub(r"http\S*|@\w+|&\w+;", "", text.lower())
    return re.sub(r"[^a-z0-9]+", "", text)


def row(source, text, toxic=None, sentiment=None, spans=None, **known):
    """Completes what follows from `toxic`, the labels given, and the word lists.

    Not toxic means none of the other attributes but profanity. A threat or an identity attack is
    severe when it is toxic and also a threat, or carries a slur. Profanity is the word list.
    """
    text = text if spans is not None else normalise(text)
    low = text.lower()
    labels = dict.fromkeys(ATTRIBUTES) | {"toxicity": toxic} | known
    labels["profanity"] = int(bool(lexicon.PROFANITY.search(low)))
    if toxic == 0:
        for name in ("severe_toxicity", "insult", "threat", "identity_attack"):
            labels[name] = 0 if labels[name] is None else labels[name]
    if toxic == 1:
        if labels["threat"] is None:
            labels["threat"] = int(bool(lexicon.THREAT.search(low)))
        if labels["insult"] is None and lexicon.INSULT.search(low):
            labels["insult"] = 1
        attack = labels["identity_attack"]
        if labels["threat"] or (attack and lexicon.SLUR.search(low)):
            labels["severe_toxicity"] = 1
        elif attack == 0 or source == "conda":
            labels["severe_toxicity"] = 0
    return Row(source, text, labels, sentiment, spans)


def lines(path):
    return pathlib.Path(path).read_text(encoding="utf-8").rstrip("\n").split("\n")


def table(path, delimiter=","):
    with open(path, encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file, delimiter=delimiter)


def tweeteval(root, task, split):
    folder = root / "tweeteval" / task
    return list(zip(lines(folder / f"{split}_text.txt"), map(int, lines(folder / f"{split}_labels.txt")), strict=True))


def offensive(root, split):
    return [row("offensive", t, y) for t, y in tweeteval(root, "offensive", split)]


def hate(root, split):
    return [row("hate", t, 1 if y else None, identity_attack=y) for t, y in tweeteval(root, "hate", split)]


def conda(root, split):
    """[(row, hold-out number by match)]; E and I are toxic, A and O are not."""
    for r in table(root / "conda" / f"CONDA_{split}.csv"):
        toxic = int(r["intentClass"] in ("E", "I"))
        yield row("conda", r["utterance"], toxic, **({"identity_attack": 0} if not toxic else {})), fraction(r["matchId"])


def davidson(root):
    for r in table(root / "davidson/labeled_data.csv"):
        hateful, neither = r["class"] == "0", r["class"] == "2"
        if r["class"] == "1" and fraction(r["tweet"] + "#") > 0.3:
            continue  # 19k of one kind would drown the rest
        yield row("davidson", r["tweet"], int(not neither), identity_attack=int(hateful))


def edos(root, split):
    for r in table(root / "edos/edos_labelled_aggregated.csv"):
        if r["split"] == split:
            sexist, vector = int(r["label_sexist"] == "sexist"), r["label_vector"]
            known = {"identity_attack": sexist}
            if sexist:
                known |= {"threat": int(vector.startswith("1"))}
            if vector.startswith("2.2") or vector.startswith("2.1"):
                known |= {"insult": 1}
            yield row("edos", r["text"].replace("[USER]", "@user").replace("[URL]", "http"), 1 if sexist else None, **known)


POSITIVE = {"admiration", "approval", "caring", "excitement", "gratitude", "joy", "love", "optimism", "pride", "relief"}


def goemotions(root, split):
    """Only clearly friendly comments: they teach that warmth with a swear word is not toxic."""
    names = lines(root / "goemotions/labels.txt")
    for line in lines(root / f"goemotions/{split}.tsv"):
        text, labels, _ = line.split("\t")
        labels = {names[int(n)] for n in labels.split(",")}
        if labels <= POSITIVE:
            yield row("goemotions", text, 0, sentiment=2)


def hatemoji(root, split):
    for r in table(root / f"hatemoji/HatemojiBuild_{split}.csv"):
        hateful = int(r["label_gold"])
        yield row("hatemoji", r["text"], hateful, identity_attack=hateful, threat=int("threat" in r["type"]))


def jigsaw(root):
    for r in table(root / "jigsaw/jigsaw_half.csv"):
        yield row("jigsaw", r["text"], int(r["label"]))


def stormfront(root, split):
    for r in table(root / "stormfront/stormfront.tsv", "\t"):
        if r["split"] == split and r["label"] in ("hate", "noHate"):
            y = int(r["label"] == "hate")
            yield row("stormfront", r["text"], 1 if y else 0, identity_attack=y)


def convabuse(root, split):
    for r in table(root / f"convabuse/{split}.csv"):
        def votes_for(*endings):
            return sum(cell.count("1") for name, cell in r.items() if name.endswith(endings))

        toxic = int(votes_for("abuse.-1", "abuse.-2", "abuse.-3") > votes_for("abuse.1", "abuse.0"))
        aimed = votes_for("target.individual", "target.system")
        yield row("convabuse", r["user"], toxic, **({"insult": 1} if toxic and aimed else {}))


def civil(root, name):
    """Toxic span rows: the text is normalised piece by piece so that the spans keep their places."""
    for r in table(root / f"civil_toxic_spans/{name}.csv"):
        inside = set(ast.literal_eval(r["spans"]))
        text, spans = "", []
        raw, start = r["text"], 0
        for end in range(1, len(raw) + 1):
            if end == len(raw) or (end in inside) != (start in inside):
                piece = raw[start:end]
                clean = normalise(piece)
                if text and clean and not text.endswith(" ") and (raw[start - 1].isspace() or piece[0].isspace()):
                    text += " "
                if clean:
                    if start in inside:
                        spans.append((len(text), len(text) + len(clean)))
                    text += clean
                start = end
        yield row("civil", text, 1, spans=spans)


def semeval(root):
    seen = set()
    for path in sorted((root / "semeval_sentiment").glob("twitter-*.tsv")):
        for line in lines(path):
            _, label, text = line.split("\t")[:3]
            text = text.strip().strip('"').replace(r"\u2019", "’").replace(r"\u002c", ",").replace('""', '"')
            if key(text) not in seen:
                seen.add(key(text))
                yield row("semeval", text, sentiment=SENTIMENT.index(label))


def sentiment_eval(root, split):
    return [row("semeval", t, sentiment=y) for t, y in tweeteval(root, "sentiment", split)]


def load(root, train=True):
    """(train rows, dev rows). Dev rows choose thresholds and are never trained on. train=False leaves the first empty."""
    root, wanted = pathlib.Path(root), train
    train, dev = [], []

    def add(rows, to):
        if wanted or to is dev:
            to.extend(rows)

    def split(rows, share=0.1):
        for r in rows:
            (dev if fraction(r.text) < share else train).append(r)

    def sample(rows, share):
        return (r for r in rows if fraction(r.text + "?") < share)

    add(offensive(root, "train"), train)
    add(offensive(root, "val"), dev)
    add(hate(root, "train"), train)
    add(hate(root, "val"), dev)
    for r, match in conda(root, "train"):
        (dev if match < CONDA_HELD else train).append(r)
    split(davidson(root))
    add(sample(edos(root, "train"), 0.7), train)
    add(edos(root, "dev"), dev)
    add(sample(goemotions(root, "train"), 0.6), train)
    add(goemotions(root, "dev"), dev)
    add(hatemoji(root, "train"), train)
    add(hatemoji(root, "validation"), dev)
    split(sample(jigsaw(root), 0.7))
    split(stormfront(root, "train"), 0.15)
    add(convabuse(root, "train"), train)
    add(convabuse(root, "valid"), dev)
    add(sample(civil(root, "tsd_train"), 0.7), train)
    add(civil(root, "tsd_trial"), dev)
    add(sentiment_eval(root, "val"), dev)
    add(semeval(root), train)
    return (without_leaks(root, train) if wanted else []), dev


def without_leaks(root, train):
    """Drops training texts that are also in a test or validation split (long enough to be no coincidence)."""
    held = {key(t) for task in ("offensive", "hate", "sentiment") for s in ("val", "test") for t, _ in tweeteval(root, task, s)}
    held |= {key(r["text"]) for r in table(root / "hatemoji/HatemojiCheck_test.csv")}
    held |= {key(r["test_case"]) for r in table(root / "hatecheck/test_suite_cases.csv")}
    held |= {key(r["text"]) for r in table(root / "civil_toxic_spans/tsd_test.csv")}
    return [r for r in train if r.text and (r.source == "conda" or key(r.text) not in held)]
