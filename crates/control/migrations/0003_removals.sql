-- Apps that were destroyed: their dynos, images, repository and history still have to go (reconcile/apps.rs).
CREATE TABLE removals (
    app TEXT PRIMARY KEY NOT NULL,
    at INTEGER NOT NULL
) STRICT;

CREATE TRIGGER apps_leave_a_record AFTER DELETE ON apps
BEGIN
    INSERT OR IGNORE INTO removals (app, at) VALUES (OLD.id, unixepoch() * 1000000);
END;
