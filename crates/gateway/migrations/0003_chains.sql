-- Events are about more than orders: an alert is told as an event too.
ALTER TABLE events RENAME COLUMN order_id TO subject_id;
ALTER TABLE payment_webhooks RENAME COLUMN order_id TO subject_id;

-- The newest of wallet_balances, in whole millionths, for lists.
ALTER TABLE usdt_wallets ADD COLUMN balance BIGINT;
ALTER TABLE usdt_wallets ADD COLUMN balance_at BIGINT;
-- What a wallet with a past held beside our records when it was read first: 0, +123 or -123.
ALTER TABLE usdt_wallets ADD COLUMN opening TEXT;

-- The second reader of a network: the last block that it has compared.
CREATE TABLE second_readers (
    network TEXT PRIMARY KEY,
    compared BIGINT NOT NULL
);

-- What our records added up to when a balance was read: what came, and what went to another wallet
-- of ours.
ALTER TABLE wallet_balances ADD COLUMN incoming TEXT;
ALTER TABLE wallet_balances ADD COLUMN outgoing TEXT;

-- Long work that somebody asked for, and how far it is.
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    status TEXT NOT NULL,                  -- running, done, failed
    done BIGINT NOT NULL,
    total BIGINT NOT NULL,
    detail TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL
);

-- What providers said about transactions: each said once, looked at from a queue.
CREATE TABLE chain_messages (
    id TEXT PRIMARY KEY,
    received_at BIGINT NOT NULL
);
CREATE TABLE chain_hints (
    id TEXT PRIMARY KEY,
    network TEXT NOT NULL,
    tx_hash TEXT NOT NULL,
    tries BIGINT NOT NULL,
    due_at BIGINT NOT NULL,
    done_at BIGINT
);
CREATE INDEX idx_hints_due ON chain_hints (due_at) WHERE done_at IS NULL;
CREATE INDEX idx_transactions_disposition ON blockchain_transactions (disposition, id);

-- What the network's floor is, and why: at least so deep must money be buried while it is in trouble.
ALTER TABLE networks ADD COLUMN floor TEXT;
