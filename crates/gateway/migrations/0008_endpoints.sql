-- Everybody's events by type. Those of one merchant are read off idx_events_merchant, of whatever type.
CREATE INDEX idx_events_kind ON events (kind, seq);

-- Further receivers of a merchant's webhooks, beside merchants.webhook_url. One that was removed stays
-- for a while: the notice of its end is signed with its secret.
CREATE TABLE webhook_endpoints (
    id TEXT PRIMARY KEY,
    merchant_id TEXT NOT NULL,
    url TEXT NOT NULL,
    description TEXT,
    events TEXT,                           -- the types it takes, with spaces between them; NULL for all
    secret TEXT NOT NULL,                  -- sealed
    previous_secret TEXT,                  -- sealed, signs too
    previous_until BIGINT,
    enabled BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    removed_at BIGINT,
    version BIGINT NOT NULL
);
CREATE INDEX idx_webhook_endpoints_merchant ON webhook_endpoints (merchant_id, id) WHERE removed_at IS NULL;

-- The endpoint that a delivery goes to; NULL for the webhook_url of the merchant or an order's callback_url.
ALTER TABLE payment_webhooks ADD COLUMN endpoint_id TEXT;
CREATE INDEX idx_webhooks_endpoint ON payment_webhooks (endpoint_id, id) WHERE endpoint_id IS NOT NULL;
