"""Optimizers, and what belongs to taking a step."""

from thalweg.optim.accumulation import (
    AccumulationContext,
    count_tokens,
    normalized_backward,
)
from thalweg.optim.adaclip import ClipState, NormState, adaclip, adagn
from thalweg.optim.adamo import AdamO
from thalweg.optim.bilevel_baselines import saba as saba
from thalweg.optim.bilevel_baselines import soba as soba
from thalweg.optim.bilevel_baselines import stocbio as stocbio
from thalweg.optim.bilevel_baselines import ttsa as ttsa
from thalweg.optim.bilevel_problem import BilevelProblem as BilevelProblem
from thalweg.optim.bilevel_problem import hypergradient as hypergradient
from thalweg.optim.borep import BOREP as BOREP
from thalweg.optim.continual_backprop import ContinualBackprop
from thalweg.optim.grokfast import GrokfastEMA as GrokfastEMA
from thalweg.optim.grokfast import GrokfastMA as GrokfastMA
from thalweg.optim.implicit_diff import implicit_diff as implicit_diff
from thalweg.optim.l2_init import L2Init
from thalweg.optim.masked_optimizer import MaskedOptimizer
from thalweg.optim.muon import Muon
from thalweg.optim.muon_param_groups import muon_param_groups
from thalweg.optim.mup import MuAdam as MuAdam
from thalweg.optim.mup import MuAdamW as MuAdamW
from thalweg.optim.mup import MuSGD as MuSGD
from thalweg.optim.mup import mup_factor as mup_factor
from thalweg.optim.mup import mup_param_groups as mup_param_groups
from thalweg.optim.orthogonalize import orthogonalize, smoothed_nuclear
from thalweg.optim.project_gradients import ProjectGradients
from thalweg.optim.redo import ReDo
from thalweg.optim.regularized_muon import RegularizedMuon
from thalweg.optim.shrink_perturb import ShrinkPerturb
from thalweg.optim.ska_fit import SKAHistory, ska_fit
from thalweg.optim.stable_spam import StableSPAM

__all__ = [
    "BOREP",
    "AccumulationContext",
    "AdamO",
    "BilevelProblem",
    "ClipState",
    "ContinualBackprop",
    "GrokfastEMA",
    "GrokfastMA",
    "L2Init",
    "MaskedOptimizer",
    "MuAdam",
    "MuAdamW",
    "MuSGD",
    "Muon",
    "NormState",
    "ProjectGradients",
    "ReDo",
    "RegularizedMuon",
    "SKAHistory",
    "ShrinkPerturb",
    "StableSPAM",
    "adaclip",
    "adagn",
    "count_tokens",
    "hypergradient",
    "implicit_diff",
    "muon_param_groups",
    "mup_factor",
    "mup_param_groups",
    "normalized_backward",
    "orthogonalize",
    "saba",
    "ska_fit",
    "smoothed_nuclear",
    "soba",
    "stocbio",
    "ttsa",
]
