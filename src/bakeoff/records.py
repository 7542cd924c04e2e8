"""What a cell says of itself: ``cell.json``, what it is, and ``ledger.json``, what it cost."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bakeoff import registry
from bakeoff.overlap import overlap
from bakeoff.setup import Setup, parity

if TYPE_CHECKING:
    from bakeoff.stages import Stages
    from bakeoff.worker import CellRun


def cell_record(run: CellRun) -> dict[str, Any]:
    """The fields of ``cell.json``, known before the cell trains."""
    cell, setup, algorithm, stages = run.cell, run.setup, run.algorithm, run.stages
    variant = registry.variant(cell.algorithm.name, cell.algorithm.preset)
    metrics = [
        {**asdict(metric), "evaluator": spec.name}
        for spec, evaluator in zip(cell.evaluators, run.measuring.evaluators, strict=True)
        for metric in evaluator.metrics
    ]
    return {
        "id": run.cell_id,
        "model": cell.model.label,
        "task": cell.task.label,
        "budget": cell.budget.name,
        "algorithm": cell.algorithm.label,
        "algorithm_name": cell.algorithm.name,
        "preset": cell.algorithm.preset,
        "title": variant.title,
        "paper": variant.paper,
        "differs_from_paper": getattr(variant, "differs_from_paper", ""),
        "settings": algorithm.settings.model_dump(mode="json"),
        "is_sampled": algorithm.is_sampled(),
        "is_control": algorithm.is_control,
        "kl_bound": algorithm.kl_bound(),
        "seed": cell.seed,
        "metrics": metrics,
        "references": dict(setup.data.references),
        "reference_pool": run.measuring.reference_pool,
        "parity": parity(setup),
        "reference_samples": stages.reference_id,
        "data": _data(setup, stages),
        "spec": cell.model_dump(mode="json"),
    }


def _data(setup: Setup, stages: Stages) -> dict[str, Any]:
    """The rows: whose they are, how many, which were left out and why, and what was made of them."""
    data, rows = setup.data, setup.rows
    return {
        "source": data.source,
        "licence": data.licence,
        "fingerprint": data.fingerprint,
        "train_rows": len(rows.train),
        "test_rows": len(rows.test),
        "overlap": overlap(
            [row.prompt for row in rows.train],
            {row.row["id"]: row.prompt for row in setup.evaluation_rows},
        ),
        "left_out": dict(rows.left_out),
        "bad_rows": len(data.bad_rows),
        "bad_row_examples": [asdict(row) for row in data.bad_rows[:20]],
        "derived": stages.derived,
    }


def ledger(run: CellRun) -> dict[str, Any]:
    """The fields of ``ledger.json``, once the cell is measured."""
    roles, budget, meter = run.setup.roles, run.cell.budget, run.meter
    auxiliary = roles.parameters("value") if roles.has("value") else []
    return {
        "budget": {"name": budget.name, "version": budget.version, "limits": budget.limits()},
        "spent": meter.spent(),
        "roles": {name: asdict(role) for name, role in meter.roles.items()},
        "overshoot": run.overshoot,
        "peak_bytes": _peak_bytes(),
        "trainable": {
            "policy": sum(p.numel() for p in roles.parameters(run.algorithm.role)),
            "auxiliary": sum(p.numel() for p in auxiliary),
        },
        "shared": run.stages.shared,
        "probes": run.measuring.probes,
    }


def _peak_bytes() -> int:
    """The process's peak resident memory, or the GPU's peak where there is one."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
