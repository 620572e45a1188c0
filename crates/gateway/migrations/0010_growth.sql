-- What keeps a database from growing for ever, and takes it to a larger one. What PostgreSQL alone
-- needs is in store/partitions.rs.

-- A move from SQLite to PostgreSQL. `here`: rows come in from there; `away`: they went there, and
-- nothing runs on this database any more.
CREATE TABLE moves (
    direction TEXT PRIMARY KEY,
    peer TEXT NOT NULL,                    -- the other database, without user and password
    started_at BIGINT NOT NULL,
    finished_at BIGINT
);
-- How far each table is. It moves in the commit that stores the rows.
CREATE TABLE move_marks (
    table_name TEXT PRIMARY KEY,
    last_key TEXT NOT NULL,                -- JSON: the key of the last row that was copied
    copied BIGINT NOT NULL
);

-- The files that rows went to before they were deleted.
CREATE TABLE archives (
    file TEXT PRIMARY KEY,                 -- below retention.archive_dir
    table_name TEXT NOT NULL,
    row_count BIGINT NOT NULL,
    sha256 TEXT NOT NULL,                  -- of the file
    made_at BIGINT NOT NULL
);
CREATE INDEX idx_balances_taken ON wallet_balances (taken_at);
