-- Everybody's events by type. Those of one merchant are read off idx_events_merchant, of whatever type.
CREATE INDEX idx_events_kind ON events (kind, seq);
