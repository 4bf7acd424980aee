"""What a site adds up for growing trees (``server.boosting``): sums go out, never rows.

A message ``train.trees`` brings the finished trees (``arrays``), what is to be added up
(``request``) and ``config{server-round, attempt, kind}``; the reply has int64 sums (``arrays``) and
``metrics{num-examples}``, with ``train_loss`` once for every tree.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from flwr.app import Context, Message

from fedpdm.client.site_client import SiteClient
from fedpdm.data.summaries import tree_columns
from fedpdm.federation import Site
from fedpdm.training.boosting import Request, Rows, loss_of
from fedpdm.wire.flower import content_of
from fedpdm.wire.records import ARRAYS, METRICS, arrays_in, config_in, metric_record, to_record

REQUEST = "request"


class TreeClient:
    """Answers requests for sums. One serves all sites of a process.

    Args:
        client: knows the sites.
    """

    def __init__(self, client: SiteClient) -> None:
        self.client = client
        self._rows: WeakKeyDictionary[Site, Rows] = WeakKeyDictionary()

    def __call__(self, message: Message, context: Context) -> Message:
        """Reply with the sums that a message asks for, of the site's training windows."""
        client, task = self.client, self.client.federation.task
        site = client.site(message, client.name(context))
        if len(site.train) == 0:
            client.federation.check([site])  # says why there is nothing to train on
        if site not in self._rows:
            self._rows[site] = Rows(tree_columns(site.train.x), site.train.y, loss_of(task))
        rows, trees = self._rows[site], arrays_in(message.content, ARRAYS)
        kind, arrays = str(config_in(message.content)["kind"]), arrays_in(message.content, REQUEST)
        request = Request(kind, len(trees["value"]), arrays)
        sums = rows.answer(request, trees)
        metrics: dict[str, float | None] = {}
        if request.at_roots:
            answers = torch.from_numpy(rows.answers(trees, request.trees))
            y = torch.from_numpy(site.train.y)
            metrics["train_loss"] = float(task.loss(answers.to(torch.float32), y))
        content = content_of({ARRAYS: to_record(sums), METRICS: metric_record(len(rows), metrics)})
        return Message(content, reply_to=message)
