"""Contract suites for your own classes, to be called from your own tests.

    from fedpdm.testing import check_strategy

    def test_my_strategy_keeps_the_contract():
        check_strategy(MyStrategy, optimizer="sgd")

Each is a plain function that raises AssertionError with one sentence saying what is broken.
The library's own strategies, models, data sets and engines go through the same functions.
"""

from fedpdm.testing.engine import check_engine
from fedpdm.testing.model import check_model
from fedpdm.testing.server import check_server
from fedpdm.testing.source import check_data_source
from fedpdm.testing.strategy import check_strategy
from fedpdm.testing.transform import check_transform

__all__ = [
    "check_data_source",
    "check_engine",
    "check_model",
    "check_server",
    "check_strategy",
    "check_transform",
]
