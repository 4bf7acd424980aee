"""A site's part in secure aggregation: its keys, its shares, its masked vector.

What it must remember from stage to stage is secret, so it is under ``round.`` in
``Context.state``: it lasts as long as the round, and no history gets it. Keys, seeds and shares are
drawn from the operating system, not from the run's seed; the sum does not depend on them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp.typing import ClientAppCallable
from flwr.common.secure_aggregation.crypto.shamir import create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import (
    decrypt,
    encrypt,
    generate_shared_key,
)
from flwr.common.secure_aggregation.secaggplus_utils import (
    share_keys_plaintext_concat,
    share_keys_plaintext_separate,
)
from flwr.supercore.primitives.asymmetric import (
    bytes_to_public_key,
    generate_key_pairs,
    public_key_to_bytes,
)

from fedpdm.aggregation.screening import MOST_EXAMPLES, not_finite
from fedpdm.aggregation.update import Base, Update
from fedpdm.client.state import PASSING
from fedpdm.errors import SiteError
from fedpdm.seeding import seeded_globals
from fedpdm.transforms.masking import (
    COLLECT,
    KEY_BYTES,
    MASKED,
    SECAGG,
    SETUP,
    SHARE_KEYS,
    UNMASK,
    Coding,
    Vector,
    key_of,
    mask,
    pair_mask,
    secret_of,
    signed,
)
from fedpdm.wire.flower import content_of
from fedpdm.wire.records import (
    ARRAYS,
    BUFFERS,
    EXAMPLES,
    arrays_in,
    config_in,
    from_record,
    metrics_in,
    to_record,
)

if TYPE_CHECKING:
    from fedpdm.client.site_client import SiteClient

SECRETS = f"{PASSING}secagg"

Values = dict[str, Any]


class SecAggSite:
    """Answers the stages in which nobody trains, and masks what training sends. One serves all
    sites of a process.

    Args:
        client: knows the sites.
    """

    def __init__(self, client: SiteClient) -> None:
        self._client = client

    def answer(self, message: Message, context: Context) -> Message:
        """Reply to a stage without training.

        Raises:
            SiteError: the message does not fit what this site did before, or would uncover it.
        """
        site = self._client.name(context)
        asked: Values = dict(cast(ConfigRecord, message.content[SECAGG]).items())
        stage = str(asked["stage"])
        if stage == SETUP:
            secrets: Values = {"round": round_of(message), "stage": SETUP, "id": asked["id"]}
        else:
            secrets = self._remembered(site, message, context, stage)
        found = _STAGES[stage](site, secrets, asked)
        if stage == UNMASK:  # a second set of shares could uncover a site
            secrets = {name: secrets[name] for name in ("round", "stage")}
        context.state[SECRETS] = ConfigRecord(secrets)
        return Message(content_of({SECAGG: ConfigRecord(found)}), reply_to=message)

    def mask(self, message: Message, context: Context, call: ClientAppCallable) -> Message:
        """The outermost mod of training: sends a masked vector, where one is asked for.

        Raises:
            SiteError: too few others take part, or the update is not finite.
        """
        if SECAGG not in message.content:
            return call(message, context)
        site = self._client.name(context)
        asked: Values = dict(cast(ConfigRecord, message.content[SECAGG]).items())
        secrets = self._remembered(site, message, context, COLLECT)
        if unknown := set(asked["sources"]) - set(secrets["peers"]):
            raise SiteError(f"{site} shares no key with site number {min(unknown)}")
        if len(asked["sources"]) + 1 < secrets["threshold"]:
            raise SiteError(f"{site}: too few sites share keys with it to hide its update")
        reply = call(message, context)
        if reply.has_error():
            return reply
        vector = self._vector(site, message, reply, asked)
        vector = vector + mask(secrets["seed"], len(vector))
        own, keys = key_of(secrets["sk1"]), dict(zip(secrets["peers"], secrets["pk1"], strict=True))
        for other in asked["sources"]:
            vector += signed(pair_mask(own, keys[other], len(vector)), secrets["id"], other)
        secrets |= {name: asked[name] for name in ("sources", "ciphertexts")}
        context.state[SECRETS] = ConfigRecord(secrets)
        return Message(content_of({MASKED: to_record({"vector": vector})}), reply_to=message)

    def _vector(self, site: str, message: Message, reply: Message, asked: Values) -> Vector:
        """Return what training sent as whole numbers."""
        records = {name: from_record(r) for name, r in reply.content.array_records.items()}
        # The server cannot look for it: one NaN would spoil the sum of all.
        for arrays in records.values():
            if (flaw := not_finite(arrays)) is not None:
                raise SiteError(f"{site} keeps its update, {flaw}")
        metrics = metrics_in(reply.content)
        if not 0 < metrics[EXAMPLES] <= MOST_EXAMPLES:
            raise SiteError(f"{site} keeps its update of {metrics[EXAMPLES]:g} examples")
        config = config_in(message.content)
        sent = {name: arrays_in(message.content, name) for name in (ARRAYS, BUFFERS)}
        base = Base(int(config["server-round"]) - 1, sent[ARRAYS], sent[BUFFERS], config)
        records.setdefault(BUFFERS, sent[BUFFERS])
        update = Update(site, base, records, metrics, 1.0)
        key = site, int(config["server-round"]), int(config.get("attempt", 0))
        with seeded_globals(self._client.seed, "secagg", *key):
            coding = Coding(float(asked["clip"]), int(asked["bits"]))
            return coding.encode(update, bool(asked["by-examples"]))

    def _remembered(self, site: str, message: Message, context: Context, stage: str) -> Values:
        """Return what the stage before this one left, and note that this one was begun."""
        before = {SHARE_KEYS: SETUP, COLLECT: SHARE_KEYS, UNMASK: COLLECT}.get(stage)
        record = cast("ConfigRecord | None", context.state.get(SECRETS))
        secrets = {} if record is None else dict(record.items())
        if secrets.get("stage") != before or secrets.get("round") != round_of(message):
            raise SiteError(f"{site} is not in a round whose next stage is {stage}")
        return {**secrets, "stage": stage}


def round_of(message: Message) -> list[int]:
    """Return the round and the attempt that a message belongs to."""
    config = config_in(message.content)
    return [int(config["server-round"]), int(config.get("attempt", 0))]


def _setup(site: str, secrets: Values, asked: Mapping[str, Any]) -> Values:
    """Make two pairs of keys: for masks, and for what others are to read."""
    public = {}
    for number in ("1", "2"):
        private, open_half = generate_key_pairs()
        secrets[f"sk{number}"] = secret_of(private)
        public[f"pk{number}"] = public_key_to_bytes(open_half)
    secrets["public"] = list(public.values())
    return public


def _share_keys(site: str, secrets: Values, asked: Mapping[str, Any]) -> Values:
    """Share the seed of the own mask and the private key of the others' among the neighbours."""
    peers, first, second = (list(asked[name]) for name in ("peers", "pk1", "pk2"))
    threshold, count = int(asked["threshold"]), len(peers) + 1
    if secrets["id"] in peers or len({*first, *second, *secrets["public"]}) < 2 * count:
        raise SiteError(f"{site}: public keys of this round are not of different sites")
    # With fewer, the server could get both secrets of a site from two halves of its neighbours.
    if not (2 <= threshold <= count and 2 * threshold > int(asked["neighbourhood"]) >= count):
        raise SiteError(f"{site}: {threshold} of {count} shares do not keep its update secret")
    seed = os.urandom(KEY_BYTES)
    seeds = create_shares(seed, threshold, count)
    keys = create_shares(secrets["sk1"], threshold, count)
    own, ciphertexts = key_of(secrets["sk2"]), []
    for n, (peer, public) in enumerate(zip(peers, second, strict=True), start=1):
        shared = generate_shared_key(own, bytes_to_public_key(public))
        text = share_keys_plaintext_concat(secrets["id"], peer, seeds[n], keys[n])
        ciphertexts.append(encrypt(shared, text))
    secrets |= {"peers": peers, "pk1": first, "pk2": second, "threshold": threshold, "seed": seed,
                "own": seeds[0]}  # fmt: skip
    return {"peers": peers, "ciphertexts": ciphertexts}


