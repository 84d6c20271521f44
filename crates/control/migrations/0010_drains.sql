-- Where apps' streams go besides their history. `target` is sealed, because URLs and headers hold passwords and keys.
CREATE TABLE drains (
    id TEXT PRIMARY KEY NOT NULL,
    app TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('log', 'telemetry')),
    token TEXT NOT NULL UNIQUE,
    target BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX drains_of_app ON drains (app);
