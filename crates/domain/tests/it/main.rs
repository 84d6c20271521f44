//! What the domain computes, against programs of other people that compute the same.

mod cron;
