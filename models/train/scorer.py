"""Scores texts with an exported model folder in Python ONNX Runtime: the reference for the other implementation."""
import json
import pathlib

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

from normalise import normalise


class Scorer:
    """`score(texts)` -> (attributes float32 [n, 6], sentiment float32 [n, 3], tokens: [(offsets, float32 [len])])."""

    def __init__(self, folder, file="model.onnx", threads=1, batch=16):
        folder = pathlib.Path(folder)
        self.info = json.loads((folder / "model.json").read_text()) if (folder / "model.json").exists() else None
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        self.session = ort.InferenceSession(str(folder / file), options, providers=["CPUExecutionProvider"])
        self.batch = batch

    def score(self, texts, normalised=False):
        encodings = self.tokenizer.encode_batch(texts if normalised else [normalise(t) for t in texts])
        order = sorted(range(len(texts)), key=lambda i: len(encodings[i].ids))
        attributes, sentiment = np.empty((len(texts), 6), np.float32), np.empty((len(texts), 3), np.float32)
        tokens = [None] * len(texts)
        for start in range(0, len(order), self.batch):
            part = order[start : start + self.batch]
            rows = [encodings[i].ids for i in part]
            ids = np.zeros((len(part), len(rows[-1])), np.int64)
            mask = np.zeros_like(ids)
            for k, row in enumerate(rows):
                ids[k, : len(row)], mask[k, : len(row)] = row, 1
            attributes[part], sentiment[part], each = self.session.run(
                ["attributes", "sentiment", "token_toxicity"], {"input_ids": ids, "attention_mask": mask})
            for k, i in enumerate(part):
                tokens[i] = (encodings[i].offsets, each[k, : len(rows[k])])
        return attributes, sentiment, tokens
