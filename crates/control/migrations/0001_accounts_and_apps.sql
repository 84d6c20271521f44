-- Who may sign in, and what they own. Times are microseconds since 1970, ids are lower-case UUIDs as text.
CREATE TABLE accounts (
    id TEXT PRIMARY KEY NOT NULL,
    email TEXT NOT NULL COLLATE NOCASE UNIQUE,
    name TEXT,
    admin INTEGER NOT NULL DEFAULT 0,
    password_hash BLOB,
    password_salt BLOB,
    password_rounds INTEGER,
    allow_tracking INTEGER NOT NULL DEFAULT 0,
    beta INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    last_login INTEGER
) STRICT;

-- An authorization holds one access token. The token itself is not stored: its SHA-256, and what people may see of it.
CREATE TABLE authorizations (
    id TEXT PRIMARY KEY NOT NULL,
    account TEXT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    description TEXT,
    scope TEXT NOT NULL,
    token_id TEXT NOT NULL,
    token_hash BLOB NOT NULL UNIQUE,
    token_hint TEXT NOT NULL,
    token_expires_at INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX authorizations_of_account ON authorizations (account);

CREATE TABLE account_features (
    account TEXT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    enabled INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (account, name)
) STRICT;

CREATE TABLE apps (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL REFERENCES accounts (id),
    maintenance INTEGER NOT NULL DEFAULT 0,
    build_stack TEXT NOT NULL,
    repo_size INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

-- The owner is a collaborator too, with the role `owner`: one table says who may see an app.
CREATE TABLE collaborators (
    id TEXT PRIMARY KEY NOT NULL,
    app TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    account TEXT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    role TEXT NOT NULL CHECK (role IN ('owner', 'collaborator')),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (app, account)
) STRICT;
CREATE INDEX collaborators_of_account ON collaborators (account);

CREATE TABLE app_features (
    app TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    enabled INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (app, name)
) STRICT;

CREATE TABLE domains (
    id TEXT PRIMARY KEY NOT NULL,
    app TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    hostname TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('heroku', 'custom')),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX domains_of_app ON domains (app);

-- What `buildpacks:set` chose, in order from 0. `name` is what people wrote when it was a registry name.
CREATE TABLE buildpack_installations (
    app TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    ordinal INTEGER NOT NULL,
    url TEXT NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (app, ordinal)
) STRICT;
