-- One text for both engines. {serial} is the only thing that differs: a key that the database
-- counts up by itself. Times are milliseconds since 1970, money is millionths in BIGINT and exact
-- base units in TEXT, flags are 0 or 1.

CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE merchants (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    webhook_url TEXT,
    webhook_secret TEXT NOT NULL,          -- sealed
    created_at BIGINT NOT NULL
);

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    merchant_id TEXT NOT NULL,
    secret_hash TEXT NOT NULL UNIQUE,      -- SHA-256 of the whole key
    scopes TEXT NOT NULL,                  -- space separated
    livemode BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

-- What we know of a chain: where its follower is.
CREATE TABLE networks (
    name TEXT PRIMARY KEY,
    tip BIGINT NOT NULL,
    peak BIGINT NOT NULL,
    finalized BIGINT,
    halted TEXT,
    version BIGINT NOT NULL
);

-- Counts up with every new wallet, in the wallet's own transaction: the follower of another
-- process learns of a wallet before it matches the next block.
CREATE TABLE wallet_epochs (
    network TEXT PRIMARY KEY,
    epoch BIGINT NOT NULL
);

CREATE TABLE blocks (
    network TEXT NOT NULL,
    number BIGINT NOT NULL,
    hash TEXT NOT NULL,
    parent TEXT NOT NULL,
    time BIGINT NOT NULL,
    PRIMARY KEY (network, number)
);

CREATE TABLE usdt_wallets (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    network TEXT NOT NULL,
    address TEXT NOT NULL,                 -- as people on the chain write it
    address_hex TEXT NOT NULL,             -- its 20 bytes
    kind TEXT NOT NULL,
    status TEXT NOT NULL,
    sealed_key TEXT,
    tag TEXT NOT NULL,                     -- MAC over (id, network, address)
    risk_level TEXT NOT NULL,
    queue_rank BIGINT NOT NULL,            -- 0: never leased random key; else rested since
    ever_leased BIGINT NOT NULL,
    leased_to BIGINT,                      -- where its last lease ended
    paid_at BIGINT,                        -- the highest block with a recorded transfer to it
    rested_at BIGINT,                      -- chain time at which its cooldown ends
    order_id TEXT,
    epoch BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    last_used_at BIGINT,
    version BIGINT NOT NULL,
    UNIQUE (network, address_hex)
);
CREATE INDEX idx_wallets_status_network ON usdt_wallets (status, network);
CREATE INDEX idx_wallets_available_network ON usdt_wallets (network, queue_rank, id) WHERE status = 'available';
CREATE INDEX idx_wallets_cooldown ON usdt_wallets (network, rested_at) WHERE status = 'cooldown';
CREATE INDEX idx_wallets_epoch ON usdt_wallets (network, epoch);

CREATE TABLE usdt_payment_orders (
    id TEXT PRIMARY KEY,
    merchant_id TEXT NOT NULL,
    livemode BIGINT NOT NULL,
    status TEXT NOT NULL,
    exception TEXT,
    network TEXT,                          -- the payer's current choice
    token TEXT NOT NULL,
    amount BIGINT NOT NULL,
    amount_received BIGINT NOT NULL,
    amount_confirmed BIGINT NOT NULL,
    tolerance BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    late_window BIGINT NOT NULL,
    accept_late BIGINT NOT NULL,
    cooldown BIGINT NOT NULL,
    depths TEXT NOT NULL,                  -- {"tron":19,"ethereum":"final"}
    price_amount TEXT,                     -- reserved for prices in other currencies
    price_currency TEXT,
    rate TEXT,
    rate_at BIGINT,
    user_id TEXT,
    plan_id TEXT,
    merchant_order_id TEXT,
    callback_url TEXT,
    redirect_url TEXT,
    metadata TEXT NOT NULL,
    note TEXT,
    payer_chooses BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    paid_at BIGINT,
    paid_by TEXT,
    paid_late BIGINT NOT NULL,
    expired_at BIGINT,
    cancelled_at BIGINT,
    cancel_reason TEXT,
    confirmation TEXT,                     -- a person's word: {"reason", "network"?, "tx_hash"?, "ordinal"?}
    reverted BIGINT NOT NULL,
    excess_told BIGINT NOT NULL,
    version BIGINT NOT NULL
);
CREATE INDEX idx_orders_status_expires ON usdt_payment_orders (status, expires_at) WHERE status = 'pending';
CREATE INDEX idx_orders_pending_user ON usdt_payment_orders (user_id) WHERE status = 'pending';
CREATE INDEX idx_orders_merchant ON usdt_payment_orders (merchant_id, id);
CREATE UNIQUE INDEX idx_orders_merchant_order_id ON usdt_payment_orders (merchant_id, merchant_order_id) WHERE merchant_order_id IS NOT NULL;

