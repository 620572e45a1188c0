-- Events are about more than orders: an alert is told as an event too.
ALTER TABLE events RENAME COLUMN order_id TO subject_id;
ALTER TABLE payment_webhooks RENAME COLUMN order_id TO subject_id;

-- The newest of wallet_balances, in whole millionths, for lists.
ALTER TABLE usdt_wallets ADD COLUMN balance BIGINT;
ALTER TABLE usdt_wallets ADD COLUMN balance_at BIGINT;
