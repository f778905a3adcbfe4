"""Records as zs-operators 0.1.0 wrote them: the parameters that can be told from the rest."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any


def with_parameters(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with its ``parameters``, taken from where version 0 has them."""
    record = dict(record)
    if record.get("parameters") is None:
        task = str(record.get("method")).partition("/")[2]
        record["parameters"] = _OLD[task](record) if task in _OLD else {}
    return record


def _classify(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "label_field": record.get("label_field"),
        **_model(record, "model", "weights", "model_details"),
        **(record.get("options") or {}),
        "reject_label": record.get("reject_label"),
        "embeddings": record.get("embeddings", "off"),
        "precision": (record.get("model") or {}).get("precision", "auto"),
    }


def _detect(record: Mapping[str, Any]) -> dict[str, Any]:
    label_field, regions = record.get("label_field"), record.get("regions")
    found = {
        **_classify(record),
        "regions": regions,
        "update_source": regions == label_field,
        "region_embedding": record.get("region_embedding", "auto"),
        **_proposer(record),
    }
    if found["update_source"]:
        del found["label_field"]  # which the run did not write
    return found


def _segment(record: Mapping[str, Any]) -> dict[str, Any]:
    # The record has the folder of the dataset below the one that was given
    output_dir = record.get("output_dir")
    found = {
        "label_field": record.get("label_field"),
        "prompts": record.get("prompts"),
        **_model(record, "model", "weights", "model_details"),
        **(record.get("masks") or {}),
        "output_dir": os.path.dirname(output_dir) if output_dir else None,
        "semantic_field": record.get("semantic_field"),
        "embeddings": "reuse" if record.get("features") == "float16" else "off",
        "precision": (record.get("model") or {}).get("precision", "auto"),
    }
    if record.get("clip"):
        found |= {
            **_model(record, "clip", "clip_weights", "clip_details"),
            **(record.get("options") or {}),
            "region_embedding": record.get("region_embedding", "auto"),
            **_proposer(record),
        }
    # ``prompts`` of a run with classes are also the texts that were encoded
    if not isinstance(found["prompts"], str):
        found["prompts"] = "proposals" if record.get("proposer") else "everything"
    return found


def _proposer(record: Mapping[str, Any]) -> dict[str, Any]:
    proposer = record.get("proposer")
    if not proposer:
        return {}
    mode = (proposer.get("options") or {}).get("mode", "refined")
    found = _model(record, "proposals", "proposal_weights", "proposer_details")
    return {**found, "proposal_mode": mode}


def _model(record: Mapping[str, Any], name: str, weights: str, details: str) -> dict[str, Any]:
    """Which model it was, from the plan of its weights."""
    plan = (record.get(details) or {}).get("weights") or {}
    return model_arguments(plan, name, weights)


def model_arguments(plan: Mapping[str, Any], name: str, weights: str) -> dict[str, Any]:
    """The arguments that load what a plan of weights says; see :class:`.weights.WeightsPlan`."""
    if plan.get("state") != "local":
        # Only CLIP models go by an architecture and a tag
        tag = plan.get("pretrained") if plan.get("kind") == "clip" else None
        return {name: plan.get("model"), weights: tag}
    path = plan["path"]
    is_beside_config = os.path.basename(os.path.dirname(path)) == plan["architecture"]
    if is_beside_config and plan["model"] == plan["architecture"]:
        return {name: None, weights: path}
    return {name: plan["model"], weights: path}


_OLD = {"classify": _classify, "detect": _detect, "segment": _segment}
