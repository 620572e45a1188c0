-- Whose a transfer is, is read by wallet and height: a wallet that was lent a thousand times is read
-- as fast as a new one.
CREATE INDEX idx_leases_wallet_height ON leases (wallet_id, from_height);
DROP INDEX idx_leases_wallet;