CREATE TABLE leases (
    id TEXT PRIMARY KEY,
    order_id TEXT NOT NULL,
    network TEXT NOT NULL,
    wallet_id TEXT NOT NULL,
    address TEXT NOT NULL,
    address_hex TEXT NOT NULL,
    tag TEXT NOT NULL,
    from_height BIGINT NOT NULL,
    to_height BIGINT,
    late_until BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
-- I2: a wallet has at most one live lease.
CREATE UNIQUE INDEX idx_leases_live_wallet ON leases (wallet_id) WHERE to_height IS NULL;
CREATE INDEX idx_leases_live_end ON leases (network, late_until) WHERE to_height IS NULL;
CREATE INDEX idx_leases_wallet ON leases (wallet_id);
CREATE INDEX idx_leases_order ON leases (order_id);

-- I3: a transfer is stored once. History may be partitioned; this table is not.
CREATE TABLE transfer_keys (
    network TEXT NOT NULL,
    tx_hash TEXT NOT NULL,
    ordinal BIGINT NOT NULL,
    transfer_id TEXT NOT NULL,
    PRIMARY KEY (network, tx_hash, ordinal)
);

CREATE TABLE blockchain_transactions (
    id TEXT PRIMARY KEY,
    network TEXT NOT NULL,
    tx_hash TEXT NOT NULL,
    ordinal BIGINT NOT NULL,
    block_number BIGINT NOT NULL,
    block_hash TEXT NOT NULL,
    block_time BIGINT NOT NULL,
    from_address TEXT NOT NULL,
    from_hex TEXT NOT NULL,
    to_address TEXT NOT NULL,
    to_hex TEXT NOT NULL,
    amount BIGINT NOT NULL,                -- whole millionths
    raw_value TEXT NOT NULL,               -- base units, exactly
    decimals BIGINT NOT NULL,
    status TEXT NOT NULL,                  -- pending, confirmed, failed, orphaned
    disposition TEXT NOT NULL,             -- matched, late, stray, dust, own, unreadable
    order_id TEXT,
    wallet_id TEXT,
    proven BIGINT NOT NULL,
    promoted BIGINT NOT NULL,
    by_hand BIGINT NOT NULL,
    late_told BIGINT NOT NULL,
    raw_log TEXT,
    seen_at BIGINT NOT NULL,
    version BIGINT NOT NULL
);
CREATE INDEX idx_transactions_address_time ON blockchain_transactions (to_address, block_time);
CREATE INDEX idx_transactions_order ON blockchain_transactions (order_id);
CREATE INDEX idx_transactions_network_block ON blockchain_transactions (network, block_number);
CREATE INDEX idx_transactions_tx_hash ON blockchain_transactions (tx_hash);
CREATE INDEX idx_transactions_unsettled ON blockchain_transactions (network, block_number) WHERE status = 'pending';

CREATE TABLE journal (
    transfer_id TEXT NOT NULL,
    turn BIGINT NOT NULL,
    network TEXT NOT NULL,
    debit TEXT NOT NULL,
    credit TEXT NOT NULL,
    raw_value TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (transfer_id, turn)
);

CREATE TABLE events (
    seq {serial},
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    merchant_id TEXT NOT NULL,
    order_id TEXT NOT NULL,
    at BIGINT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX idx_events_order ON events (order_id, seq);

CREATE TABLE payment_webhooks (
    id TEXT PRIMARY KEY,
    event_id TEXT NOT NULL,
    merchant_id TEXT NOT NULL,
    order_id TEXT NOT NULL,
    url TEXT NOT NULL,
    origin TEXT NOT NULL,
    event_at BIGINT NOT NULL,
    status TEXT NOT NULL,                  -- due, delivered, failed
    tries BIGINT NOT NULL,
    due_at BIGINT NOT NULL,
    last_code BIGINT,
    last_error TEXT,
    last_tried_at BIGINT
);
CREATE INDEX idx_webhooks_due ON payment_webhooks (due_at) WHERE status = 'due';
CREATE INDEX idx_webhooks_order ON payment_webhooks (order_id);

CREATE TABLE idempotency_keys (
    scope TEXT PRIMARY KEY,
    body_mac TEXT NOT NULL,
    status BIGINT NOT NULL,
    location TEXT,
    body TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX idx_idempotency_created ON idempotency_keys (created_at);

CREATE TABLE alerts (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    about TEXT NOT NULL,
    detail TEXT NOT NULL,
    status TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (kind, about)
);

CREATE TABLE wallet_balances (
    id TEXT PRIMARY KEY,
    wallet_id TEXT NOT NULL,
    raw_value TEXT NOT NULL,
    block_number BIGINT NOT NULL,
    taken_at BIGINT NOT NULL
);
CREATE INDEX idx_balances_wallet_time ON wallet_balances (wallet_id, taken_at);

CREATE TABLE payment_notifications (
    id TEXT PRIMARY KEY,
    order_id TEXT,
    channel TEXT NOT NULL,
    recipient TEXT NOT NULL,
    status TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

-- The last commits by their id: after a connection broke during COMMIT this tells what happened.
CREATE TABLE commits (
    id TEXT PRIMARY KEY,
    at BIGINT NOT NULL
);

CREATE VIEW recent_transactions AS
    SELECT * FROM blockchain_transactions WHERE seen_at > {now} - 2592000000;
