//! People at a dyno's streams: clients of one-off dynos, commands inside running dynos, the exec family over SSH.
//!
//! [`secret`] is what a client of a rendezvous proves itself with, [`meeting`] the protocol it speaks, [`relay`] the
//! bytes between it and the dyno. [`pass`] and [`ssh`] are the same for the exec family. Who may do what was decided when
//! secret or pass was given out ([`crate::ops`]). [`inside`] finds the dyno and connects within it,
//! [`account`] writes into the app's log who was there.

pub mod account;
mod activity;
pub(crate) mod inside;
mod marker;
pub mod meeting;
pub mod pass;
pub mod relay;
pub mod secret;
pub mod ssh;
pub(crate) mod tunnel;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use dozen_api::{clock::Micros, engine::Inside};
use dozen_domain::ids::DynoId;
use uuid::Uuid;

pub use self::account::{About, Account};

/// A command that is to run inside a dyno once its client is there.
#[derive(Debug, Clone)]
pub struct Pending {
    /// In which dyno.
    pub dyno: DynoId,
    /// What.
    pub inside: Inside,
    /// For the account of it in the app's log.
    pub about: About,
    /// Nobody may attach after this.
    pub until: Micros,
}

/// Commands that wait for their clients. They are lost with the process, and so are their clients' connections.
#[derive(Debug, Default)]
pub struct Sessions {
    pending: Mutex<HashMap<Uuid, Pending>>,
}

impl Sessions {
    /// Keeps a command until its client comes; forgets those whose time is over.
    pub fn expect(&self, id: Uuid, pending: Pending, now: Micros) {
        let mut all = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, other| other.until > now);
        all.insert(id, pending);
    }

    /// Takes a command, once.
    pub fn take(&self, id: Uuid, now: Micros) -> Option<Pending> {
        let mut all = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&id).filter(|pending| pending.until > now)
    }
}
