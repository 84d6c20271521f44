-- What a build made. `image` is the OCI manifest's digest; a slug created through the API has none until it is uploaded.
CREATE TABLE slugs (
    id TEXT PRIMARY KEY NOT NULL,
    app TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    image TEXT,
    checksum TEXT,
    "commit" TEXT,
    commit_description TEXT,
    buildpack_description TEXT,
    process_types TEXT NOT NULL,
    launch_env TEXT NOT NULL DEFAULT '{}',
    layers TEXT NOT NULL DEFAULT '[]',
    size INTEGER,
    stack TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted_at INTEGER
) STRICT;
CREATE INDEX slugs_of_app ON slugs (app);

CREATE TABLE builds (
    id TEXT PRIMARY KEY NOT NULL,
    app TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    account TEXT NOT NULL,
    email TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('pending', 'succeeded', 'failed')),
    source_url TEXT NOT NULL,
    source_checksum TEXT,
    source_version TEXT,
    source_version_description TEXT,
    buildpacks TEXT NOT NULL DEFAULT '[]',
    stack TEXT NOT NULL,
    slug TEXT,
    release TEXT,
    foreign_ms INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX builds_of_app ON builds (app, created_at);

-- Uploaded source blobs: `sources/<id>.tgz` in the data directory.
CREATE TABLE sources (
    id TEXT PRIMARY KEY NOT NULL,
    account TEXT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    size INTEGER,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

-- The ledger. A row is never changed; each carries the hash of the one before (crates/control/src/ops/ledger.rs).
-- `config` is sealed: the config vars of this release, all of them. The app's config vars are those of its newest row.
CREATE TABLE releases (
    id TEXT PRIMARY KEY NOT NULL,
    app TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    description TEXT NOT NULL,
    account TEXT NOT NULL,
    email TEXT NOT NULL,
    slug TEXT,
    config BLOB NOT NULL,
    attachments TEXT NOT NULL,
    formation TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    previous_hash BLOB NOT NULL,
    hash BLOB NOT NULL,
    UNIQUE (app, version)
) STRICT;

CREATE TRIGGER releases_are_never_changed BEFORE UPDATE ON releases
BEGIN
    SELECT raise(ABORT, 'a release is never changed');
END;

-- They go only together with their app.
CREATE TRIGGER releases_are_never_removed BEFORE DELETE ON releases
WHEN EXISTS (SELECT 1 FROM apps WHERE id = OLD.app)
BEGIN
    SELECT raise(ABORT, 'a release is never removed');
END;

-- How a release ended. One without a row is pending.
CREATE TABLE release_outcomes (
    release TEXT PRIMARY KEY NOT NULL REFERENCES releases (id) ON DELETE CASCADE,
    status TEXT NOT NULL CHECK (status IN ('succeeded', 'failed')),
    at INTEGER NOT NULL
) STRICT;

CREATE TRIGGER release_outcomes_are_never_changed BEFORE UPDATE ON release_outcomes
BEGIN
    SELECT raise(ABORT, 'the outcome of a release is never changed');
END;

CREATE TRIGGER release_outcomes_are_never_removed BEFORE DELETE ON release_outcomes
WHEN EXISTS (SELECT 1 FROM releases WHERE id = OLD.release)
BEGIN
    SELECT raise(ABORT, 'the outcome of a release is never removed');
END;

-- Where each app's ledger ends, so that cutting rows off its end is seen.
CREATE TABLE ledger_heads (
    app TEXT PRIMARY KEY NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    hash BLOB NOT NULL
) STRICT;

CREATE TABLE formation (
    id TEXT PRIMARY KEY NOT NULL,
    app TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    type TEXT NOT NULL,
    quantity INTEGER NOT NULL,
    size TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (app, type)
) STRICT;
