-- Certificates of custom domains. The key is sealed with the endpoint's id as context.
CREATE TABLE sni_endpoints (
    id TEXT PRIMARY KEY NOT NULL,
    app TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    managed INTEGER NOT NULL,
    trusted INTEGER NOT NULL,
    chain TEXT NOT NULL,
    sealed_key BLOB NOT NULL,
    starts_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (app, name)
) STRICT;
ALTER TABLE domains ADD COLUMN sni_endpoint TEXT REFERENCES sni_endpoints (id) ON DELETE SET NULL;
CREATE INDEX domains_of_sni_endpoint ON domains (sni_endpoint);

-- Apps whose certificates the platform gets and renews, and how that goes for each domain.
CREATE TABLE managed_apps (
    app TEXT PRIMARY KEY NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL
) STRICT;
CREATE TABLE managed_domains (
    domain TEXT PRIMARY KEY NOT NULL REFERENCES domains (id) ON DELETE CASCADE,
    status TEXT NOT NULL,
    reason TEXT,
    failures INTEGER NOT NULL,
    next_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

-- The platform's accounts with certificate authorities, by directory. Their credentials are sealed with its address.
CREATE TABLE acme_accounts (
    directory TEXT PRIMARY KEY NOT NULL,
    sealed BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
