"""Builds the served ONNX graph by hand: int8 weights, int8 word table, fused attention, fixed activation ranges.

Ranges are measured once on calibration texts (static quantisation). Dynamic ranges would be taken over a whole batch,
and a text's scores would then depend on the texts it happens to be scored with.
Weights: int8 per output channel, symmetric. Activations: uint8 per tensor. Encoder inputs are first divided by a
per-channel scale that the weights take up (as in SmoothQuant, Xiao et al. 2023, alpha 0.5), because a few channels are large.
Heads and norms stay float. The word table is int8 with one scale per word.
"""
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

import model as nets

MICROSOFT = "com.microsoft"


@torch.no_grad()
def ranges(net, batches):
    """{(layer, place): (min[width], max[width])} of the inputs of the matrix products, over real tokens."""
    found, mask = {}, None

    def watch(at):
        def hook(_, inputs):
            x = inputs[0][mask]
            low, high = x.amin(0), x.amax(0)
            if at in found:
                low, high = torch.minimum(low, found[at][0]), torch.maximum(high, found[at][1])
            found[at] = (low, high)
        return hook

    hooks = [getattr(layer, place).register_forward_pre_hook(watch((n, place)))
             for n, layer in enumerate(net.layers) for place in ("q", "out", "up", "down")]
    for ids, m in batches:
        mask = m.bool()
        net(ids, m)
    for hook in hooks:
        hook.remove()
    return {k: (low.numpy(), high.numpy()) for k, (low, high) in found.items()}


class Graph:
    def __init__(self):
        self.nodes, self.constants = [], []

    def const(self, array, dtype=np.float32):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(np.asarray(array, dtype)), name))
        return name

    def op(self, kind, *inputs, domain="", out=None, **attributes):
        out = out or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], domain=domain, **attributes))
        return out

    def product(self, quantised, linear, smooth, bias=True):
        """x @ weight.T (+ bias) for a quantised x = (uint8, scale, zero)."""
        weight = linear.weight.detach().numpy().T * smooth[:, None]
        scale = np.maximum(np.abs(weight).max(0), 1e-8) / 127
        q, s, z = quantised
        extra = [self.const(linear.bias.detach().numpy())] if bias else []
        weights = self.const(np.clip(np.rint(weight / scale), -127, 127), np.int8)
        return self.op("MatMulIntegerToFloat", q, weights, s, self.const(scale), z, "", *extra, domain=MICROSOFT)

    def quantise(self, x, low, high, smooth):
        if (smooth != 1).any():
            x = self.op("Mul", x, self.const(1 / smooth))
        low, high = min(0.0, float((low / smooth).min())), max(0.0, float((high / smooth).max()))
        scale = max(high - low, 1e-6) / 255
        s, z = self.const(scale), self.const(np.clip(round(-low / scale), 0, 255), np.uint8)
        return self.op("QuantizeLinear", x, s, z), s, z


def smoothing(low, high, linears, alpha=0.5):
    largest = np.maximum(np.abs(low), np.abs(high))
    weight = np.max([np.abs(f.weight.detach().numpy()).max(0) for f in linears], 0)
    s = np.maximum(largest, 1e-3) ** alpha / np.maximum(weight, 1e-4) ** (1 - alpha)
    return s / np.exp(np.log(s).mean())


def flattening(low, high, top=4):
    """Brings the few largest channels down to the size of the `top`-th largest: after GELU one can be four times the next."""
    largest = np.maximum(np.abs(low), np.abs(high))
    return np.maximum(1, largest / np.sort(largest)[-top])


def build(net, found, path):
    """Writes the graph; inputs int64 [batch, seq], outputs probabilities float32."""
    g = Graph()

    def norm(x, layer):
        return g.op("LayerNormalization", x, g.const(layer.weight.detach()), g.const(layer.bias.detach()), axis=-1, epsilon=1e-12)

    def dense(x, linear):
        return g.op("Add", g.op("MatMul", x, g.const(linear.weight.detach().numpy().T)), g.const(linear.bias.detach()))

    one = g.const([1], np.int64)
    words = net.words.weight.detach().numpy()
    scale = np.maximum(np.abs(words).max(1, keepdims=True), 1e-8) / 127
    rows = g.op("Cast", g.op("Gather", g.const(np.rint(words / scale), np.int8), "input_ids"), to=TensorProto.FLOAT)
    x = g.op("Mul", rows, g.op("Gather", g.const(scale), "input_ids"))
    length = g.op("Shape", "input_ids", start=1, end=2)
    zero = g.const([0], np.int64)
    x = norm(g.op("Add", x, g.op("Slice", g.const(net.positions.weight.detach()), zero, length, zero)), net.norm)
    mask = g.op("Cast", "attention_mask", to=TensorProto.INT32)
    for n, layer in enumerate(net.layers):
        low, high = found[n, "q"]
        s = smoothing(low, high, (layer.q, layer.k, layer.v))
        shared = g.quantise(x, low, high, s)
        q, k, v = (g.product(shared, f, s) for f in (layer.q, layer.k, layer.v))
        mixed = g.op("MultiHeadAttention", q, k, v, "", mask, domain=MICROSOFT, num_heads=nets.HEADS)
        plain = np.ones(nets.WIDTH, np.float32)
        y = g.product(g.quantise(mixed, *found[n, "out"], plain), layer.out, plain)
        x = norm(g.op("Add", x, y), layer.norm1)
        low, high = found[n, "up"]
        s = smoothing(low, high, (layer.up,))
        y = g.product(g.quantise(x, low, high, s), layer.up, s, bias=False)
        y = g.op("FastGelu", y, g.const(layer.up.bias.detach()), domain=MICROSOFT)
        low, high = found[n, "down"]
        s = flattening(low, high)
        y = g.product(g.quantise(y, low, high, s), layer.down, s)
        x = norm(g.op("Add", x, y), layer.norm2)
    last = g.const([-1], np.int64)
    keep = g.op("Cast", "attention_mask", to=TensorProto.FLOAT)
    total = g.op("ReduceSum", g.op("Mul", x, g.op("Unsqueeze", keep, last)), one, keepdims=0)
    pooled = g.op("Div", total, g.op("ReduceSum", keep, one, keepdims=1))
    g.op("Sigmoid", dense(pooled, net.attributes), out="attributes")
    g.op("Softmax", dense(pooled, net.sentiment), out="sentiment", axis=-1)
    g.op("Sigmoid", g.op("Squeeze", dense(x, net.tokens), last), out="token_toxicity")

    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", "seq"]) for n in ("input_ids", "attention_mask")]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", d]) for n, d in (("attributes", 6), ("sentiment", 3), ("token_toxicity", "seq"))]
    graph = helper.make_graph(g.nodes, "weir", inputs, outputs, g.constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)], ir_version=9), path)
