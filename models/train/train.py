"""Fine-tunes the encoder and its heads on all data sets at once.

    python train.py --data DIR --out DIR --minutes 35

The learning rate falls linearly to zero at --epochs or --minutes, whichever comes first, so a run
on a busy machine still ends well. A checkpoint is written every few minutes. Writes OUT/model.pt
({"keep", "state"}) and OUT/train.json (what was run, and how long it took).
"""
import argparse
import json
import pathlib
import random
import resource
import time

import numpy as np
import torch
from sklearn.metrics import f1_score, recall_score
from tokenizers import Tokenizer
from torch.nn import functional as F

import data
import model as nets

WEIGHTS = torch.tensor([1.5, 0.5, 0.7, 0.7, 1.0, 0.5])  # of the six attributes in the loss


def tokenizer(max_tokens):
    t = Tokenizer.from_file(str(nets.package_dir() / "tokenizer.json"))
    t.no_padding()
    t.enable_truncation(max_length=max_tokens)
    return t


def encode(rows, max_tokens):
    """[(ids, labels[6] with nan, sentiment or -1, token labels or None, source)]"""
    out = []
    for r, e in zip(rows, tokenizer(max_tokens).encode_batch([r.text for r in rows])):
        labels = [np.nan if r.labels[a] is None else r.labels[a] for a in data.ATTRIBUTES]
        marks = None
        if r.spans is not None:
            marks = np.array([float(any(s < end and start < e_ for s, e_ in r.spans)) if end > start else -1.0 for start, end in e.offsets], np.float32)
        out.append((np.array(e.ids, np.int32), np.array(labels, np.float32), -1 if r.sentiment is None else r.sentiment, marks, r.source))
    return out


def collate(items):
    width = max(len(i[0]) for i in items)
    ids = torch.zeros(len(items), width, dtype=torch.long)
    marks = torch.full((len(items), width), -1.0)
    for n, (row, _, _, m, _) in enumerate(items):
        ids[n, : len(row)] = torch.from_numpy(row)
        if m is not None:
            marks[n, : len(m)] = torch.from_numpy(m)
    return ids, (ids != 0).long(), torch.from_numpy(np.stack([i[1] for i in items])), torch.tensor([i[2] for i in items]), marks


def batches(items, tokens, rng):
    """Shuffled batches of similar length: at most `tokens` padded tokens and 96 texts each."""
    order = list(range(len(items)))
    rng.shuffle(order)
    out = []
    for start in range(0, len(order), 4096):
        batch, width = [], 0
        for i in sorted(order[start : start + 4096], key=lambda i: len(items[i][0])):
            n = len(items[i][0])
            if batch and (max(width, n) * (len(batch) + 1) > tokens or len(batch) == 96):
                out.append(batch)
                batch, width = [], 0
            batch.append(i)
            width = max(width, n)
        out.append(batch)
    rng.shuffle(out)
    return out


def loss_of(outputs, labels, sentiment, marks):
    attributes, mood, tokens = (o.float() for o in outputs)
    known = ~labels.isnan()
    each = F.binary_cross_entropy_with_logits(attributes, labels.nan_to_num(), reduction="none")
    loss = (each * known * WEIGHTS).sum() / len(labels)
    if (sentiment >= 0).any():
        loss = loss + F.cross_entropy(mood, sentiment.clamp(min=-1), ignore_index=-1, reduction="sum") / len(labels)
    if (marks >= 0).any():
        seen = marks >= 0
        part = F.binary_cross_entropy_with_logits(tokens[seen], marks[seen], pos_weight=torch.tensor(2.0))
        loss = loss + part * seen.any(1).sum() / len(labels)
    return loss


@torch.no_grad()
def predict(net, items, bf16):
    """(attributes[n, 6], sentiment[n, 3]) probabilities, in the order of `items`."""
    net.eval()
    attributes, mood = np.zeros((len(items), 6)), np.zeros((len(items), 3))
    order = sorted(range(len(items)), key=lambda i: len(items[i][0]))
    for start in range(0, len(order), 64):
        part = order[start : start + 64]
        ids, mask, *_ = collate([items[i] for i in part])
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            a, s, _ = net(ids, mask)
        attributes[part], mood[part] = a.float().sigmoid().numpy(), s.float().softmax(-1).numpy()
    net.train()
    return attributes, mood


def dev_scores(net, items, bf16):
    """Best macro-F1 over thresholds for each set's own label, macro-recall for sentiment."""
    attributes, mood = predict(net, items, bf16)
    scores = {}
    for source in sorted({i[4] for i in items}):
        at = [n for n, i in enumerate(items) if i[4] == source]
        column = 4 if source in ("hate", "edos", "hatemoji", "stormfront") else 0
        gold = np.array([items[n][1][column] for n in at])
        if source == "semeval":
            scores[source] = recall_score([items[n][2] for n in at], mood[at].argmax(1), average="macro")
        elif 0 < np.nanmean(gold) < 1:
            ok = ~np.isnan(gold)
            scores[source] = max((f1_score(gold[ok], attributes[at, column][ok] > t, average="macro"), t) for t in np.arange(0.1, 0.91, 0.05))
    return {k: np.round(v, 4).tolist() for k, v in scores.items()}


