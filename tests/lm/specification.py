"""The network as it is specified, in float64 with loops and lists: what `fairway.lm` is held to.

Written from the published descriptions of #549, #598, #861, #885, #1185, #1406 and the SP8192 record, without the
network's code. A sequence is a list of vectors, one a position; `w` holds the weights by their names.
"""

import math

import numpy as np


def rms_norm(x):
    return x / np.sqrt(np.mean(x * x) + np.finfo(np.float32).eps)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def starts(a, tokens):
    """Whether each position has no token before it: the first of a document, or of all."""
    return [t == 0 or token == a.bos for t, token in enumerate(tokens)]


def bigram_bucket(a, token, before, start):
    if a.bigram_hash == "linear":
        return (1009 * (0 if start else before) + token) % a.bigram_buckets
    last = a.bigram_buckets - 1
    return last if start else (36313 * token ^ 27191 * before) % last


def embedded(w, a, tokens):
    """x0 of every position."""
    rows = []
    for t, (token, start) in enumerate(zip(tokens, starts(a, tokens), strict=True)):
        row = w["stream.embedding.weight"][token]
        if a.bigram_buckets:
            bucket = bigram_bucket(a, token, tokens[t - 1], start)
            wide = w["stream.bigram.projection.weight"] @ w["stream.bigram.table.weight"][bucket]
            row = row + wide * (w["stream.bigram.scale"] if a.bigram_hash == "xor" else 1)
        rows.append(rms_norm(row))
    if not a.smear_gate:
        return rows
    gate = sigmoid(w["stream.smear_gate"])
    return [
        row if start else (1 - gate) * row + gate * rows[t - 1]
        for t, (row, start) in enumerate(zip(rows, starts(a, tokens), strict=True))
    ]


def order(a, recurrent):
    """Layers in the order they run, and how many of these passes make up the U-Net."""
    layers = list(range(a.layers))
    if a.recurrence == "none" or not recurrent:
        return layers, len(layers)
    again = [layer % a.layers for layer in a.recurrence_layers]
    if a.recurrence == "append":
        return layers + again * (a.recurrence_passes - 1), len(layers)
    first, after = again[0], again[-1] + 1
    inserted = layers[:first] + again * a.recurrence_passes + layers[after:]
    return inserted, len(inserted)


def turned(x, position, a):
    """Rotary embedding of one head's vector, pair by pair; NTK: the base grows with the training length."""
    half, y, base = a.rope_dims // 2, x.copy(), a.rope_base
    if a.rope_base_length and a.sequence_length > a.rope_base_length:
        base *= (a.sequence_length / a.rope_base_length) ** (a.rope_dims / (a.rope_dims - 2)) if a.rope_dims else 1
    for i in range(half):
        angle = position * base ** (-2 * i / a.rope_dims)
        y[i] = x[i] * math.cos(angle) + x[i + half] * math.sin(angle)
        y[i + half] = x[i + half] * math.cos(angle) - x[i] * math.sin(angle)
    return y


def values(w, a, layer, normed, tokens, first_values):
    """Values of every position, all heads in one vector. `first_values` is a list that the first pass fills.

    There the two parts of the mix are the same values; as published the first layer has no mix.
    """
    name = f"blocks.{layer}.attention."
    v = [w[name + "value.weight"] @ x for x in normed]
    if layer in [chosen % a.layers for chosen in a.value_embedding_layers]:
        table, projection = w["value_embedding.table.weight"], w["value_embedding.projection.weight"]
        scale = w["value_embedding.scale"] * w[name + "value_embedding_scale"]
        v = [here + scale * (projection @ table[token]) for here, token in zip(v, tokens, strict=True)]
    if not a.value_residual:
        return v
    if not first_values:
        first_values.extend(v)
    of_first, own = w[name + "value_mix"]
    return [of_first * first + own * here for first, here in zip(first_values, v, strict=True)]


