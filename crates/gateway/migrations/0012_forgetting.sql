-- What is kept only for a while is found by its time: housekeeping reads what is old and nothing else.
CREATE INDEX idx_commits_at ON commits (at);
CREATE INDEX idx_chain_messages_received ON chain_messages (received_at);
CREATE INDEX idx_chain_hints_done ON chain_hints (done_at) WHERE done_at IS NOT NULL;
CREATE INDEX idx_notifications_created ON payment_notifications (created_at);
