-- Add-ons of apps (crates/control/src/ops/addons.rs), each with its one attachment. What a service and a plan are is in
-- the code: there are only the platform's own.
CREATE TABLE addons (
    id TEXT PRIMARY KEY NOT NULL,
    app TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    name TEXT NOT NULL UNIQUE,
    plan TEXT NOT NULL,
    attachment_id TEXT NOT NULL UNIQUE,
    attachment TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (app, attachment)
) STRICT;