def _unmask(site: str, secrets: Values, asked: Mapping[str, Any]) -> Values:
    """Give up the shares that the sum needs: of each site the one kind or the other, never both."""
    there, gone = list(asked["there"]), list(asked["gone"])
    known = {*secrets["sources"], secrets["id"]}
    if set(there) & set(gone) or not {*there, *gone} <= known or secrets["id"] not in there:
        raise SiteError(f"{site}: these shares would uncover a single update")
    if len(there) < secrets["threshold"]:
        raise SiteError(f"{site}: too few updates are in the sum to hide one")
    own, public = key_of(secrets["sk2"]), dict(zip(secrets["peers"], secrets["pk2"], strict=True))
    shares = {secrets["id"]: secrets["own"]}
    for source, text in zip(secrets["sources"], secrets["ciphertexts"], strict=True):
        shared = generate_shared_key(own, bytes_to_public_key(public[source]))
        sender, receiver, seed, key = share_keys_plaintext_separate(decrypt(shared, text))
        if (sender, receiver) != (source, secrets["id"]):
            raise SiteError(f"{site}: shares of site number {source} are not meant for it")
        shares[source] = key if source in gone else seed
    return {"ids": [*there, *gone], "shares": [shares[i] for i in (*there, *gone)]}


_STAGES: dict[str, Callable[[str, Values, Mapping[str, Any]], Values]] = {
    SETUP: _setup, SHARE_KEYS: _share_keys, UNMASK: _unmask,
}  # fmt: skip
