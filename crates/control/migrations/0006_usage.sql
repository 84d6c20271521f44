-- When dynos ran. Rows are only ever added, and they stay when their app is destroyed: its name and owner are copied.
CREATE TABLE dyno_starts (
    dyno TEXT PRIMARY KEY NOT NULL,
    app TEXT NOT NULL,
    app_name TEXT NOT NULL,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    size TEXT NOT NULL,
    one_off INTEGER NOT NULL,
    started_at INTEGER NOT NULL
) STRICT;
CREATE INDEX dyno_starts_of_app ON dyno_starts (app, started_at);

-- `seen` is 0 where nobody saw the end (the machine lost power): then it is the last time at which the dyno was known.
CREATE TABLE dyno_ends (
    dyno TEXT PRIMARY KEY NOT NULL REFERENCES dyno_starts (dyno),
    ended_at INTEGER NOT NULL,
    seen INTEGER NOT NULL
) STRICT;

CREATE TRIGGER dyno_starts_are_never_changed BEFORE UPDATE ON dyno_starts
BEGIN
    SELECT raise(ABORT, 'the record of dynos is never changed');
END;
CREATE TRIGGER dyno_starts_are_never_removed BEFORE DELETE ON dyno_starts
BEGIN
    SELECT raise(ABORT, 'the record of dynos is never changed');
END;
CREATE TRIGGER dyno_ends_are_never_changed BEFORE UPDATE ON dyno_ends
BEGIN
    SELECT raise(ABORT, 'the record of dynos is never changed');
END;
CREATE TRIGGER dyno_ends_are_never_removed BEFORE DELETE ON dyno_ends
BEGIN
    SELECT raise(ABORT, 'the record of dynos is never changed');
END;

-- Releases that the platform made by itself because another did not come up; it never goes back from one of these.
CREATE TABLE returns (
    release TEXT PRIMARY KEY NOT NULL REFERENCES releases (id) ON DELETE CASCADE,
    failed TEXT NOT NULL REFERENCES releases (id) ON DELETE CASCADE
) STRICT;
