-- Several processes on one database.

-- What one process at a time does: following a network, keeping house, and for each process to be there.
-- Whoever holds a duty renews
-- it; whoever finds it not renewed takes it over and counts the fence up, which what the one before
-- still writes does not pass. Times are the database's own.
CREATE TABLE duties (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    fence BIGINT NOT NULL,
    held_until BIGINT NOT NULL
);

-- Who works on a row of a queue, and until when nobody else does (PostgreSQL; a file has one process).
ALTER TABLE payment_webhooks ADD COLUMN claimed_by TEXT;
ALTER TABLE payment_webhooks ADD COLUMN claimed_until BIGINT;
ALTER TABLE payment_notifications ADD COLUMN claimed_by TEXT;
ALTER TABLE payment_notifications ADD COLUMN claimed_until BIGINT;
ALTER TABLE chain_hints ADD COLUMN claimed_by TEXT;
ALTER TABLE chain_hints ADD COLUMN claimed_until BIGINT;
ALTER TABLE webhook_inbox ADD COLUMN claimed_by TEXT;
ALTER TABLE webhook_inbox ADD COLUMN claimed_until BIGINT;

-- A job whose process says nothing any more is claimed by another; there is one of a kind at a time.
ALTER TABLE jobs ADD COLUMN claimed_by TEXT;
UPDATE jobs SET status = 'failed' WHERE status = 'running';
CREATE UNIQUE INDEX idx_jobs_running ON jobs (kind) WHERE status = 'running';

-- With the status in front SQLite reads the queue off it, in its order; by the time alone it took the
-- index of the lists and sorted the whole queue at each look.
DROP INDEX idx_webhooks_due;
CREATE INDEX idx_webhooks_due ON payment_webhooks (status, due_at, id) WHERE status = 'due';
