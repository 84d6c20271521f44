-- What scales a process type by how its requests go (crates/control/src/reconcile/autoscale.rs). `measure` is what `value`
-- counts: milliseconds of the 95th percentile, or requests that wait for each dyno.
CREATE TABLE monitors (
    id TEXT PRIMARY KEY NOT NULL,
    app TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    type TEXT NOT NULL,
    measure TEXT NOT NULL CHECK (measure IN ('response_time', 'queue')),
    value INTEGER NOT NULL,
    min INTEGER NOT NULL,
    max INTEGER NOT NULL,
    active INTEGER NOT NULL,
    notifies INTEGER NOT NULL,
    notification_minutes INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (app, type)
) STRICT;

-- Path of the health check of the app.json that the slug was built with.
ALTER TABLE slugs ADD COLUMN health_check TEXT;
