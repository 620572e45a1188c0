#!/usr/bin/env python3
"""Makes the seeds of the fuzz targets from what the crates' tests have recorded: seeds.py FOLDER."""

import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT / "crates/chain/tests/data"
VECTORS = ROOT / "crates/vault/tests/vectors"
OUT = pathlib.Path(sys.argv[1])
SEED_BYTES_MAX = 16_384
TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
TOKEN = "0xdac17f958d2ee523a2206206994597c13d831ec7"


def read(path):
    return json.loads((DATA / path).read_text())


def short(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def seed(target, *lines):
    text = "\n".join(line if isinstance(line, str) else short(line) for line in lines)
    if len(text.encode()) > SEED_BYTES_MAX:
        return
    folder = OUT / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{len(list(folder.iterdir())):04}").write_text(text)


def texts(value):
    """Every text in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from texts(item)


for old in OUT.glob("*/*"):
    old.unlink()

# TRON: headers without the transactions, and infos a few at a time, in the block of a header that fits.
for path in ["tron/http_getblock_1.json", "tron/mainnet_getblockbynum_61132092.json", "tron/mainnet_getblockbynum_60836289_visible_true.json"]:
    block = read(path)
    seed("tron_header", {key: block[key] for key in ("blockID", "block_header")})
for error in read("tron/error_shapes.json").values():
    seed("tron_header", error)
    seed("tron_call", error)
    seed("json_rpc", "a" + short(error))
    seed("tron_solid", error)
seed("tron_solid", {"solidityBlock": f"Num:71553985,ID:{71553985:016x}" + "1" * 48, "block": "Num:71554003,ID:" + "2" * 64})
for call in read("tron/triggerconstantcontract_captures.json").values():
    seed("tron_call", call)


def header_of(info):
    number = info.get("blockNumber", 0)
    raw = {"number": number, "timestamp": info.get("blockTimeStamp", 0), "parentHash": "1" * 64, "txTrieRoot": "2" * 64, "unknown": 1}
    return {"blockID": f"{number:016x}" + "0" * 48, "block_header": {"raw_data": raw}}


infos = []
for path in sorted(DATA.glob("tron/*info*")):
    found = json.loads(path.read_text())
    infos += found if isinstance(found, list) else [found] if "id" in found else [info for info in found.values() if "id" in info]
with_logs = [info for info in infos if info.get("log")]
for info in with_logs[:60] + infos[:5]:
    seed("tron_infos", header_of(info), [info])
empty = header_of({})
empty["block_header"]["raw_data"]["txTrieRoot"] = "0" * 64
seed("tron_infos", empty, [])

# EVM: recorded results, and the recorded logs of the token with a header around them.
for path in sorted(DATA.glob("evm/execution-apis/*.io")):
    answers = [line[3:] for line in path.read_text().splitlines() if line.startswith("<< ")]
    for answer in answers:
        seed("json_rpc", "\x00" + answer)
        seed("json_rpc", "\x00[" + answer + "]")
        result = json.loads(answer).get("result")
        seed("evm_header", result)
for error in read("evm/provider_error_captures.json").values():
    seed("json_rpc", "\x00" + short(error))
    seed("json_rpc", "\x01" + short([{"jsonrpc": "2.0", "id": 1, "result": None}, {**error, "id": 0}]))
logs = read("evm/mainnet_usdt_logs_captures.json")["logs"]
logs += read("evm/mainnet_eth_getTransactionReceipt_usdt_alloy.json")["logs"]
for log in logs:
    header = {"number": log["blockNumber"], "hash": log["blockHash"], "parentHash": log["blockHash"], "timestamp": "0x66000000"}
    log["topics"][0] = TRANSFER
    for change in [{}, {"topics": log["topics"][:2]}, {"data": "0x" + "0" * 64}, {"removed": True}]:
        changed = {**log, **change, "address": TOKEN}
        seed("evm_logs", [header], [changed])
        seed("evm_logs", [header], [changed, {**changed, "logIndex": "0x1"}])
        receipt = {"blockHash": log["blockHash"], "status": "0x1", "logs": [changed]}
        seed("evm_receipts", {**header, "transactions": ["0x1"]}, [receipt])
        seed("evm_receipts", header, [receipt, {**receipt, "status": "0x0"}])
        seed("token_log", *changed["topics"], changed["data"])
vectors = read("vectors/abi_selectors_topics.json")["topics"]
for topic in vectors.values():
    word = "0" * 24 + "ab" * 20
    seed("token_log", topic, word)
    seed("token_log", topic, word, "0" * 63 + "2")
    seed("token_log", topic, "")

# Texts.
for path in sorted(DATA.glob("vectors/*.json")):
    for text in texts(json.loads(path.read_text())):
        seed("address", text)
        seed("rules_text", text)
for text in ["12.5", "0", "9000000000000.000000", "2026-01-31T12:00:00.000Z", "9999-12-31T23:59:59Z", "ord_01890a5dac96774bbcceb302099a8057", "1" * 78]:
    seed("rules_text", text)
seed("webhook", "msg_p5jXN8AQM9LWM0D4loKWxJek", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", '{"test": 2432232314}')
for header in ["t=1533204620,v1=" + "ab" * 32 + ",v0=" + "cd" * 32, "sha256=" + "ab" * 32, "v1=00,t=1", "t=1,t=1,v1=00"]:
    for line in ["/data/object/id {timestamp}.{body}", "/b/0/~1 v0:{timestamp}:{id}{body}", "/id {body}", "/a~1b/01 {body}x"]:
        seed("provider_webhook", header, line, '{"id":"evt_1","data":{"object":{"id":18446744073709551617}},"b":[{"/":1.50,"a":[]}],"a/b":[1,"\\u0041"]}')
        seed("provider_webhook", header, line, '{"payment_id":5077125051,"payment_status":"finished","fee":{"z":1e-7,"a":null},"a":1,"a":2}')
for path in sorted(VECTORS.glob("*.json")):
    for text in texts(json.loads(path.read_text())):
        if 16 <= len(text) <= 512:
            seed("vault_key", text)
for kind in range(5):
    seed("vault_text", chr(kind))
    seed("vault_text", chr(kind) + "\x00\x20a")

# The gateway's.
example = (ROOT / "config.example.toml").read_text()
plain = "\n".join(line[2:] if line.startswith("# ") and "=" in line else line for line in example.splitlines())
for file in [example, plain, '[networks.tron]\nrpc = ["https://n.example"]\n']:
    for line in ["", "DATABASE_URL=postgres://u:p@db/shop", "DATABASE_URL=sqlite:///./x.db?mode=rwc", "=30m", "ETHEREUM_RPC_URL=https://eth.example/key", "LOG_LEVEL=info,sqlx=warn"]:
        seed("config", line, file)
        seed("config", line, "")
order = {"amount": "12.5", "network": "tron", "user_id": "42", "plan_id": "p", "merchant_order_id": "INV-1001", "expires_in": 1800}
order |= {"callback_url": "https://shop.example/w", "redirect_url": "https://shop.example/", "metadata": {"a": [1, "\\u0000", {"b": None}]}}
seed("order_body", order)
for key in order:
    seed("order_body", {"amount": "1", key: order[key]})
query = "status=paid&network=tron&user_id=4%202&merchant_order_id=INV&address=T&tx_hash=0xab&created_from=2026-01-31T12:00:00Z&amount_min=1&limit=9"
seed("order_query", query)
seed("order_query", "cursor=b3JkXzAxODkwYTVk&limit=200&amount_max=12.5&created_to=2026-01-31T12:00:00.000Z")
for part in query.split("&"):
    seed("order_query", part)
for text in ["Order {{reference}} is paid: {{amount_confirmed}} {{token}}", "{{metadata.name}}", "{{ at }}", "a { b } c", "{{order_id", "}}"]:
    seed("notice_text", "customer.order.paid", text, "Ann {{amount}}", text + "\nThank you.")
    seed("notice_text", "order.paid", "", "", text)
