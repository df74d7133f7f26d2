"""Functions of many rows, a few at a time."""

import torch

from metagen.functional.rows import in_parts


def test_parts_give_what_all_rows_give_and_none_is_larger_than_asked_for():
    seen = []

    def function(x, y):
        seen.append(len(x))
        return x + y[:, 0]

    x, y = torch.arange(10.0), torch.rand(10, 2)
    assert torch.equal(in_parts(function, x, y, most=4), x + y[:, 0])
    assert seen == [4, 4, 2]
    assert torch.equal(in_parts(function, x, y, most=10), x + y[:, 0])
    assert seen[3:] == [10]


def test_no_rows_are_no_rows():
    assert in_parts(lambda x: 2 * x, torch.ones(0, 3), most=4).shape == (0, 3)


def test_a_graph_that_is_exported_takes_any_number_of_rows():
    class Twice(torch.nn.Module):
        def forward(self, x):
            return in_parts(lambda part: 2 * part, x, most=2)

    rows = {"x": {0: torch.export.Dim("rows", min=1, max=64)}}
    graph = torch.export.export(Twice(), (torch.ones(5, 3),), dynamic_shapes=rows)
    assert graph.module()(torch.ones(9, 3)).shape == (9, 3)