def attended(w, a, layer, normed, v, context):
    """Attention output of every position: queries, keys, values head by head."""
    name, N, per_group = f"blocks.{layer}.attention.", a.width // a.heads, a.heads // a.kv_heads
    q = [(w[name + "query.weight"] @ x).reshape(a.heads, N) for x in normed]
    k = [[turned(rms_norm(head), s, a) for head in (w[name + "key.weight"] @ x).reshape(-1, N)] for s, x in enumerate(normed)]
    v = [here.reshape(a.kv_heads, N) for here in v]
    outputs = []
    for t, x in enumerate(normed):
        mixed = []
        for head in range(a.heads):
            group = head // per_group
            query = turned(rms_norm(q[t][head]), t, a) * w[name + "query_gain"][head]
            seen = range(max(0, t - context + 1), t + 1)
            weights = np.exp([query @ k[s][group] / math.sqrt(N) for s in seen])
            y = sum(weight * v[s][group] for weight, s in zip(weights / weights.sum(), seen, strict=True))
            if layer >= a.layers - a.xsa_layers:
                own = v[t][group] / np.linalg.norm(v[t][group])
                y = y - (y @ own) * own
            if a.gated_attention:
                y = y * sigmoid(w[name + "gate_HD"][head] @ x + w[name + "gate_bias_H"][head])
            mixed.append(y)
        outputs.append(w[name + "output.weight"] @ np.concatenate(mixed))
    return outputs


def fed_forward(w, a, layer, x):
    """What the feed-forward makes of one position, 0 where a router keeps it out."""
    name, share = f"blocks.{layer}.", 1.0
    if layer in [chosen % a.layers for chosen in a.mod_layers]:
        excess = w[name + "router.direction_D"] @ rms_norm(x) - w[name + "router.threshold"]
        share = np.tanh(excess) if excess > 0 else 0.0
    up, down = w[name + "feed_forward.up.weight"] @ x, w[name + "feed_forward.down.weight"]
    squared = np.where(up > 0, up, a.leaky_slope * up) ** 2
    if a.activation == "star_relu":
        squared = w[name + "feed_forward.scale"] * squared + w[name + "feed_forward.shift"]
    elif a.activation == "square_glu":
        squared = squared * sigmoid(w[name + "feed_forward.gate.weight"] @ x)
    elif a.activation == "swiglu":
        gate = w[name + "feed_forward.gate.weight"] @ x
        squared = up * gate * sigmoid(gate)
    return share * (down @ squared)


def joined(w, a, index, x, skip):
    """Where the second half of the U-Net takes over an output of the first."""
    skip = w["skip_weights"][index] * skip
    if a.unet_skips == "plain":
        return x + skip
    gate = sigmoid(w["skip_gates"][index])
    return gate * x + (1 - gate) * skip


def logits(model, tokens, context=10**9, recurrent=True):
    """Logits (T, V) of a network in eval mode that sees `context` positions in each layer."""
    a, w = model.architecture, {name: tensor.detach().double().numpy() for name, tensor in model.named_parameters()}
    x0 = x = embedded(w, a, tokens)
    first_values, outputs = [], []
    passes, unet = order(a, recurrent)
    half = unet // 2 if a.unet_skips != "none" else 0
    for number, layer in enumerate(passes):
        name, depth = f"blocks.{layer}.", 1 / math.sqrt(layer + 1) if a.depth_scale else 1.0
        index = number - half
        if 0 <= index < half:
            x = [joined(w, a, index, here, skip) for here, skip in zip(x, outputs[half - 1 - index], strict=True)]
        if a.residual_mix:
            keep, again = w[name + "residual_mix"]
            x = [keep * here + again * start for here, start in zip(x, x0, strict=True)]
        normed = [rms_norm(here) * depth for here in x]
        v = values(w, a, layer, normed, tokens, first_values)
        y = attended(w, a, layer, normed, v, context)
        x = [here + w[name + "attention_scale"] * there for here, there in zip(x, y, strict=True)]
        z = [fed_forward(w, a, layer, rms_norm(here) * depth) for here in x]
        x = [here + w[name + "feed_forward_scale"] * there for here, there in zip(x, z, strict=True)]
        outputs.append(x)
    head = w["stream.embedding.weight" if a.tied_embeddings else "unembedding.weight"]
    capless = np.stack([head @ rms_norm(here) for here in x])
    return a.logit_softcap * np.tanh(capless / a.logit_softcap)
