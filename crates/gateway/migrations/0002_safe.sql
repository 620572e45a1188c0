-- The pool as a safe: where keys come from, what people did, what became of alerts.

-- A BIP-39 seed (hd, sealed) or an account's extended public key (watch): one source of many keys.
CREATE TABLE key_sources (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,                    -- hd, watch
    name TEXT NOT NULL UNIQUE,
    network TEXT,                          -- watch: the one network it is for; hd: any
    account BIGINT NOT NULL,               -- the hardened account number of BIP-44
    sealed TEXT,                           -- hd: the seed
    xpub TEXT,                             -- watch: the account's public key
    mac TEXT,                              -- watch: nobody puts another in its place
    created_at BIGINT NOT NULL
);

-- The next index of a source on a network. It moves in the commit that stores the wallets, and
-- never back: no gap, no address twice.
CREATE TABLE derivations (
    source_id TEXT NOT NULL,
    network TEXT NOT NULL,
    next_index BIGINT NOT NULL,
    PRIMARY KEY (source_id, network)
);

ALTER TABLE usdt_wallets ADD COLUMN source_id TEXT;
ALTER TABLE usdt_wallets ADD COLUMN derive_index BIGINT;
ALTER TABLE usdt_wallets ADD COLUMN verified_at BIGINT;
CREATE UNIQUE INDEX idx_wallets_derived ON usdt_wallets (source_id, network, derive_index) WHERE source_id IS NOT NULL;
DROP INDEX idx_wallets_available_network;
CREATE INDEX idx_wallets_available_network ON usdt_wallets (network, queue_rank, id) WHERE status = 'available' AND risk_level IN ('low', 'watch');

-- Append-only, each row chained to the one before it by its hash.
CREATE TABLE audit_log (
    seq BIGINT PRIMARY KEY,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    origin TEXT NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    hash TEXT NOT NULL
);
CREATE INDEX idx_audit_subject ON audit_log (subject, seq);
-- One row: the end of the chain. Its lock puts writers in line.
CREATE TABLE audit_head (
    id BIGINT PRIMARY KEY,
    seq BIGINT NOT NULL,
    hash TEXT NOT NULL
);

ALTER TABLE alerts ADD COLUMN changed_at BIGINT;
ALTER TABLE alerts ADD COLUMN changed_by TEXT;
ALTER TABLE alerts ADD COLUMN reason TEXT;
CREATE INDEX idx_alerts_status ON alerts (status, id);

-- What came to a wallet before, and who paid to which.
CREATE INDEX idx_transactions_wallet ON blockchain_transactions (wallet_id);
CREATE INDEX idx_transactions_payer ON blockchain_transactions (network, from_hex);
CREATE INDEX idx_wallets_paid ON usdt_wallets (network, paid_at) WHERE paid_at IS NOT NULL;
