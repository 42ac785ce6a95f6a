"""Tensors are found in whatever an argument or a result is packed."""

from collections import OrderedDict, defaultdict

import pytest
import torch

from make_a_video_pytorch.ops.trees import map_leaves
from tests.image_models import Frozen, Named, Result

TREES = [
    (1, [2, (3, 4)]),
    {"a": 1, "b": {"c": [2]}},
    OrderedDict(a=1, b=2),
    defaultdict(list, a=1),
    Named(1, 2),
    Result(1, 2, norm=3),
    [torch.Size([3, 4]), slice(1)],
]


@pytest.mark.parametrize("tree", TREES, ids=str)
def test_branches_come_back_as_what_they_were(tree):
    def add(leaf, name):
        return leaf + 1 if isinstance(leaf, int) else leaf

    def subtract(leaf, name):
        return leaf - 1 if isinstance(leaf, int) else leaf

    result = map_leaves(add, tree)
    assert type(result) is type(tree)
    assert result != tree
    assert map_leaves(subtract, result, "") == tree
    assert map_leaves(lambda leaf, name: leaf, tree) is tree


def test_a_frozen_dataclass_computes_again_what_it_does_not_take():
    result = map_leaves(
        lambda leaf, name: leaf[:2] if isinstance(leaf, torch.Tensor) else leaf,
        Frozen(torch.randn(6, 4)),
    )
    assert result.sample.shape == (2, 4)
    assert result.rows == 2


def test_a_leaf_knows_its_name():
    names = []
    tree = {"a": [1, Result(2)]}
    map_leaves(lambda leaf, name: names.append(name) or leaf, tree, "args")
    assert names == [
        "args['a'][0]",
        "args['a'][1]['sample']",
        "args['a'][1]['note']",
        "args['a'][1]['norm']",
    ]


def test_branches_can_be_kept_as_leaves():
    found = []
    tree = [Named(1, 2), (3,)]
    assert map_leaves(lambda leaf, name: found.append(leaf) or leaf, tree, leaves=Named) is tree
    assert found == [Named(1, 2), 3]
