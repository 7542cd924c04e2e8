"""The conformance kit: does a plugin keep its promises? And toys to test plugins with, on a CPU in seconds.

from bakeoff.testing import check_algorithm

def test_it_keeps_its_promises():
    check_algorithm(MyAlgorithm)

Each ``check_...`` takes a class or an installed plugin's name, and its settings; it raises ``ConformanceError`` that
says of each broken promise what was promised, what happened and how to mend it. So does ``bakeoff plugins check``.
"""

from bakeoff.testing.kit import (
    check_algorithm,
    check_evaluator,
    check_judge,
    check_report,
    check_task,
    examine,
)
from bakeoff.testing.promises import Conformance, ConformanceError, Finding
from bakeoff.testing.toys import ALPHABET, save_toy, toy_model, toy_tokenizer

__all__ = [
    "ALPHABET",
    "Conformance",
    "ConformanceError",
    "Finding",
    "check_algorithm",
    "check_evaluator",
    "check_judge",
    "check_report",
    "check_task",
    "examine",
    "save_toy",
    "toy_model",
    "toy_tokenizer",
]