def worker(rank, o, net, plan, items, dev_items, started, seen):
    """One process: takes every o.workers-th batch and updates the shared weights without locks."""
    torch.set_num_threads(1)
    torch.manual_seed(o.seed + rank)
    net.train()
    net.words.requires_grad_(False)  # 62 % of the weights and a sixth of the time; frozen, the vocabulary keeps its place
    named = [(n, q) for n, q in net.named_parameters() if q.requires_grad]
    heads = [q for n, q in named if n.split(".")[0] in ("attributes", "sentiment", "tokens")]
    body = [q for n, q in named if n.split(".")[0] not in ("attributes", "sentiment", "tokens")]
    optimiser = torch.optim.AdamW([{"params": body, "lr": o.rate}, {"params": heads, "lr": o.rate * 5}], weight_decay=0.01, fused=True)
    peaks = [g["lr"] for g in optimiser.param_groups]
    running, marks = 0.0, [0.15, 0.5]
    plan = plan[rank :: o.workers]
    for step, batch in enumerate(plan):
        done = max(step / len(plan), (time.time() - started) / 60 / o.minutes)
        if done >= 1:
            break
        for group, peak in zip(optimiser.param_groups, peaks):
            group["lr"] = peak * min(1, (step + 1) / 100) * (1 - done)
        ids, mask, labels, sentiment, spans = collate([items[i] for i in batch])
        with torch.autocast("cpu", torch.bfloat16, enabled=o.bf16):
            outputs = net(ids, mask)
        loss = loss_of(outputs, labels, sentiment, spans)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(body + heads, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        seen[rank] += len(batch)
        running = loss.item() if step == 0 else 0.98 * running + 0.02 * loss.item()
        if rank == 0 and step % 50 == 0:
            print(f"{step}/{len(plan)} done {done:.3f} loss {running:.4f} texts/s {seen.sum() / (time.time() - started):.0f}", flush=True)
        if rank == 0 and marks and done >= marks[0]:
            marks.pop(0)
            save(o, net)
            print("dev", json.dumps(dev_scores(net, dev_items, o.bf16)), flush=True)


def save(o, net):
    torch.save({"keep": o.keep, "state": net.state_dict()}, o.out / "model.tmp")
    (o.out / "model.tmp").rename(o.out / "model.pt")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--data", required=True)
    p.add_argument("--out", type=pathlib.Path, required=True)
    p.add_argument("--keep", type=lambda s: tuple(map(int, s.split(","))), default="0,1,3,5", help="MiniLM layers to keep")
    p.add_argument("--epochs", type=int, default=2)
    p.add_argument("--minutes", type=float, default=1e9)
    p.add_argument("--rate", type=float, default=1e-4)
    p.add_argument("--tokens", type=int, default=1024, help="padded tokens in a batch")
    p.add_argument("--max-tokens", type=int, default=64)
    p.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    p.add_argument("--bf16", action="store_true", help="only where lscpu shows avx512_bf16 or amx_bf16")
    p.add_argument("--start", type=pathlib.Path, help="go on from this model.pt instead of MiniLM")
    p.add_argument("--share", type=lambda s: dict((k, float(v)) for k, v in (q.split("=") for q in s.split(","))), default={},
                   help="semeval=0.5,conda=0.3: take so much of a set in an epoch")
    p.add_argument("--seed", type=int, default=7)
    o = p.parse_args()
    o.out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(o.seed)
    torch.manual_seed(o.seed)

    train, dev = data.load(o.data)
    print({s: sum(r.source == s for r in train) for s in sorted({r.source for r in train})}, len(train), len(dev), flush=True)
    train = [r for r in train if rng.random() < o.share.get(r.source, 1)]
    items, dev_items = encode(train, o.max_tokens), encode(dev, o.max_tokens)
    watched = [i for s in ("offensive", "hate", "semeval", "conda") for i in [d for d in dev_items if d[4] == s][:500]]
    net = nets.from_minilm(o.keep)
    if o.start:
        net.load_state_dict(torch.load(o.start, weights_only=True)["state"])
    net.share_memory()
    plan = [b for _ in range(o.epochs) for b in batches(items, o.tokens, rng)]
    seen, started = torch.zeros(o.workers, dtype=torch.long).share_memory_(), time.time()
    context = torch.multiprocessing.get_context("fork")
    workers = [context.Process(target=worker, args=(rank, o, net, plan, items, watched, started, seen)) for rank in range(o.workers)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    minutes, used = (time.time() - started) / 60, resource.getrusage(resource.RUSAGE_CHILDREN)
    save(o, net)
    scores = dev_scores(net, watched, o.bf16)
    print("dev", json.dumps(scores), flush=True)
    report = {k: v for k, v in vars(o).items() if k not in ("out", "data", "start")}
    report |= {"went_on": bool(o.start), "rows": len(train), "texts_seen": int(seen.sum()), "wall_minutes": round(minutes, 1),
               "cpu_minutes": round((used.ru_utime + used.ru_stime) / 60, 1), "dev": scores}
    (o.out / "train.json").write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
