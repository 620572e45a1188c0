-- Every filter of the lists of orders has an index that ends in the order of the pages.
CREATE INDEX idx_orders_merchant_status ON usdt_payment_orders (merchant_id, status, id);
CREATE INDEX idx_orders_status ON usdt_payment_orders (status, id);
CREATE INDEX idx_orders_user ON usdt_payment_orders (user_id, id) WHERE user_id IS NOT NULL;
CREATE INDEX idx_orders_number ON usdt_payment_orders (merchant_order_id) WHERE merchant_order_id IS NOT NULL;
CREATE INDEX idx_orders_amount ON usdt_payment_orders (amount, id);
CREATE INDEX idx_leases_network_order ON leases (network, order_id);
CREATE INDEX idx_leases_address ON leases (address, order_id);
CREATE INDEX idx_events_merchant ON events (merchant_id, seq);

-- Every try of a delivery: what was sent when, and what came back.
CREATE TABLE webhook_attempts (
    delivery_id TEXT NOT NULL,
    number BIGINT NOT NULL,                -- 1 for the first
    at BIGINT NOT NULL,
    took_ms BIGINT NOT NULL,
    url TEXT NOT NULL,
    code BIGINT,
    error TEXT,
    answer TEXT,                           -- the beginning of the body that came back
    PRIMARY KEY (delivery_id, number)
);
-- A try that somebody asked for is made once, beside the schedule: what it was before.
ALTER TABLE payment_webhooks ADD COLUMN before_status TEXT;
ALTER TABLE payment_webhooks ADD COLUMN before_due_at BIGINT;
CREATE INDEX idx_webhooks_status ON payment_webhooks (status, id);

-- Which events go to a merchant's receivers, as words with spaces between them; NULL for all.
ALTER TABLE merchants ADD COLUMN webhook_events TEXT;

-- What is sold for a time, and who has it until when.
CREATE TABLE plans (
    id TEXT PRIMARY KEY,
    merchant_id TEXT NOT NULL,
    name TEXT NOT NULL,
    price BIGINT NOT NULL,
    duration_days BIGINT NOT NULL,
    active BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    version BIGINT NOT NULL
);
CREATE INDEX idx_plans_merchant ON plans (merchant_id, id);

-- One row for each paid order: how long it made the membership. Activating twice is impossible.
CREATE TABLE membership_periods (
    order_id TEXT PRIMARY KEY,
    merchant_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    plan_id TEXT NOT NULL,
    starts_at BIGINT NOT NULL,
    ends_at BIGINT NOT NULL,
    withdrawn_at BIGINT,
    created_at BIGINT NOT NULL
);
CREATE INDEX idx_periods_user ON membership_periods (merchant_id, user_id, plan_id, ends_at);

-- What money to an order is for, where that is not just to pay it: open_amount, deposits. A permanent
-- address is an order that takes deposits: one for each customer on each network.
ALTER TABLE usdt_payment_orders ADD COLUMN purpose TEXT;
CREATE UNIQUE INDEX idx_orders_deposits ON usdt_payment_orders (merchant_id, user_id, network) WHERE purpose = 'deposits';
