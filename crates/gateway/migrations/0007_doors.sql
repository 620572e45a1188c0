-- What payment providers said: each message once. It is the queue of what is still to be looked at,
-- and afterwards what support reads.
CREATE TABLE webhook_inbox (
    id TEXT PRIMARY KEY,
    provider TEXT NOT NULL,
    message_id TEXT NOT NULL,              -- the provider's own
    digest TEXT,                           -- of what was signed, where the id was not
    network TEXT,                          -- of the transaction that it names
    tx_hash TEXT,                          -- as it was named
    order_ref TEXT,                        -- the order that it names, as it was named
    order_id TEXT,                         -- that order, if it is one of ours
    body TEXT NOT NULL,                    -- as far as it is kept
    body_bytes BIGINT NOT NULL,            -- how long it was
    outcome TEXT NOT NULL,                 -- waiting, looked, unknown, kept
    received_at BIGINT NOT NULL,
    handled_at BIGINT
);
CREATE UNIQUE INDEX idx_inbox_message ON webhook_inbox (provider, message_id);
CREATE UNIQUE INDEX idx_inbox_digest ON webhook_inbox (provider, digest) WHERE digest IS NOT NULL;
CREATE INDEX idx_inbox_provider ON webhook_inbox (provider, id);
CREATE INDEX idx_inbox_waiting ON webhook_inbox (id) WHERE handled_at IS NULL;
CREATE INDEX idx_inbox_received ON webhook_inbox (received_at);
