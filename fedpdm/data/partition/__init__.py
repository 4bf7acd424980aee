"""Which site owns which rows, for data sets that come as one file.

A partition gives a row to at most one site. The same seed gives the same sites, in
whatever order rows lie in the file. Ozdemir et al. (PHME 2026) show that the partition alone
changes federated results, so it is an option of its own: one class and one yaml each.

    ===============  ====================  ================================================
    ``partition=``   sites differ in      how rows are dealt
    ===============  ====================  ================================================
    natural          what they are         the data has sites of its own
    iid              nothing but chance    single rows, or whole machines of a time series
    machine          nothing but chance    whole machines
    dirichlet        labels                each class by shares from Dirichlet(alpha)
    quantity         amount of data        by shares from Dirichlet(alpha), whatever the label
    type, subset     kind                  one site for each value of a column
    condition        operating regime      one site for each operating condition
    life             length of life        machines sorted by life, cut into blocks
    time             season (drift)        the calendar, or an engine's life, cut into blocks
    paired           one machine each      extreme scarcity: a site trains on one machine
    ===============  ====================  ================================================
"""

from fedpdm.data.partition.at_random import ByMachine, Iid, Paired
from fedpdm.data.partition.attributes import ByCondition, ByLife, ByTime, ByType
from fedpdm.data.partition.base import Division, Natural, Partition
from fedpdm.data.partition.skew import ByQuantity, Dirichlet
from fedpdm.data.partition.source import PartitionedSource, RepartitionedSource

__all__ = [
    "ByCondition",
    "ByLife",
    "ByMachine",
    "ByQuantity",
    "ByTime",
    "ByType",
    "Dirichlet",
    "Division",
    "Iid",
    "Natural",
    "Paired",
    "Partition",
    "PartitionedSource",
    "RepartitionedSource",
]
