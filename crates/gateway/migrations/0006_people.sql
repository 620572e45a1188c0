-- The people who run the gateway, and the credentials of shops.

CREATE TABLE users (
    id TEXT PRIMARY KEY,
    email TEXT NOT NULL UNIQUE,            -- in lower case
    role TEXT NOT NULL,                    -- owner, operator, support, viewer
    status TEXT NOT NULL,                  -- active, disabled
    password_hash TEXT NOT NULL,           -- Argon2id with its parameters
    totp_secret TEXT,                      -- sealed
    totp_confirmed BIGINT NOT NULL,        -- 0 while it is only offered
    totp_step BIGINT NOT NULL,             -- of the last code that was used
    created_at BIGINT NOT NULL,
    last_login_at BIGINT,
    version BIGINT NOT NULL
);

-- A session that ended stays for a while: it tells the addresses that somebody came in from.
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    token_hash TEXT NOT NULL UNIQUE,       -- SHA-256 of the cookie
    user_id TEXT NOT NULL,
    address TEXT NOT NULL,
    agent TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    ended_at BIGINT
);
CREATE INDEX idx_sessions_user ON sessions (user_id, id);

ALTER TABLE api_keys ADD COLUMN name TEXT;
ALTER TABLE api_keys ADD COLUMN expires_at BIGINT;
ALTER TABLE api_keys ADD COLUMN allowed_ips TEXT;
ALTER TABLE api_keys ADD COLUMN last_used_at BIGINT;
ALTER TABLE api_keys ADD COLUMN revoked_at BIGINT;

-- After a change of the webhook secret both sign for a while.
ALTER TABLE merchants ADD COLUMN previous_secret TEXT;
ALTER TABLE merchants ADD COLUMN previous_until BIGINT;
