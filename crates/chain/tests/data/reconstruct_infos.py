#!/usr/bin/env python3
"""Rebuilds the transaction infos of two recorded TRON mainnet blocks.

The blocks are real captures; their `gettransactioninfobyblocknum` answers were not captured, so
they are RECONSTRUCTED here from what the blocks say: every direct call of USDT's `transfer` and
`transferFrom` becomes the info and the `Transfer` log that the contract emits for it, every other
transaction becomes an info without logs. Fees and energy are left out: nothing depends on them.

One block is written as a node writes it (hex), one in the `visible: true` form (base58), as each
was captured. Needs nothing but Python 3:

    cd crates/chain/tests/data && python3 reconstruct_infos.py
"""

import hashlib
import json

TRANSFER_TOPIC = "ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
USDT = "41a614f803b6fd780986a42c78ec9c7f77e6ded13c"
ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

BLOCKS = [
    ("tron/mainnet_getblockbynum_60836289_visible_true.json", "tron/reconstructed_infos_60836289_visible_true.json"),
    ("tron/mainnet_getblockbynum_61132092.json", "tron/reconstructed_infos_61132092.json"),
]


def to_hex(address):
    """An address in either form as 42 hex digits."""
    if not address.startswith("T"):
        return address
    number = 0
    for char in address:
        number = number * 58 + ALPHABET.index(char)
    payload = number.to_bytes(25, "big")
    check = hashlib.sha256(hashlib.sha256(payload[:21]).digest()).digest()[:4]
    assert payload[21:] == check, address
    return payload[:21].hex()


def topic(address_word):
    """The contract takes the low 20 bytes of a calldata word: many wallets put 0x41 above them."""
    return "0" * 24 + address_word[-40:]


def transfer_of(owner, data):
    """(from topic, to topic, value word) of a direct call, or None for any other calldata."""
    selector, words = data[:8], [data[8 + i : 72 + i] for i in range(0, len(data) - 8, 64)]
    if selector == "a9059cbb" and len(words) == 2:
        return topic(owner), topic(words[0]), words[1]
    if selector == "23b872dd" and len(words) == 3:
        return topic(words[0]), topic(words[1]), words[2]
    return None


def info(block, transaction):
    raw = block["block_header"]["raw_data"]
    out = {"id": transaction["txID"], "blockNumber": raw["number"], "blockTimeStamp": raw["timestamp"]}
    contract = transaction["raw_data"]["contract"][0]
    if contract["type"] != "TriggerSmartContract":
        return out | {"contractResult": [""], "receipt": {"net_usage": 268}}
    value, outcome = contract["parameter"]["value"], transaction["ret"][0]["contractRet"]
    out |= {"contractResult": ["0" * 64], "contract_address": value["contract_address"], "receipt": {"result": outcome}}
    if outcome != "SUCCESS":
        return out | {"result": "FAILED"}
    if to_hex(value["contract_address"]) != USDT:
        return out
    moved = transfer_of(to_hex(value["owner_address"]), value["data"])
    if moved is None:
        return out
    # java-tron writes twenty bytes of hex; the visible form is the address as people write it.
    address = value["contract_address"] if value["contract_address"].startswith("T") else USDT[2:]
    sender, recipient, amount = moved
    return out | {"log": [{"address": address, "topics": [TRANSFER_TOPIC, sender, recipient], "data": amount}]}


for source, target in BLOCKS:
    with open(source) as file:
        block = json.load(file)
    infos = [info(block, transaction) for transaction in block["transactions"]]
    with open(target, "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(one, separators=(",", ":")) for one in infos) + "\n]\n")
    logs = [log for one in infos for log in one.get("log", [])]
    value = sum(int(log["data"], 16) for log in logs)
    zero = sum(int(log["data"], 16) == 0 for log in logs)
    print(f"{target}: {len(infos)} infos, {len(logs)} transfers, {zero} of them of nothing, {value} base units")
