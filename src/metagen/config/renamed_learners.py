"""Learners from before they were composed of parts: their nodes and the keys of their overrides, today."""

from collections.abc import Mapping
from typing import Any

Node = dict[str, Any]

PLACE = "metagen.learners"
KEYS = {
    "learner.second.": "learner.",
    "learner.first.": "learner.start.",
    "learner.first_order": "learner.gradient.first_order",
    "learner.checkpoint_steps": "learner.gradient.checkpoint_steps",
    "learner.truncation": "learner.gradient.truncation",
    "learner.strength": "learner.gradient.strength",
    "learner.cg_steps": "learner.gradient.cg_steps",
    "learner.second_order_after": "learner.gradient.first_order.step",
    "learner.msl_steps": "learner.meta_loss.early.steps",
    "learner.late": "learner.meta_loss.late",
    "learner.on_query": "learner.meta_loss.on_query",
    "learner.any_shots": "learner.start.any_shots",
    "learner.modulation": "learner.start.modulation",
    "learner.size": "learner.start.size",
    "learner.channels": "learner.start.channels",
    "learner.filters": "learner.start.filters",
    "learner.embedding": "learner.start.embedding",
}
"""How the key of an override began, and how it begins today."""
KEPT = ("rule", "steps", "test_steps", "test_rate", "adapts", "batch")


def key_of_today(key: str) -> str:
    """Return the key of an override as it is called today.

    >>> key_of_today("learner.second.rule.rate")
    'learner.rule.rate'
    >>> key_of_today("learner.steps")
    'learner.steps'
    """
    for _ in range(2):
        old = next((old for old in KEYS if key == old or key.startswith(old.rstrip(".") + ".")), None)
        key = KEYS[old] + key.removeprefix(old) if old else key
    return key


def learner_of_today(node: Mapping[Any, Any]) -> Node:
    """Return a learner's node as the parts that it is composed of today; any other node as it is."""
    name = str(node.get("_target_")).rpartition(".")[2]
    made = _OF_BEFORE.get(name) if str(node.get("_target_")).startswith(f"{PLACE}.") else None
    return dict(node) if made is None else made(dict(node))


def _part(target: str, node: Mapping[str, Any] | None = None, *keys: str) -> Node:
    """Return the node of a part with those of ``keys`` that ``node`` has."""
    return {"_target_": f"{PLACE}.{target}", **{key: node[key] for key in keys if node and key in node}}


def _learner(node: Node, start: Node, gradient: Node, meta_loss: Node, **more: Any) -> Node:
    kept = {key: node[key] for key in KEPT if key in node}
    parts = {"start": start, "gradient": gradient, "meta_loss": meta_loss}
    return {**_part("meta_learner.MetaLearner"), **parts, **kept, **more}


def _unrolled(node: Node) -> Node:
    return _part("gradients.Unrolled", node, "first_order", "truncation", "checkpoint_steps")


THETA, QUERY, PLAIN = _part("starts.Theta"), _part("meta_losses.Query"), _part("gradients.Unrolled")


def _gradient_descent(node: Node) -> Node:
    return _learner(node, THETA, _unrolled(node), QUERY)


def _scratch(node: Node) -> Node:
    return _learner(node, THETA, PLAIN, _part("meta_losses.Untrained"), steps=0)


def _transfer(node: Node) -> Node:
    return _learner(node, _part("starts.ClassMean"), PLAIN, _part("meta_losses.Joint"), steps=0)


def _reptile(node: Node) -> Node:
    gradient = _part("gradients.Unrolled") | {"first_order": True}
    return _learner(node, THETA, gradient, _part("meta_losses.Displacement"))


def _imaml(node: Node) -> Node:
    return _learner(node, THETA, _part("implicit.Implicit", node, "strength", "cg_steps"), QUERY)


def _maml_plus_plus(node: Node) -> Node:
    until = _part("schedules.Until") | {"step": node.get("second_order_after", 500)}
    early = _part("schedules.Linear") | {"start": 1.0, "end": 0.0, "steps": node.get("msl_steps", 1000)}
    gradient = _unrolled(node) | {"first_order": until}
    return _learner(node, THETA, gradient, _part("meta_losses.MultiStep") | {"early": early})


def _learned_optimizer(node: Node) -> Node:
    start = _part("starts.Random") if node.get("random_start", True) else THETA
    loss = _part("meta_losses.MultiStep", node, "late", "on_query")
    return _learner(node, start, {"first_order": True} | _unrolled(node), loss)


def _hand_made_optimizer(node: Node) -> Node:
    return _learner(node, _part("starts.Random"), PLAIN, _part("meta_losses.Untrained"), steps=0)


def _start(node: Node) -> Node:
    """Return the node of a start that was a learner."""
    name = str(node["_target_"]).rpartition(".")[2]
    if name == "Amortized":
        return _part("readers.Encoder", node, "any_shots")
    if name == "HyperNet":
        start = _part("hypernet.HyperNet", node, "modulation", "size", "channels", "filters", "embedding")
        return start | ({"changes": node["adapts"]} if "adapts" in node else {})
    targets = {"ProtoNet": "readers.Prototypes", "InContext": "readers.Memory"}
    return _part(targets.get(name, "starts.Unadapted"))


def _still(node: Node) -> Node:
    loss = _part("meta_losses.Sequence") if str(node["_target_"]).endswith("InContext") else QUERY
    return {**_part("meta_learner.MetaLearner"), "start": _start(node), "gradient": PLAIN, "meta_loss": loss}


def _chain(node: Node) -> Node:
    """Return the second learner with the first one as its start; a chain's loss was the query loss."""
    second = learner_of_today(node["second"])
    return {**second, "start": _start(node["first"]), "meta_loss": QUERY}


_OF_BEFORE = {
    "GradientDescent": _gradient_descent,
    "Scratch": _scratch,
    "Transfer": _transfer,
    "Reptile": _reptile,
    "IMAML": _imaml,
    "MAMLPlusPlus": _maml_plus_plus,
    "LearnedOptimizer": _learned_optimizer,
    "HandMadeOptimizer": _hand_made_optimizer,
    "Amortized": _still,
    "ProtoNet": _still,
    "InContext": _still,
    "Supervised": _still,
    "HyperNet": lambda node: node if "changes" in node else _still(node),
    "Chain": _chain,
}
