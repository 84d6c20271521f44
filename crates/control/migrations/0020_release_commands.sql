-- Release commands, each written before it is started. `boot` is the boot of the machine on which that was: a command
-- that has not `begun` as far as is known, and that nobody knows on the same boot, was never started. One that has
-- begun, or was written before a reboot, is not started again.
CREATE TABLE release_commands (
    release TEXT PRIMARY KEY NOT NULL REFERENCES releases (id) ON DELETE CASCADE,
    boot TEXT NOT NULL,
    begun INTEGER NOT NULL
) STRICT;
