"""Entry of the plugin. FiftyOne executes it on every registry access: no state, nothing heavy."""

import os
import sys

try:
    import zs_operators  # noqa: F401  (the installed package, if there is one)
except ImportError:  # a linked or downloaded folder: the package lies at its root
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from .classify import Classify
from .detect import Detect
from .evaluate import Evaluate, OpenEvaluation
from .evaluation_panel import EvaluationPanel
from .few_shot import FewShot
from .getting_started import GettingStarted
from .outcomes import ShowOutcomes
from .prompt_lab import PromptLabPanel
from .rerun import Rerun
from .review import Review
from .run_operators import CompareRuns, DeleteRun, ExportRun, ImportRun
from .runs_panel import RunsPanel
from .sample_frames import SampleFrames
from .segment import Segment
from .stop_run import StopRun, StopShownRun


def register(p):
    p.register(Classify)
    p.register(Detect)
    p.register(Evaluate)
    p.register(OpenEvaluation)
    p.register(EvaluationPanel)
    p.register(FewShot)
    p.register(GettingStarted)
    p.register(PromptLabPanel)
    p.register(Review)
    p.register(SampleFrames)
    p.register(Segment)
    p.register(ShowOutcomes)
    p.register(StopRun)
    p.register(StopShownRun)
    p.register(CompareRuns)
    p.register(DeleteRun)
    p.register(ExportRun)
    p.register(ImportRun)
    p.register(Rerun)
    p.register(RunsPanel)
