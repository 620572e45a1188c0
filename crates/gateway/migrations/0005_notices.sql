-- Messages to the operator and to customers: by mail, Telegram and SMS. The table was there and
-- empty. A message is made once and sent as it is, whatever becomes of its template meanwhile.

ALTER TABLE payment_notifications ADD COLUMN topic TEXT NOT NULL DEFAULT '';
ALTER TABLE payment_notifications ADD COLUMN event_id TEXT;          -- of digests none
ALTER TABLE payment_notifications ADD COLUMN language TEXT NOT NULL DEFAULT 'en';
ALTER TABLE payment_notifications ADD COLUMN subject TEXT NOT NULL DEFAULT '';
ALTER TABLE payment_notifications ADD COLUMN body TEXT NOT NULL DEFAULT '';
ALTER TABLE payment_notifications ADD COLUMN tries BIGINT NOT NULL DEFAULT 0;
ALTER TABLE payment_notifications ADD COLUMN due_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE payment_notifications ADD COLUMN last_error TEXT;
ALTER TABLE payment_notifications ADD COLUMN last_tried_at BIGINT;
-- Status: due, sent, failed.
CREATE INDEX idx_notifications_due ON payment_notifications (channel, due_at) WHERE status = 'due';
CREATE INDEX idx_notifications_order ON payment_notifications (order_id) WHERE order_id IS NOT NULL;
-- Nobody is told of an event twice.
CREATE UNIQUE INDEX idx_notifications_once ON payment_notifications (event_id, topic, channel, recipient) WHERE event_id IS NOT NULL;

-- Where the making of messages is, in one row: the last event that was told, and the end of the last
-- digest. It moves in the commit that stores the messages.
CREATE TABLE notice_mark (
    id BIGINT PRIMARY KEY,
    seq BIGINT NOT NULL,
    digest_until BIGINT NOT NULL
);

-- Texts that a person wrote in the place of those that the program brings.
CREATE TABLE notice_templates (
    topic TEXT NOT NULL,
    channel TEXT NOT NULL,
    language TEXT NOT NULL,
    subject TEXT NOT NULL,
    body TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    PRIMARY KEY (topic, channel, language)
);
