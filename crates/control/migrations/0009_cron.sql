-- Timed jobs of apps (crates/control/src/cron). `next_at` is null while a job is paused or will never be due again.
-- `managed`: it comes from the app's app.json and follows that.
CREATE TABLE cron_jobs (
    id TEXT PRIMARY KEY NOT NULL,
    app TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    schedule TEXT NOT NULL,
    zone TEXT NOT NULL,
    command TEXT NOT NULL,
    size TEXT NOT NULL,
    overlap TEXT NOT NULL,
    missed TEXT NOT NULL,
    paused INTEGER NOT NULL,
    managed INTEGER NOT NULL,
    next_at INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (app, name)
) STRICT;
CREATE INDEX cron_jobs_due ON cron_jobs (next_at);

-- Runs of jobs, each written before it begins. The id is the dyno's. `boot` is the boot of the machine on which it was
-- written: a run that was written before a reboot and is not known afterwards may have begun, and is not begun again.
CREATE TABLE cron_runs (
    id TEXT PRIMARY KEY NOT NULL,
    job TEXT NOT NULL REFERENCES cron_jobs (id) ON DELETE CASCADE,
    app TEXT NOT NULL,
    name TEXT NOT NULL,
    cause TEXT NOT NULL CHECK (cause IN ('schedule', 'missed', 'manual')),
    status TEXT NOT NULL CHECK (status IN ('pending', 'running', 'succeeded', 'failed', 'skipped', 'missed', 'lost')),
    command TEXT NOT NULL,
    scheduled_at INTEGER NOT NULL,
    boot TEXT NOT NULL,
    exit_status INTEGER,
    note TEXT,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    ended_at INTEGER
) STRICT;
CREATE INDEX cron_runs_of_job ON cron_runs (job, created_at);
CREATE INDEX cron_runs_under_way ON cron_runs (status) WHERE status IN ('pending', 'running');

-- One time of a schedule makes one run.
CREATE UNIQUE INDEX cron_runs_once ON cron_runs (job, scheduled_at) WHERE cause <> 'manual';
